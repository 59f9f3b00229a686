// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseEvent(t *testing.T) {
	t.Parallel()
	start := time.Unix(100, 0)
	e, ok := parseEvent("event 102500000000 raised goroutine-leak critical 12 goroutines wait at x.go:3", start)
	require.True(t, ok)
	assert.Equal(t, Event{2.5, "raised", "goroutine-leak", "critical", "12 goroutines wait at x.go:3", 0}, e)
	e, ok = parseEvent("event 102500000000 ended - -", start)
	require.True(t, ok)
	assert.Equal(t, "ended", e.Kind)
	for _, line := range []string{"", "event", "event 1 raised x", "event soon raised x y z", "Event 1 raised x y z", "an event 1 raised x y z"} {
		_, ok := parseEvent(line, start)
		assert.False(t, ok, line)
	}
}

func FuzzParseEvent(f *testing.F) {
	f.Add("event 102500000000 raised goroutine-leak critical 12 goroutines wait")
	f.Add("event -9223372036854775808 a b c")
	f.Fuzz(func(t *testing.T, line string) {
		e, ok := parseEvent(line, time.Unix(0, 0))
		if !ok {
			assert.Zero(t, e)
			return
		}
		words := strings.SplitN(line, " ", 6)
		assert.Equal(t, words[2:5], []string{e.Kind, e.Finding, e.Severity})
		_, err := strconv.ParseInt(words[1], 10, 64)
		assert.NoError(t, err)
		_, err = json.Marshal(e)
		assert.NoError(t, err)
	})
}

func TestNamed(t *testing.T) {
	t.Parallel()
	events := []Event{
		{1, "raised", "slow", "info", "", 0},
		{2, "raised", "early", "warning", "first", 0},
		{3, "raised", "gone", "warning", "", 0},
		{4, "cleared", "gone", "warning", "", 0},
		{5, "raised", "early", "critical", "again", 0},
		{6, "raised", "other-life", "critical", "", 1},
		{7, "raised", "bad", "critical", "", 0},
		{99, "raised", "after", "critical", "", 0},
	}
	stood := named(events, 0, 10)
	assert.Equal(t, []Named{{"early", "critical", 8, "first"}, {"bad", "critical", 3, ""}}, stood)
	d := Death{Named: append(stood, Named{"oom-forecast", "critical", 9, ""})}
	assert.Equal(t, "early", d.cause(nil).Finding)
	assert.Equal(t, "bad", d.cause([]string{"bad", "worse"}).Finding)
	assert.Nil(t, d.cause([]string{"worse"}))
	d.Named = []Named{{"limit-missing", "warning", 9, ""}, {"real", "critical", 2, ""}}
	assert.Equal(t, "real", d.cause(nil).Finding)
	d.Named = []Named{{"oom-forecast", "critical", 9, ""}}
	assert.Nil(t, d.cause(nil), "it says when, not why")
}

func TestLines(t *testing.T) {
	t.Parallel()
	var got []string
	l := &lines{each: func(s string) { got = append(got, s) }}
	for _, part := range []string{"a", "b\n\nc", "\nd"} {
		n, err := l.Write([]byte(part))
		require.NoError(t, err)
		assert.Equal(t, len(part), n)
	}
	assert.Equal(t, []string{"ab", "", "c"}, got)
	l.flush()
	l.flush()
	assert.Equal(t, []string{"ab", "", "c", "d"}, got)

	got = nil
	_, _ = l.Write([]byte(strings.Repeat("x", 3*maxLine) + "\ny\n"))
	require.Len(t, got, 2)
	assert.Len(t, got[0], maxLine)
	assert.Equal(t, "y", got[1])
}

// What a victim prints is kept up to a bound: how it began and how it ended.
func TestHearKeepsBothEnds(t *testing.T) {
	t.Parallel()
	x := &run{bout: &bout{}, r: &Result{}}
	for i := range 1000 {
		x.hear(0, strconv.Itoa(i))
	}
	x.order()
	got := x.r.Stderr
	require.Len(t, got, maxLines+1)
	for i := range maxLines / 2 {
		assert.Equal(t, strconv.Itoa(i), got[i])
		assert.Equal(t, strconv.Itoa(1000-maxLines/2+i), got[maxLines/2+1+i])
	}
	assert.Equal(t, "[... 800 lines ...]", got[maxLines/2])
}

func TestSecondsUnknownIsNull(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal([]Seconds{{}, {0, true}, {1.5, true}})
	require.NoError(t, err)
	assert.Equal(t, "[null,0,1.5]", string(b))
	var got []Seconds
	require.NoError(t, json.Unmarshal(b, &got))
	assert.Equal(t, []Seconds{{}, {0, true}, {1.5, true}}, got)
}
