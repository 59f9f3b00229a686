// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/agent"
	"github.com/memguard/memguard-go/sidecar/target"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// jumped is a time as it would have been read had the wall clock been set by d before:
// the monotonic reading is the same (time/time.go, Time: with the highest bit of wall
// set, 33 bits are seconds, 30 nanoseconds, and ext is the monotonic clock).
func jumped(t *testing.T, at time.Time, d time.Duration) time.Time {
	t.Helper()
	was := at
	wall := (*uint64)(unsafe.Pointer(&at))
	require.NotZero(t, *wall>>63, "a time without a monotonic reading: it is of the wall clock alone")
	*wall += uint64(d/time.Second) << 30
	require.Equal(t, d, at.Round(0).Sub(was.Round(0)))
	require.Zero(t, at.Sub(was))
	return at
}

var jumps = []time.Duration{-30 * 24 * time.Hour, -2 * time.Hour, 2 * time.Hour, 30 * 24 * time.Hour}

// A clock that is set while the sidecar runs neither ends an override before its time
// nor lets it stand for longer.
func TestClockSetMeanwhile(t *testing.T) {
	t.Parallel()
	service := service(t, "whole").Process.Pid
	r := beside(t, service)
	c := r.handed("app")
	for _, d := range []time.Duration{jumps[0], jumps[len(jumps)-1]} { // each takes the grace of a guard
		a := r.ask(alice, "PUT", at+"/runtimes/app/gcpercent", `{"to":51,"reason":"r","ttl":"1h"}`)
		require.Equal(t, 200, a.code, "%s", a.body)
		a = r.ask(alice, "PUT", at+"/runtimes/app/shed", `{"to":7,"reason":"r","ttl":"1s"}`)
		require.Equal(t, 200, a.code, "%s", a.body)
		r.journal.mu.Lock()
		for _, e := range r.journal.entries { // as if the clock had been set since
			if e.standing() {
				e.Time, e.Until = jumped(t, e.Time, -d), jumped(t, e.Until, -d)
			}
		}
		r.journal.mu.Unlock()
		r.nudge()
		require.Eventually(t, func() bool { return len(r.journal.standing()) == 1 }, time.Minute, 10*time.Millisecond, "%v: one ends in its second", d)
		o := r.journal.standing()[0]
		assert.Equal(t, "gcpercent", o.Setting, "%v: the other goes on", d)
		assert.Greater(t, time.Until(o.Until), 50*time.Minute)
		require.Len(t, handOf(t, c).Orders, 1)
		require.Equal(t, 200, r.ask(alice, "DELETE", at+"/runtimes/app/gcpercent", `{"reason":"r"}`).code, "%v", d)
	}
}

// Over a restart the steady clock says how old an override is, whatever the wall clock
// says; without it, one never stands for longer than its TTL again.
func TestClockSetBetweenTwoSidecars(t *testing.T) {
	t.Parallel()
	const ttl = time.Hour
	age := min(20*time.Minute, steady()/2) // of a machine that has just started
	for _, d := range jumps {
		for _, test := range []struct {
			name        string
			boot        string
			steady      time.Duration
			least, most time.Duration // left
		}{
			{"this boot", "boot", steady() - age, ttl - age - time.Minute, ttl - age},
			{"another boot", "other", steady() - age, -1 << 62, ttl},
			{"an older journal", "boot", 0, -1 << 62, ttl},
			{"of another time namespace", "boot", steady() + time.Hour, -1 << 62, ttl},
		} {
			dir := t.TempDir()
			j := opened(t, dir)
			w := begun("1", "gcpercent", 50)
			// Written some minutes ago, by a clock that was set by d since.
			w.Time = time.Now().Round(0).Add(-age - d)
			w.Until = w.Time.Add(ttl)
			w.Boot, w.Steady = test.boot, test.steady
			require.NoError(t, j.append(line{Begin: w}))
			require.NoError(t, j.append(line{End: &outcome{ID: "1", Seq: 1, Code: 200}}))
			require.NoError(t, j.close())
			for range 2 { // also when it was written anew
				j = opened(t, dir)
				e := j.state("1")
				require.NotNil(t, e)
				left := time.Until(e.Until)
				assert.LessOrEqual(t, left, test.most, "%s, %v", test.name, d)
				assert.Greater(t, left, test.least, "%s, %v", test.name, d)
				assert.Equal(t, ttl, e.Until.Sub(e.Time))
				if test.steady == 0 && d > 0 { // it looks older than it is
					assert.Less(t, left, time.Duration(0))
				}
				jumped(t, e.Time, time.Hour)  // from here on nobody sets its clock
				jumped(t, e.Until, time.Hour) //
				require.NoError(t, j.close())
			}
		}
	}
}

