// SPDX-License-Identifier: Apache-2.0

package adapters

import (
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/memguard/memguard-go/pacer"
	"github.com/sony/gobreaker/v2"
)

// Gobreaker is the state of a breaker of github.com/sony/gobreaker, for
// memguard.Config.Breaker. It takes a CircuitBreaker and a TwoStepCircuitBreaker
// of any type.
//
// Asking a gobreaker is what makes it half-open when its time has come, and then
// it calls Settings.OnStateChange with its mutex held. That function must not call
// the guard: the guard is waiting for it.
func Gobreaker(b interface{ State() gobreaker.State }) pacer.StateFunc {
	return func() pacer.State {
		switch b.State() {
		case gobreaker.StateOpen:
			return pacer.Open
		case gobreaker.StateHalfOpen:
			return pacer.HalfOpen
		default:
			return pacer.Closed
		}
	}
}

// Failsafe is the state of a breaker of github.com/failsafe-go/failsafe-go, for
// memguard.Config.Breaker.
//
// A breaker of failsafe-go stays open until a request comes after its delay. Here
// it is half-open as soon as the delay is over: the next request will be let in.
func Failsafe[R any](b circuitbreaker.CircuitBreaker[R]) pacer.StateFunc {
	return func() pacer.State {
		switch b.State() {
		case circuitbreaker.OpenState:
			if b.RemainingDelay() > 0 {
				return pacer.Open
			}
			return pacer.HalfOpen
		case circuitbreaker.HalfOpenState:
			return pacer.HalfOpen
		default:
			return pacer.Closed
		}
	}
}
