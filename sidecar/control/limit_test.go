// SPDX-License-Identifier: Apache-2.0

package control

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestLimiter(t *testing.T) {
	t.Parallel()
	l := newLimiter(10, 3)
	now := time.Unix(1e9, 0)
	for i := range 3 {
		wait, n := l.ask("a", now)
		assert.Zero(t, wait)
		assert.Equal(t, i+1, n)
	}
	wait, n := l.ask("a", now)
	assert.InDelta(t, 6*time.Second, wait, float64(time.Millisecond), "one in six seconds")
	assert.Equal(t, 4, n, "those that are refused are asked, too")
	wait, _ = l.ask("b", now)
	assert.Zero(t, wait, "another caller")
	wait, _ = l.ask("a", now.Add(6*time.Second))
	assert.Zero(t, wait, "to be refused costs nothing")
	wait, _ = l.ask("a", now.Add(6*time.Second))
	assert.Positive(t, wait)
	_, n = l.ask("a", now.Add(2*time.Minute))
	assert.Equal(t, 1, n)
}

// However many callers there are, the table stays small, nobody gets more than
// their share by it, and who asked long ago makes room.
func TestLimiterIsBounded(t *testing.T) {
	t.Parallel()
	l := newLimiter(10, 1)
	now := time.Unix(1e9, 0)
	passed := 0
	for i := range 5 * mostCallers {
		if wait, _ := l.ask(strconv.Itoa(i), now); wait == 0 {
			passed++
		}
	}
	assert.Equal(t, mostCallers+1, passed, "those beyond the table share one bucket")
	assert.Len(t, l.of, mostCallers)
	wait, _ := l.ask("0", now)
	assert.Positive(t, wait, "who has used theirs up is remembered")
	wait, _ = l.ask("new", now.Add(time.Hour))
	assert.Zero(t, wait)
	assert.Len(t, l.of, 1, "an hour later nobody is owed anything")
	for range 2 * mostAsked {
		l.ask("new", now.Add(time.Hour))
	}
	assert.Len(t, l.of["new"].asked, mostAsked)
}
