// SPDX-License-Identifier: Apache-2.0

package brink

import (
	"context"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// pressure waits for a trigger of a group's memory.pressure, and counts how often it
// fires until the child has ended (Documentation/accounting/psi.rst).
func pressure(t *testing.T, c *child, trigger string, over <-chan struct{}) (fired *atomic.Int32) {
	t.Helper()
	fired = &atomic.Int32{}
	fd, err := unix.Open(c.box.Dir()+"/memory.pressure", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	_, err = unix.Write(fd, append([]byte(trigger), 0))
	require.NoError(t, err, trigger)
	go func() {
		defer unix.Close(fd)
		for {
			select {
			case <-over:
				return
			default:
			}
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
			if n, _ := unix.Poll(p, 10); n > 0 && p[0].Revents&unix.POLLPRI != 0 {
				if killed, err := c.box.Kills(); err != nil || killed > 0 {
					continue
				}
				fired.Add(1)
			}
		}
	}()
	return fired
}

// A group that runs into its limit is heard of before the kernel kills, as a rule; what
// waits for pressure hears nothing. MEMGUARD_REQUIRE_CGROUP has it be so in the
// emulated machine of bench/cmd/guest:
//
//	CGO_ENABLED=0 go test -c -o brink.test ./sidecar/internal/brink
//	go run ./bench/cmd/guest --kernel vmlinuz -- ./brink.test -test.v
func TestWarn(t *testing.T) {
	triggers := []string{"some 5000 500000", "some 50000 500000", "full 5000 500000", "some 150000 1000000"}
	var warned, kills, early int
	fired := make([]int, len(triggers))
	for range 5 {
		c := start(t, false)
		over := make(chan struct{})
		var counts []*atomic.Int32
		for _, trigger := range triggers {
			counts = append(counts, pressure(t, c, trigger, over))
		}
		var first atomic.Pointer[time.Time]
		var lived atomic.Bool
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- Warn(ctx, c.Process.Pid, func(context.Context) {
				if n, err := c.box.Kills(); err == nil && n == 0 {
					lived.Store(true)
				}
				now := time.Now()
				first.CompareAndSwap(nil, &now)
			})
		}()
		time.Sleep(200 * time.Millisecond)
		c.order("use 256")
		c.killed()
		end := time.Now()
		close(over)
		cancel()
		assert.NoError(t, <-done)
		kills++
		if at := first.Load(); at != nil {
			warned++
			t.Logf("told %s before its end was seen", end.Sub(*at).Round(100*time.Microsecond))
		}
		if lived.Load() {
			early++
		}
		for i, n := range counts {
			if n.Load() > 0 {
				fired[i]++
			}
		}
	}
	t.Logf("%d kills: %d told of, %d of them before the kill; pressure fired before %v, by %q", kills, warned, early, fired, triggers)
	assert.Positive(t, early)
}

// Far from the limit nothing is told, and the end of ctx is no error.
func TestWarnQuiet(t *testing.T) {
	t.Parallel()
	c := start(t, false)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Warn(ctx, c.Process.Pid, func(context.Context) { t.Error("the limit was not reached") })
	}()
	c.order("use 32")
	assert.Equal(t, "done 0\n", c.line())
	cancel()
	assert.NoError(t, <-done)
	_, err := NewHold(c.Process.Pid, &Keeper{Dir: t.TempDir()}, time.Second)
	assert.ErrorIs(t, err, ErrNot)
	assert.Error(t, Warn(t.Context(), os.Getpid()<<8, nil))
}