// An override that the guard holds for longer than it should is taken back in time by
// the next sidecar, although its clock was set back by a day meanwhile.
func TestClockSetBackAndTheSecondHand(t *testing.T) {
	t.Parallel()
	pid := service(t, "whole").Process.Pid
	c, err := agent.Dial(pid)
	require.NoError(t, err)
	defer c.Close()
	dir := shortDir(t)
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	require.NoError(t, err)
	j, err := openJournal(dir+"/state", strings.TrimSpace(string(boot)))
	require.NoError(t, err)
	set := settingOf("shed")
	tomorrow := time.Now().Add(24 * time.Hour).Round(0)
	w := &write{
		ID: "1", Time: tomorrow, Steady: steady() - time.Minute, By: "alice", Target: "gone", Boot: strings.TrimSpace(string(boot)),
		Process: target.Identity{PID: pid, Start: startOf(t, pid)}, Action: set.action, Setting: set.name, To: 30, Until: tomorrow.Add(50 * time.Second), Reason: "r",
	}
	e, err := c.Do(t.Context(), memguard.Order{Action: w.Action, To: w.To, Reason: "r", By: by(w), TTL: time.Hour})
	require.NoError(t, err)
	require.NoError(t, j.append(line{Begin: w}))
	require.NoError(t, j.append(line{End: &outcome{ID: w.ID, Seq: e.Seq, Code: 200}}))
	require.NoError(t, j.close())
	s, err := build(dir, nil)
	require.NoError(t, err)
	go func() { _ = s.Run(t.Context()) }()
	require.Eventually(t, func() bool { return len(handOf(t, c).Orders) == 0 && len(s.journal.standing()) == 0 }, time.Minute, 10*time.Millisecond)
}

// What was set while the clock stood ahead does not count as the latest after it was
// set back.
func TestClockSetBackBetweenTwoWrites(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := opened(t, dir)
	for i := range 2 {
		w := begun(fmt.Sprint(i), "gcpercent", 50)
		w.Time = time.Now().Add(-time.Duration(i) * 24 * time.Hour).Round(0)
		w.Until = w.Time.Add(24 * time.Hour)
		require.NoError(t, j.append(line{Begin: w}))
		require.NoError(t, j.append(line{End: &outcome{ID: w.ID, Seq: uint64(i) + 1, Code: 200}}))
	}
	assert.Equal(t, []string{"1"}, ids(j.standing()))
	require.NoError(t, j.close())
	assert.Equal(t, []string{"1"}, ids(opened(t, dir).standing()), "the second took the place of the first")
}

// Rates and keys go by the clock that nobody sets.
func TestClockAndLimits(t *testing.T) {
	t.Parallel()
	for _, d := range jumps {
		l := newLimiter(10, 3)
		now := time.Now()
		for range 3 {
			wait, _ := l.ask("a", now)
			require.Zero(t, wait)
		}
		wait, n := l.ask("a", jumped(t, now, d))
		assert.InDelta(t, 6*time.Second, wait, float64(time.Millisecond), "%v: no token came, and none is owed", d)
		assert.Equal(t, 4, n)
		wait, n = l.ask("a", jumped(t, now.Add(7*time.Second), d))
		assert.Zero(t, wait, "%v", d)
		assert.Equal(t, 5, n)

		j := opened(t, t.TempDir())
		w := begun("1", "", 0)
		w.Key, w.Hash = "k", "h"
		require.NoError(t, j.begin(w))
		require.NoError(t, j.append(line{End: &outcome{ID: "1", Seq: 1, Code: 202, Body: []byte(`{}`)}}))
		j.leave("1")
		j.entries["1"].Time = jumped(t, j.entries["1"].Time, d)
		j.tidy()
		first, err := j.claim(w)
		require.NoError(t, err)
		assert.NotNil(t, first, "%v: its answer is kept for a day", d)
	}
}
