// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"github.com/memguard/memguard-go/bench/lab"
)

// All are the contenders made of other people's libraries: those that set the
// collector, one that keeps evidence, and those that refuse work.
var All = []lab.Contender{
	autoMemLimit,
	gcTuner,
	lotusWatchdog,
	fastWatchdog,
	holmesDumper,
	memoryLimiter,
	memoryAdaptive,
	circuitBreaker,
	adaptiveLimiter,
	bulkheadOfRightSize,
}

// version is that of a module that this program was built with.
func version(module string) string {
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range bi.Deps {
		if m.Path == module {
			return m.Version
		}
	}
	return ""
}

// gate puts an admission before each unit of work and each request.
func gate(enter func() (leave func(), ok bool)) lab.Hooks {
	return lab.Hooks{
		Enter: func(context.Context, string) (func(), bool) { return enter() },
		Handler: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				leave, ok := enter()
				if !ok {
					http.Error(w, "refused", http.StatusServiceUnavailable)
					return
				}
				defer leave()
				next.ServeHTTP(w, r)
			})
		},
	}
}

// saved tells the lab of evidence that a library has written, as lab.Event wants it.
func saved(what, path string) {
	fmt.Fprintf(os.Stderr, "event %d saved %s info %s\n", time.Now().UnixNano(), what, path)
}
