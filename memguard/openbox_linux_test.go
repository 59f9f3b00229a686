// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/memguard/evidence"
)

// kept are the events in the black box of this process, or of one that has ended.
func kept(t *testing.T, dir string) (lines []string, state evidence.State) {
	t.Helper()
	boxes, err := evidence.Boxes(dir)
	require.NoError(t, err)
	require.Len(t, boxes, 1)
	r, err := evidence.ReadBox(boxes[0])
	require.NoError(t, err)
	for _, rec := range r.Records {
		d, err := DecodeRecord(rec.Time, rec.Kind, rec.Payload)
		require.NoError(t, err)
		if e := d.Event; e != nil {
			lines = append(lines, string(e.Kind)+" "+e.Blind.What+e.Why)
		}
	}
	return lines, r.State
}

// A disk that hangs keeps Start waiting for a second. When it answers, what was noted
// meanwhile is in the box, and how the predecessor ended is told.
func TestProcessStartDoesNotWaitForADiskThatHangs(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var d diary
		g := Start(Config{DryRun: true, Event: d.write})
		hangs := make(chan struct{})
		begin := time.Now()
		g.record(func() opened {
			<-hangs
			o := openBox(dir)
			o.died = append(o.died, Event{Kind: Died, Why: "It died."})
			return o
		})
		assert.LessOrEqual(t, time.Since(begin), openWait, "by the test's clock")
		g.locked(func() { g.note(Event{Kind: Lost, Blind: Blind{What: "an eye"}}) })
		time.Sleep(time.Minute)
		close(hangs)
		time.Sleep(time.Second)
		require.NoError(t, g.Close())
		lines, state := kept(t, dir)
		assert.Equal(t, evidence.Closed, state)
		assert.Subset(t, lines, []string{"lost black box", "lost an eye", "died It died."})
		assert.Subset(t, d.lines(), []string{"lost black box", "lost an eye", "died"})
	})
}

// A box that comes after the end is closed, or the next process would say that this one
// has died.
func TestProcessABoxThatComesAfterTheEnd(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		g := Start(Config{DryRun: true})
		hangs := make(chan struct{})
		g.record(func() opened { <-hangs; return openBox(dir) })
		require.NoError(t, g.Close())
		close(hangs)
		synctest.Wait()
		_, state := kept(t, dir)
		assert.Equal(t, evidence.Closed, state)
	})
}

// What is noted before there is a box is in it.
func TestProcessTheBoxHasTheFirstEvents(t *testing.T) {
	first := Start(Config{})
	defer first.Close()
	dir := t.TempDir()
	second := Start(Config{Evidence: &evidence.Store{Dir: dir}})
	require.NoError(t, second.Close())
	lines, _ := kept(t, dir)
	assert.Contains(t, lines, "lost settings")
}
