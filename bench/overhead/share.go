// SPDX-License-Identifier: Apache-2.0

package overhead

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/pprof/profile"
)

// share is the part of guard and limiter of a CPU profile.
type share struct {
	All     int64   `json:"samples"` // the profiler takes 100 for a second of CPU time
	Guard   int64   `json:"guard_samples"`
	Limiter int64   `json:"limiter_samples"`
	Where   []spent `json:"where"` // the most of both, by the innermost function of ours
}

// percent of all samples.
func (s *share) percent(of int64) float64 { return 100 * float64(of) / float64(max(s.All, 1)) }

type spent struct {
	Function string `json:"function"`
	Samples  int64  `json:"samples"`
}

const (
	module    = "github.com/memguard/memguard-go/"
	whereMost = 8
)

// shareOf reads a CPU profile of the service. It does not show what the runtime
// does for the guard on other stacks: waking its goroutine, and collecting its
// garbage. The comparison does.
func shareOf(text []byte) (s share, err error) {
	p, err := profile.ParseData(text)
	if err != nil {
		return s, err
	}
	where := map[string]int64{}
	for _, sample := range p.Sample {
		if len(sample.Value) == 0 {
			return s, fmt.Errorf("a sample of the CPU profile has no value")
		}
		var stack []string // innermost first
		for _, l := range sample.Location {
			for _, line := range l.Line {
				if line.Function != nil {
					stack = append(stack, line.Function.Name)
				}
			}
		}
		n := sample.Value[0] // samples/count
		s.All += n
		f := guardian(stack)
		switch {
		case f == "":
			continue
		case slices.ContainsFunc(stack, inLimiter) && !slices.ContainsFunc(stack, inTick):
			s.Limiter += n // its look at the usage is a function of the guard's
		default:
			s.Guard += n
		}
		where[f] += n
	}
	for _, f := range slices.SortedFunc(maps.Keys(where), func(a, b string) int {
		return cmp.Or(cmp.Compare(where[b], where[a]), cmp.Compare(a, b))
	}) {
		if len(s.Where) < whereMost {
			s.Where = append(s.Where, spent{strings.TrimPrefix(f, module), where[f]})
		}
	}
	return s, nil
}

// guardian is the function of ours for which a stack, innermost first, was at
// work; "" if it was for the service. The service's own work is below the
// limiter too: it is what the wrapped handler or connection was called for.
func guardian(stack []string) string {
	for i, f := range stack {
		switch {
		case strings.HasPrefix(f, module+"bench/"):
			return ""
		case !strings.HasPrefix(f, module):
		case i > 0 && slices.ContainsFunc(wrapped, func(w string) bool { return strings.HasPrefix(stack[i-1], w) }):
			return ""
		default:
			return f
		}
	}
	return ""
}

func inLimiter(f string) bool { return strings.HasPrefix(f, module+"memguard/shed.") }

func inTick(f string) bool { return strings.HasPrefix(f, module+"memguard.(*Guard).run") }

// wrapped is what the limiter's handler, listener and connections call in place
// of the server.
var wrapped = []string{"net.(*conn).", "net.(*TCPConn).", "net.(*TCPListener).", "net/http.(*ServeMux).ServeHTTP"}
