// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/memguard/shed"
	"github.com/memguard/memguard-go/pacer"
)

// Somebody else's code hangs: the guard ticks on, and Close does not wait for ever.
func TestGuardOutlivesWhatHangs(t *testing.T) {
	for name, configure := range map[string]func(cfg *Config, hang func()){
		"breaker":  func(cfg *Config, hang func()) { cfg.Breaker = func() pacer.State { hang(); return pacer.Closed } },
		"callback": func(cfg *Config, hang func()) { cfg.Event = func(Event) { hang() } },
	} {
		synctest.Test(t, func(t *testing.T) {
			var stop chan struct{}
			hangs := make(chan chan struct{}, 1)
			cfg := Config{DryRun: true}
			configure(&cfg, func() {
				select {
				case stop := <-hangs:
					<-stop
				default:
				}
			})
			g := Start(cfg)
			defer g.Close()
			for range 2 {
				time.Sleep(10 * time.Second)
				synctest.Wait()
				assert.LessOrEqual(t, g.Alive(), 2*tickRest, name)
				ticks := g.Status().Ticks

				stop = make(chan struct{})
				hangs <- stop
				_, err := g.Do(Order{Action: CollectGarbage, Reason: "an event", DryRun: true})
				require.NoError(t, err)
				time.Sleep(time.Minute)
				synctest.Wait()
				assert.LessOrEqual(t, g.Alive(), 2*tickRest, name)
				assert.Greater(t, g.Status().Ticks, ticks+50, name)
				close(stop)
			}
			stop = make(chan struct{})
			hangs <- stop
			_, err := g.Do(Order{Action: CollectGarbage, Reason: "an event", DryRun: true})
			require.NoError(t, err)
			synctest.Wait()
			start := time.Now()
			require.NoError(t, g.Close())
			assert.LessOrEqual(t, time.Since(start), 2*time.Second, name)
			close(stop)
		})
	}
}

// A tick that does not end: Status waits, StatusWithin and Alive do not.
func TestStatusOfATickThatHangs(t *testing.T) {
	t.Parallel()
	h := handOf(Config{DryRun: true})
	g := h.g
	g.born = time.Now().Add(-time.Hour)
	g.beat.Store(int64(10 * time.Minute))
	g.mu.Lock() // as if the kernel did not answer
	_, ok := g.StatusWithin(10 * time.Millisecond)
	assert.False(t, ok)
	assert.GreaterOrEqual(t, g.Alive(), 50*time.Minute)
	g.mu.Unlock()
	_, ok = g.StatusWithin(10 * time.Millisecond)
	assert.True(t, ok)
}

// A breaker may ask the guard: it is called without the guard's lock.
func TestBreakerMayAskTheGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started := make(chan *Guard, 1)
		var g *Guard
		guard := Start(Config{DryRun: true, Breaker: func() pacer.State {
			if g == nil {
				g = <-started
			}
			if g.Status().Findings != nil {
				return pacer.HalfOpen
			}
			return pacer.Closed
		}})
		started <- guard
		defer guard.Close()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		assert.Greater(t, guard.Status().Ticks, uint64(8))
	})
}

// A breaker that panics is told of once, is not asked again, and decides nothing
// any more.
func TestGuardOutlivesTheBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		var d diary
		g := Start(Config{DryRun: true, Event: d.write, Breaker: func() pacer.State {
			if asked++; asked == 3 {
				panic("no breaker")
			}
			return pacer.HalfOpen
		}})
		defer g.Close()
		time.Sleep(500 * time.Millisecond)
		assert.True(t, g.Status().Coupled)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		st := g.Status()
		assert.False(t, st.Coupled)
		assert.Equal(t, 3, asked)
		assert.Greater(t, st.Ticks, uint64(15))
		lost := 0
		for _, e := range d.events {
			if e.Blind == (Blind{"breaker state", "panic: no breaker"}) {
				lost++
			}
		}
		assert.Equal(t, 1, lost)
		assert.Equal(t, st.Baseline.GCPercent, st.Wanted.GCPercent, "the table proposes nothing without it")
	})
}

// A status is a copy: the next tick does not change it.
func TestStatusIsACopy(t *testing.T) {
	t.Parallel()
	limiter := shed.New(shed.Config{})
	h := handOf(Config{DryRun: true, Shed: limiter, Compact: func() {}})
	g := h.g
	g.sample = *healthy(0)
	g.sample.Blind = append(make([]Blind, 0, 8), Blind{"a", "b"})
	feedAll(h, service{live: constant(100 * mebi), limit: 512 * mebi}, 1, nil)
	st := g.Status()
	g.sample.Blind[0].Why = "changed"
	g.sample.Blind = append(g.sample.Blind, Blind{"c", "d"})
	assert.Equal(t, []Blind{{"a", "b"}}, st.Sample.Blind)
	assert.Nil(t, st.Sample.Runtime.Classes)
	assert.True(t, st.Acts)
	assert.True(t, st.DryRun)
	assert.False(t, st.Coupled)
	require.NotNil(t, st.Shed)
	assert.False(t, st.Shed.Limited, "in a dry run the limiter hears of no limit")
	assert.True(t, st.Must.ok)
	assert.Equal(t, h.wanted, st.Wanted)
}
