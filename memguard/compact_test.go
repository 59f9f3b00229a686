// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/pacer"
)

// wasting is a hand of a process that holds so many bytes of span waste, and as
// many live ones, under a limit.
func wasting(cfg Config, unused, live, limit uint64) (*hand, *Sample) {
	h := handOf(cfg)
	h.known = true
	h.resident = live + unused
	h.reading = pacer.Reading{Limit: limit, Usage: live + unused, Mapped: live + unused, Live: live, Unused: unused, Cycles: 7}
	return h, &Sample{Time: time.Now(), Runtime: Runtime{Cycles: Known[uint64](7)}}
}

func TestCompactWhenItIsWorthIt(t *testing.T) {
	t.Parallel()
	const mb = 1 << 20
	for _, c := range []struct {
		name                string
		unused, live, limit uint64
		want                bool
	}{
		{"waste fills it", 300 * mb, 500 * mb, 1024 * mb, true},
		{"the limit is far", 300 * mb, 100 * mb, 1024 * mb, false},
		{"live memory fills it", 100 * mb, 700 * mb, 1024 * mb, false},
		{"too small to matter", 20 * mb, 60 * mb, 100 * mb, false},
		{"no limit, much waste", 300 * mb, 500 * mb, Unlimited, true},
		{"no limit, little waste", 60 * mb, 500 * mb, Unlimited, false},
		{"nothing", 0, 0, 1024 * mb, false},
	} {
		h, s := wasting(Config{Compact: func() {}, DryRun: true}, c.unused, c.live, c.limit)
		h.unfragment(s)
		assert.Equal(t, c.want, len(h.lines(Planned)) == 1, c.name)
		h.known = false
		before := h.g.journal.next
		h.compacted = compaction{}
		h.unfragment(s)
		assert.Equal(t, before, h.g.journal.next, "%s, but unknown", c.name)
	}
	h, s := wasting(Config{DryRun: true}, 300*mb, 500*mb, 1024*mb)
	h.unfragment(s)
	assert.Zero(t, h.g.journal.next, "without a hook")
}

// hooks plays the guard's goroutine: it has the hand look for so long, every
// second, a cycle each time, and returns after how many seconds the hook was called.
func (h *hand) hooks(t *testing.T, s *Sample, seconds int, called <-chan struct{}) (at []int) {
	start := time.Now()
	for n := range seconds {
		s.Time = start.Add(time.Duration(n) * time.Second)
		h.reading.Cycles++
		h.unfragment(s)
		if !h.g.busy[string(Compact)] {
			continue
		}
		<-called
		h.g.locked(<-h.g.finished)
		require.False(t, h.g.busy[string(Compact)])
		if !h.compacted.at.IsZero() {
			h.compacted.at = s.Time // the test's clock, not the machine's
		}
		at = append(at, n)
	}
	return at
}

// What does not help is tried less and less often; so is what panics.
func TestCompactBacksOff(t *testing.T) {
	t.Parallel()
	for name, hook := range map[string]func(h *hand){
		"without effect": func(*hand) {},
		"panicking":      func(*hand) { panic("a bug") },
		"helpful":        func(h *hand) { h.reading.Unused = 10 << 20 },
	} {
		var h *hand
		called := make(chan struct{}, 1)
		h, s := wasting(Config{Compact: func() {
			called <- struct{}{}
			hook(h)
		}}, 300<<20, 500<<20, 1<<30)
		at := h.hooks(t, s, 3600, called)
		switch name {
		case "helpful":
			assert.Equal(t, []int{0}, at)
		default:
			require.Len(t, at, 9, "%s: %v", name, at)
			for i := 2; i < len(at); i++ {
				gap, last := at[i]-at[i-1], at[i-1]-at[i-2]
				assert.True(t, gap >= 3*last || gap >= 600, "%s: %v", name, at)
			}
		}
		lost := 0
		es, _, _ := h.g.journal.since(0)
		for _, e := range es {
			if e.Blind == (Blind{"compact", "panic: a bug"}) {
				lost++
			}
		}
		if name == "panicking" {
			assert.Equal(t, len(at), lost)
			continue
		}
		assert.Zero(t, lost)
		assert.Len(t, h.lines(Applied), len(at), name)
		assert.Contains(t, h.lines(Planned)[0], fmt.Sprintf("%d MiB of span waste", 300))
	}
}

// A hook that does not return is not called again.
func TestCompactThatHangs(t *testing.T) {
	t.Parallel()
	goOn := make(chan struct{})
	h, s := wasting(Config{Compact: func() { <-goOn }}, 300<<20, 500<<20, 1<<30)
	for range 100 {
		s.Time = s.Time.Add(time.Minute)
		h.reading.Cycles += 10
		h.unfragment(s)
	}
	assert.Len(t, h.lines(Planned), 1)
	close(goOn)
	close(h.g.done)
}
