// SPDX-License-Identifier: Apache-2.0

package shed

import (
	"sync"
	"time"
)

// State is the state of a [Breaker].
type State string

// The states, in the words of everybody's breakers.
const (
	Closed   State = "closed"    // everything passes
	HalfOpen State = "half-open" // a few pass, to see whether it holds
	Open     State = "open"      // nothing passes
)

// BreakerConfig says when a [Breaker] opens and closes. The zero BreakerConfig
// is fine.
type BreakerConfig struct {
	Open     float64       // level at or above which it opens; 0 is 0.92
	Close    float64       // level below which it may close; 0 is 0.85 of Open
	CoolDown time.Duration // how long it stays open below Open, and then half-open, at least; 0 is 2 s
	Probes   int           // how many pass in a CoolDown while it is half-open; 0 is 5
}

// Breaker is a circuit breaker that opens on the level of memory instead of
// on failures. It needs no [Limiter]; whoever knows the level calls Observe:
// a guard does for its Config.MemoryBreaker.
// Its methods may be called from several goroutines.
//
// While nobody has called Observe for 5 s, the level is unknown: an open breaker
// becomes half-open, and a half-open one does not close.
//
//	      level >= Open                CoolDown is over, level < Open
//	closed ────────────▶ open ◀───────────────▶ half-open
//	   ▲                       level >= Open        │
//	   └────────────────────────────────────────────┘
//	             level < Close for a CoolDown
type Breaker struct {
	cfg BreakerConfig

	mu     sync.Mutex
	state  State           // by the level
	forced standing[State] // instead
	level  float64
	told   time.Time // when Observe was called last
	since  time.Time // of the state
	high   time.Time // the last time that the level was not below Close
	probes int       // left in this CoolDown ...
	filled time.Time // ... which began here
}

// NewBreaker makes a closed breaker.
func NewBreaker(cfg BreakerConfig) *Breaker {
	if cfg.Open == 0 {
		cfg.Open = 0.92
	}
	if cfg.Close == 0 || cfg.Close > cfg.Open {
		cfg.Close = 0.85 * cfg.Open
	}
	if cfg.CoolDown == 0 {
		cfg.CoolDown = 2 * time.Second
	}
	if cfg.Probes == 0 {
		cfg.Probes = 5
	}
	return &Breaker{cfg: cfg, state: Closed}
}

// Observe tells the level of memory: what cannot be freed, or the usage, as a
// part of the limit. Not a number changes nothing.
func (b *Breaker) Observe(level float64) {
	if level != level {
		return
	}
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.level, b.told = level, now
	b.step(now)
}

// Allow reports whether a unit of work may pass.
func (b *Breaker) Allow() bool {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.step(now)
	switch b.says() {
	case Open:
		return false
	case HalfOpen:
		if now.Sub(b.filled) >= b.cfg.CoolDown {
			b.probes, b.filled = b.cfg.Probes, now
		}
		b.probes--
		return b.probes >= 0
	}
	return true
}

// State returns the state.
func (b *Breaker) State() State {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.step(now)
	return b.says()
}

// Force holds the breaker in a state, whatever the level, until undo, which may be
// called at any time; of several the latest counts, and without any the level does.
// One that is not a State is taken for Open. A guard with this breaker does it for
// an order.
func (b *Breaker) Force(s State) (undo func()) {
	if s != Closed && s != HalfOpen {
		s = Open
	}
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	mine := b.forced.add(s)
	b.probes, b.filled = b.cfg.Probes, now
	return func() {
		now := time.Now()
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.forced.remove(mine) {
			b.probes, b.filled = b.cfg.Probes, now
		}
	}
}

// Reset forgets the level: by that the breaker is closed, as it was when new. What it
// was forced to stands. A guard does it that ends, for nobody would tell the level any
// more.
func (b *Breaker) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state, b.level = Closed, 0
	b.told, b.since, b.high = time.Time{}, time.Time{}, time.Time{}
}

func (b *Breaker) says() State {
	if s := b.forced.latest(); s != "" {
		return s
	}
	return b.state
}

func (b *Breaker) step(now time.Time) {
	if b.level >= b.cfg.Close || now.Sub(b.told) >= blindAfter {
		b.high = now
	}
	rested := now.Sub(b.since) >= b.cfg.CoolDown
	switch {
	case b.level >= b.cfg.Open && now.Sub(b.told) < blindAfter:
		b.state, b.since = Open, now
	case b.state == Open && rested:
		b.state, b.since = HalfOpen, now
		b.probes, b.filled = b.cfg.Probes, now
	case b.state == HalfOpen && rested && now.Sub(b.high) >= b.cfg.CoolDown:
		b.state, b.since = Closed, now
	}
}
