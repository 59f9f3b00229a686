// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/agent"
	"github.com/memguard/memguard-go/sidecar/attach"
	"github.com/memguard/memguard-go/sidecar/target"
)

// Evidence is what is left of a process that has ended.
type Evidence struct {
	Target  string // its name
	Process target.Process
	Ended   time.Time     // when that was seen
	Lived   time.Duration // until then, by a clock that nobody sets; 0 is unknown
	Exit    Exit

	Snapshot   *attach.Snapshot // of the dying process, or the last one before; nil: none. How.Way says which
	Heap       []byte           // profiles in pprof's format, of the same moment; nil: none
	Goroutines []byte
	HeapAsked  time.Time     // the heap profile is of then, and the service's own net/http/pprof gave it; zero: it is of Snapshot's moment
	Held       time.Duration // for which the exit was held up
	NoSnapshot string        // why there is none, or no profile

	Eye      string           // agent, attach or kernel: whose figures follow
	Last     *agent.Status    // at the last look
	Ledger   *memguard.Ledger // of that look
	Timeline *Timeline        // up to it
	Events   []memguard.Event // of the guards that saw it, the last ones
	Cgroups  []Level          // from the process's own up to the root
	Machine  Machine          // the kernel's count of all its OOM kills
	Boxes    []string         // directories in which a guard of the service may have left its black box and profiles
	Stderr   []byte           // last lines that it printed, and how a dump began that is longer, where they passed through us
}

// Exit is how a process ended, as far as the kernel told.
type Exit struct {
	Known  bool   `json:"known"`
	Code   int    `json:"code"`   // if it left by itself
	Signal int    `json:"signal"` // that ended it; 0 if it left by itself
	From   string `json:"from"`   // who told: exit-hold, pidfd, exec
	Became bool   `json:"became"` // it did not end, but runs another program by now (execve(2))
}

// Level is a cgroup with what the kernel counted there, by the last look while the
// process lived and after it ended.
//
// A kill is counted in the group of the process that is killed, whosever limit was
// reached, and machine-wide ones too (mm/oom_kill.c, __oom_kill_process); version 2
// counts it in the groups above as well. So Before and After say that a process of
// the group was killed, and HitBefore and HitAfter whose limit it was for.
type Level struct {
	Dir    string         `json:"dir"`
	Limit  memguard.Bytes `json:"limit"` // memguard.Unlimited is none
	Usage  memguard.Bytes `json:"usage"` // by the last look
	Before memguard.Count `json:"oom_kills_before"`
	After  memguard.Count `json:"oom_kills_after"`

	// Times that the group could not be brought below its limit: oom of
	// memory.events.local, or of memory.events where there is none. Version 1 does
	// not count that; memory.failcnt, which also counts when reclaim helped, stands
	// in for it.
	HitBefore memguard.Count `json:"limit_hits_before"`
	HitAfter  memguard.Count `json:"limit_hits_after"`
}

// Machine is how many processes the kernel has killed for lack of memory since the
// machine was started, whosever limit it was for: oom_kill of /proc/vmstat, which
// no namespace hides (Linux 4.13).
type Machine struct {
	Before memguard.Count `json:"oom_kills_before"`
	After  memguard.Count `json:"oom_kills_after"`
}

// Timeline is the memory of a target over time: what a stacked area is drawn of.
type Timeline struct {
	Rows   []string `json:"rows"` // names of the ledger's rows, the lowest of the stack first
	Points []Point  `json:"points"`
}

// Point is one moment. Sizes are bytes.
type Point struct {
	Time  time.Time               `json:"time"`
	PID   int                     `json:"pid"`
	Usage memguard.Bytes          `json:"usage"` // of the cgroup; of the process where there is none
	Limit memguard.Bytes          `json:"limit"`
	Rows  []memguard.Value[int64] `json:"rows"`
}
