// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"time"

	"mosn.io/holmes"

	"github.com/memguard/memguard-go/bench/lab"
)

var holmesDumper = lab.Contender{
	Name:    "holmes",
	Version: version("mosn.io/holmes"),
	Setup: `"Enable them all" (https://github.com/mosn/holmes#enable-them-all), told the limit and looking every second instead of every five: ` +
		"its rules begin after ten looks, and runs are short. It keeps evidence and saves nobody",
	Start: func(limit uint64) (lab.Hooks, error) {
		h, err := holmes.New(append(holmesRules(),
			holmes.WithDumpPath("."),
			holmes.WithTextDump(),
			holmes.WithMemoryLimit(limit),
			holmes.WithProfileReporter(reporter(saved)),
		)...)
		if err != nil {
			return lab.Hooks{}, err
		}
		h.EnableCPUDump().EnableGoroutineDump().EnableMemDump().EnableGCHeapDump().Start()
		return lab.Hooks{Close: func() error {
			h.Stop()
			return nil
		}}, nil
	},
}

// holmesRules are those of its README, where everything is on. A look takes a
// second, in which it measures the CPU.
func holmesRules() []holmes.Option {
	return []holmes.Option{
		holmes.WithCollectInterval("1s"),
		holmes.WithCPUDump(10, 25, 80, time.Minute),
		holmes.WithGCHeapDump(10, 20, 40, time.Minute),
		holmes.WithGoroutineDump(500, 25, 20000, 0, time.Minute),
	}
}

// reporter is called with the kind of profile and the file of each dump.
type reporter func(kind, path string)

func (r reporter) Report(kind, path string, _ holmes.ReasonType, _ string, _ time.Time, _ []byte, _ holmes.Scene) error {
	r(kind, path)
	return nil
}
