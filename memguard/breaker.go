// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"fmt"
	"slices"

	"github.com/memguard/memguard-go/memguard/shed"
	"github.com/memguard/memguard-go/pacer"
)

// ask has the service's breaker asked, in a goroutine of its own: it is somebody
// else's code, which may itself ask the guard, or hang. Then the last answer
// stands. An answer is that of the tick before.
func (h *hand) ask() {
	if h.breaker == nil || h.deaf.Load() {
		return
	}
	h.once.Do(func() { go h.poll() })
	select {
	case h.asked <- struct{}{}:
	default: // it is being asked
	}
}

// poll asks the breaker whenever that is wanted, until the guard ends or the
// breaker panics, or ends the goroutine: it would do so a hundred times a second.
func (h *hand) poll() {
	ended := false
	defer func() {
		if p := recover(); p != nil || !ended {
			h.g.locked(func() {
				h.g.note(panicked("breaker state", p))
				h.governor.Table = nil
			})
			h.deaf.Store(true)
			h.state.Store(uint32(pacer.Closed))
			h.g.nudge()
		}
	}()
	for {
		select {
		case <-h.asked:
			h.state.Store(uint32(h.breaker()))
		case <-h.g.ctx.Done():
			ended = true
			return
		}
	}
}

// observe tells the memory breaker the level of memory, and the governor the state
// of the breaker that it is coupled to.
func (h *hand) observe() {
	h.reading.State = pacer.State(h.state.Load())
	if h.memory == nil {
		return
	}
	if h.known && !h.dry {
		h.memory.Observe(h.level())
	}
	is := pacerState(h.memory.State())
	if h.breaker == nil {
		h.reading.State = is
	}
	if is != h.memoryIs {
		why := "how much cannot be freed is not known"
		if h.known {
			why = fmt.Sprintf("what cannot be freed is %.0f %% of the limit", 100*h.level())
		}
		if h.limiter == nil && h.shedding.undo != nil {
			why = h.decision.Reason
		}
		h.g.note(Event{Kind: Applied, Action: Action{Name: SetBreaker, From: int64(h.memoryIs), To: int64(is), Reason: why}})
		h.memoryIs = is
	}
}

// level is what no collection frees and what is not Go's, as a part of the limit.
func (h *hand) level() float64 {
	r := &h.reading
	if r.Limit == Unlimited || r.Limit == 0 {
		return 0
	}
	return float64(r.Must()+h.notGos()) / float64(r.Limit)
}

// notGos is what is charged and not the Go runtime's.
func (h *hand) notGos() uint64 {
	return h.reading.Usage - min(h.reading.Usage, h.resident)
}

// pacerState is a memory breaker's state in the pacer's words.
func pacerState(s shed.State) pacer.State {
	return pacer.State(max(slices.Index(shedStates[:], s), 0))
}

var shedStates = [...]shed.State{pacer.Closed: shed.Closed, pacer.HalfOpen: shed.HalfOpen, pacer.Open: shed.Open}
