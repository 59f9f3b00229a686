// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	sentinel "github.com/alibaba/sentinel-golang/api"
	"github.com/alibaba/sentinel-golang/core/base"
	"github.com/alibaba/sentinel-golang/core/config"
	"github.com/alibaba/sentinel-golang/core/flow"
	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/failsafehttp"
	"github.com/sony/gobreaker/v2"

	"github.com/memguard/memguard-go/bench/lab"
)

var memoryAdaptive = lab.Contender{
	Name:    "sentinel",
	Version: version("github.com/alibaba/sentinel-golang"),
	Setup: "a MemoryAdaptive flow rule as in its example, 1000 a second falling to 100 while RSS doubles: from 40 to 80 % of the limit " +
		"(https://github.com/alibaba/sentinel-golang/blob/v1.0.4/example/flow/memory_adaptive/memory_adaptive_qps_example.go)",
	Start: func(limit uint64) (lab.Hooks, error) {
		const resource = "service"
		c := config.NewDefaultConfig()
		c.Sentinel.Log.Dir = "sentinel" // not the user's home
		if err := sentinel.InitWithConfig(c); err != nil {
			return lab.Hooks{}, err
		}
		_, err := flow.LoadRules([]*flow.Rule{{
			Resource:               resource,
			TokenCalculateStrategy: flow.MemoryAdaptive,
			ControlBehavior:        flow.Reject,
			StatIntervalInMs:       1000,
			LowMemUsageThreshold:   1000,
			HighMemUsageThreshold:  100,
			MemLowWaterMarkBytes:   int64(limit / 100 * 40),
			MemHighWaterMarkBytes:  int64(limit / 100 * 80),
		}})
		return gate(func() (func(), bool) {
			e, blocked := sentinel.Entry(resource, sentinel.WithTrafficType(base.Inbound))
			if blocked != nil {
				return nil, false
			}
			return func() { e.Exit() }, true
		}), err
	},
}

// circuitBreaker guards requests only: a unit of work that does not fail can trip
// no breaker.
var circuitBreaker = lab.Contender{
	Name:    "gobreaker",
	Version: version("github.com/sony/gobreaker/v2"),
	Setup: "around the handler, trips as in its example at 60 % failures of at least 3; a failure is status 500 or above, or a client that has left. It knows nothing of memory " +
		"(https://github.com/sony/gobreaker/blob/v2.4.0/v2/example/http_breaker.go)",
	Start: func(uint64) (lab.Hooks, error) {
		b := gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{ReadyToTrip: func(n gobreaker.Counts) bool {
			return n.Requests >= 3 && float64(n.TotalFailures)/float64(n.Requests) >= 0.6
		}})
		return lab.Hooks{Handler: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, err := b.Execute(func() (none struct{}, err error) {
					s := &statusWriter{ResponseWriter: w}
					next.ServeHTTP(s, r)
					if s.status >= http.StatusInternalServerError {
						return none, fmt.Errorf("status %d", s.status)
					}
					return none, r.Context().Err()
				})
				if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
					http.Error(w, err.Error(), http.StatusServiceUnavailable)
				}
			})
		}}, nil
	},
}

// statusWriter keeps the status of an answer; zero is that of a handler that set none.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

var adaptiveLimiter = lab.Contender{
	Name:    "failsafe-adaptive",
	Version: version("github.com/failsafe-go/failsafe-go"),
	Setup:   "the adaptive limiter with its defaults, around the handler: its limit follows the time that work takes, from 1 to 200 at once (https://failsafe-go.dev/adaptive-limiter)",
	Start: func(uint64) (lab.Hooks, error) {
		l := adaptivelimiter.NewWithDefaults[*http.Response]()
		return lab.Hooks{
			Enter: func(context.Context, string) (func(), bool) {
				p, ok := l.TryAcquirePermit()
				if !ok {
					return nil, false
				}
				return p.Record, true
			},
			Handler: func(next http.Handler) http.Handler { return failsafehttp.NewHandler(next, l) },
		}, nil
	},
}

// atOnce is how many requests of the overload scenarios fit into the limit at a
// time: see bench/scenario. The garbage of those before has to fit too, of which a
// bulkhead knows nothing, so who sizes one by hand sets GOMEMLIMIT as well.
const atOnce = 72

var bulkheadOfRightSize = lab.Contender{
	Name:    "failsafe-bulkhead",
	Version: version("github.com/failsafe-go/failsafe-go"),
	Setup: fmt.Sprintf("a bulkhead of %d at once and GOMEMLIMIT at 90 %% of the limit: sized by hand for the overload scenarios, by somebody who knows what a request holds ", atOnce) +
		"(https://failsafe-go.dev/bulkhead)",
	Env: func(limit uint64) []string {
		return []string{fmt.Sprintf("GOMEMLIMIT=%d", limit/10*9)}
	},
	Start: func(uint64) (lab.Hooks, error) {
		b := bulkhead.New[*http.Response](atOnce)
		return lab.Hooks{
			Enter: func(context.Context, string) (func(), bool) {
				if !b.TryAcquirePermit() {
					return nil, false
				}
				return b.ReleasePermit, true
			},
			Handler: func(next http.Handler) http.Handler { return failsafehttp.NewHandler(next, b) },
		}, nil
	},
}
