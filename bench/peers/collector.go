// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/bytedance/gopkg/util/gctuner"
	"github.com/raulk/go-watchdog"

	"github.com/memguard/memguard-go/bench/lab"
)

// autoMemLimit does what the import of the library's root package does in its
// init. That import would set the limit of every process of this program.
var autoMemLimit = lab.Contender{
	Name:    "automemlimit",
	Version: version("github.com/KimMachineGun/automemlimit"),
	Setup:   "as imported: GOMEMLIMIT at 90 % of the cgroup's limit (https://github.com/KimMachineGun/automemlimit#usage)",
	Start: func(uint64) (lab.Hooks, error) {
		_, err := memlimit.Set(memlimit.WithLogger(slog.Default()))
		return lab.Hooks{}, err
	},
}

var gcTuner = lab.Contender{
	Name:    "gctuner",
	Version: version("github.com/bytedance/gopkg"),
	Setup:   "gctuner.Tuning at the recommended 70 % of the limit (https://github.com/bytedance/gopkg/tree/main/util/gctuner#usage)",
	Start: func(limit uint64) (lab.Hooks, error) {
		gctuner.Tuning(limit / 10 * 7)
		return lab.Hooks{Close: func() error {
			gctuner.Tuning(0)
			return nil
		}}, nil
	},
}

var lotusWatchdog = lab.Contender{
	Name:    "watchdog",
	Version: version("github.com/raulk/go-watchdog"),
	Setup: "as lotus, its best known user: watermarks of 50 to 95 %, every 5 s, a heap profile at 90 %; by cgroup, else by system " +
		"(https://github.com/filecoin-project/lotus/blob/0131b077/node/modules/core.go)",
	Start: func(uint64) (lab.Hooks, error) {
		watchdog.HeapProfileDir = "heapprof"
		watchdog.HeapProfileMaxCaptures = 10
		watchdog.HeapProfileThreshold = 0.9
		return watch(5*time.Second, watchdog.NewWatermarkPolicy(0.50, 0.60, 0.70, 0.85, 0.90, 0.925, 0.95))
	},
}

var fastWatchdog = lab.Contender{
	Name:    "watchdog-fast",
	Version: version("github.com/raulk/go-watchdog"),
	Setup: "faster than anybody recommends: the adaptive policy with factor 0.5, every 50 ms, and debug.FreeOSMemory as ForcedGCFunc " +
		"(https://pkg.go.dev/github.com/raulk/go-watchdog#pkg-variables)",
	Start: func(uint64) (lab.Hooks, error) {
		watchdog.ForcedGCFunc = debug.FreeOSMemory
		return watch(50*time.Millisecond, watchdog.NewAdaptivePolicy(0.5))
	},
}

// watch starts the watchdog in the order that its documentation recommends. The
// first, a heap limit, is for services that know one.
func watch(every time.Duration, policy watchdog.PolicyCtor) (lab.Hooks, error) {
	err, stop := watchdog.CgroupDriven(every, policy)
	if err != nil { // it knows cgroup v1 only
		slog.Warn("no watchdog by cgroup, trying by system", "error", err)
		err, stop = watchdog.SystemDriven(0, every, policy)
	}
	if err != nil {
		return lab.Hooks{}, err
	}
	return lab.Hooks{Close: func() error {
		stop()
		return nil
	}}, nil
}
