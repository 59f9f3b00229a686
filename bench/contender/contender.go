// SPDX-License-Identifier: Apache-2.0

// Package contender has the ways to keep a service alive that need nothing but
// this module: doing nothing, a fixed memory limit, the table of an article, and
// memguard.
package contender

import (
	"fmt"

	"github.com/memguard/memguard-go/bench/lab"
)

// All are the contenders, those first that everybody else is compared with.
var All = []lab.Contender{plain, limit90, article, articleTable, guard, guardAndTable, guardAndShed}

var plain = lab.Contender{
	Name:  "plain",
	Setup: "Go as it is: GOGC=100 and no memory limit, unless the scenario says otherwise",
}

var limit90 = lab.Contender{
	Name:  "limit90",
	Setup: "GOMEMLIMIT at 90 % of the cgroup's limit, as KimMachineGun/automemlimit sets it by default",
	Env: func(limit uint64) []string {
		return []string{fmt.Sprintf("GOMEMLIMIT=%d", limit/10*9)}
	},
}
