// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"math"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/shed"
)

// version is that of the answers: a key that goes, or means something else, makes
// it 2. Keys may come.
const version = 1

// answer is every answer: one of these, or a refusal.
type answer struct {
	Version  int                 `json:"version"`
	Status   *Status             `json:"status,omitempty"`
	Sample   *Sample             `json:"sample,omitempty"`
	Ledger   *memguard.Ledger    `json:"ledger,omitempty"`
	Findings *[]memguard.Finding `json:"findings,omitempty"`
	Report   *memguard.Report    `json:"report,omitempty"`
	Events   *[]memguard.Event   `json:"events,omitempty"`
	Ended    bool                `json:"ended,omitempty"` // there will be no more events
	Event    *memguard.Event     `json:"event,omitempty"`
	refusal
}

// encode writes an answer. What it consists of can always be encoded, but for a
// figure that is not a number, which is a defect.
func encode(a answer) []byte {
	a.Version = version
	b, err := json.Marshal(a)
	if err != nil {
		b, _ = json.Marshal(answer{Version: version, refusal: refusal{Code: codeDefect, Error: err.Error(), Do: "report it"}})
	}
	return append(b, '\n')
}

// Status is [memguard.Status] as it is sent. Sizes are bytes.
type Status struct {
	Time time.Time `json:"time"` // of the last tick
	PID  int       `json:"pid"`
	Exe  string    `json:"exe,omitempty"`
	Go   string    `json:"go_version,omitempty"`

	Ticks  uint64  `json:"ticks"`
	Age    float64 `json:"last_tick_age_seconds"`
	Events uint64  `json:"events"` // seq of the last one

	Left        memguard.Value[float64] `json:"time_to_limit_seconds"` // at the present growth
	Undroppable memguard.Bytes          `json:"cgroup_undroppable"`    // of its usage, what counts towards a kill
	Findings    []memguard.Finding      `json:"findings"`
	Ledger      *memguard.Ledger        `json:"ledger"`
	Blind       []memguard.Blind        `json:"blind"` // what could not be seen, and why

	Hand *Hand `json:"hand"` // null: the guard watches another process
}

// Hand is what a guard of its own process does.
type Hand struct {
	DryRun   bool           `json:"dry_run"`
	Breaker  string         `json:"breaker,omitempty"` // closed, half-open, open; absent without one
	Baseline Setting        `json:"baseline"`          // what the settings go back to
	Wanted   Setting        `json:"wanted"`            // what is set; in a dry run what would be
	Why      string         `json:"why,omitempty"`     // this GC percent
	WhyLimit string         `json:"why_limit,omitempty"`
	Spiral   bool           `json:"spiral"` // collecting harder helps no longer
	Must     memguard.Bytes `json:"must"`   // Go memory that no collection frees
	Changes  uint64         `json:"setting_changes"`
	Clamps   uint64         `json:"breaker_clamps"`
	Grade    string         `json:"release_grade"`
	Releases Releases       `json:"releases"`
	Shed     *Shed          `json:"shed"` // null without a limiter

	MemoryBreaker string     `json:"memory_breaker,omitempty"` // closed, half-open, open; absent without one
	Orders        []Standing `json:"orders"`                   // that stand
}

// Standing is an order that stands: see [memguard.Standing].
type Standing struct {
	Seq    uint64          `json:"seq"` // to take it back by
	Action memguard.Action `json:"action"`
}

// Setting is what the guard may change in the runtime, in the units of an order.
type Setting struct {
	GCPercent   int   `json:"gc_percent"`   // -1 is off
	MemoryLimit int64 `json:"memory_limit"` // math.MaxInt64 is none
}

// Releases is what giving memory back has cost and gained.
type Releases struct {
	Ended  uint64  `json:"ended"`
	Paid   uint64  `json:"paid"` // of them
	Took   float64 `json:"took_seconds"`
	Gained int64   `json:"gained_bytes"`
}

// Shed is the state of the service's limiter: see [shed.Snapshot].
type Shed struct {
	Limited     bool    `json:"limited"`
	Blind       bool    `json:"blind"`
	Braking     bool    `json:"braking"`
	Brakes      uint64  `json:"brakes"`
	Room        uint64  `json:"room"`
	Budget      uint64  `json:"budget"`
	Window      uint64  `json:"window"`
	Held        uint64  `json:"held"`
	Refusing    int     `json:"refuse_percent"` // of the work, by order
	Waiting     int     `json:"waiting"`
	Connections int     `json:"connections"`
	Routes      []Route `json:"routes"`
}

// Route is one kind of work: see [shed.RouteSnapshot].
type Route struct {
	Route    string `json:"route"`
	Cost     uint64 `json:"cost"`
	Learned  bool   `json:"learned"`
	InFlight int    `json:"in_flight"`
	Admitted uint64 `json:"admitted"`
	Refused  uint64 `json:"refused"`
}

// NewStatus puts a guard's status into the words of the answers. Age is that of
// its last tick.
func NewStatus(s *memguard.Status, age time.Duration) *Status {
	st := &Status{
		Time: s.Sample.Time, PID: s.Sample.PID, Exe: s.Sample.Process.Exe, Go: s.Sample.Process.Build,
		Ticks: s.Ticks, Age: age.Seconds(), Events: s.Events,
		Left: s.Left, Undroppable: s.Undroppable, Findings: s.Findings, Ledger: s.Ledger,
		Blind: append(append([]memguard.Blind{}, s.Sample.Blind...), s.Blind...),
	}
	if !s.Acts {
		return st
	}
	st.Hand = &Hand{
		DryRun: s.DryRun, Why: s.Decision.Reason, WhyLimit: s.Decision.LimitReason, Spiral: s.Decision.Spiral, Must: s.Must,
		Baseline: Setting{s.Baseline.GCPercent, s.Baseline.MemoryLimit},
		Wanted:   Setting{s.Wanted.GCPercent, s.Wanted.MemoryLimit},
		Changes:  s.Changes, Clamps: s.Clamps, Grade: s.Grade.String(),
		Releases: Releases{s.Releases.Ended, s.Releases.Paid, s.Releases.Took.Seconds(), s.Releases.Gained},
		Shed:     newShed(s.Shed),

		MemoryBreaker: string(s.MemoryBreaker), Orders: []Standing{},
	}
	for _, o := range s.Orders {
		st.Hand.Orders = append(st.Hand.Orders, Standing(o))
	}
	if s.Coupled {
		st.Hand.Breaker = s.Breaker.String()
	}
	return st
}

func newShed(s *shed.Snapshot) *Shed {
	if s == nil {
		return nil
	}
	out := &Shed{
		Limited: s.Limited, Blind: s.Blind, Braking: s.Braking, Brakes: s.Braked, Refusing: s.Refusing,
		Room: s.Room, Budget: s.Budget, Window: s.Window, Held: s.Held,
		Waiting: s.Waiting, Connections: s.Connections, Routes: []Route{},
	}
	for _, r := range s.Routes {
		out.Routes = append(out.Routes, Route{r.Route, r.Cost, r.Learned, r.InFlight, r.Admitted, r.Refused})
	}
	return out
}

// Sample is [memguard.Sample] as it is sent: the figures of one tick, null where
// unknown. Sizes are bytes.
type Sample struct {
	Time    time.Time        `json:"time"`
	PID     int              `json:"pid"`
	Runtime SampleRuntime    `json:"runtime"`
	Process SampleProcess    `json:"process"`
	Cgroup  *SampleCgroup    `json:"cgroup"` // null without one
	Blind   []memguard.Blind `json:"blind"`
}

// SampleRuntime is [memguard.Runtime] as it is sent.
type SampleRuntime struct {
	Origin      string                  `json:"origin"`
	Total       memguard.Bytes          `json:"total"`
	Released    memguard.Bytes          `json:"released"`
	Objects     memguard.Bytes          `json:"objects"`
	Unused      memguard.Bytes          `json:"unused"`
	Free        memguard.Bytes          `json:"free"`
	Stacks      memguard.Bytes          `json:"stacks"`
	OSStacks    memguard.Bytes          `json:"os_stacks"`
	Metadata    memguard.Bytes          `json:"metadata"`
	Live        memguard.Bytes          `json:"live"`
	Allocated   memguard.Bytes          `json:"allocated_total"`
	Goal        memguard.Bytes          `json:"goal"` // null with GOGC=off and no limit
	GCPercent   memguard.Value[int64]   `json:"gc_percent"`
	MemoryLimit memguard.Bytes          `json:"memory_limit"` // null also where there is none: see unlimited
	Unlimited   bool                    `json:"unlimited"`
	Cycles      memguard.Count          `json:"gc_cycles_total"`
	Goroutines  memguard.Count          `json:"goroutines"`
	GCCPU       memguard.Value[float64] `json:"gc_cpu_seconds_total"`
	CPU         memguard.Value[float64] `json:"cpu_seconds_total"`
}

// SampleProcess is [memguard.Process] as it is sent.
type SampleProcess struct {
	RSS    memguard.Bytes `json:"rss"`
	Shared memguard.Bytes `json:"shared"`
	Cgo    bool           `json:"cgo"`
	Exe    string         `json:"exe,omitempty"`
	Go     string         `json:"go_version,omitempty"`
}

// SampleCgroup is [memguard.Cgroup] as it is sent.
type SampleCgroup struct {
	Path       string                  `json:"path"`
	Version    int                     `json:"version"`
	LimitFrom  string                  `json:"limit_from,omitempty"`
	Usage      memguard.Bytes          `json:"usage"`
	Limit      memguard.Bytes          `json:"limit"` // null also where there is none: see unlimited
	Unlimited  bool                    `json:"unlimited"`
	High       memguard.Bytes          `json:"high"` // null also where there is none
	WorkingSet memguard.Bytes          `json:"working_set"`
	Swap       memguard.Bytes          `json:"swap"`
	Anon       memguard.Bytes          `json:"anon"`
	File       memguard.Bytes          `json:"file"`
	Shmem      memguard.Bytes          `json:"shmem"`
	Kernel     memguard.Bytes          `json:"kernel"`
	OOMKills   memguard.Count          `json:"oom_kills_total"`
	Pressure   memguard.Value[float64] `json:"pressure_some_avg10_percent"`
}

// limited is a limit as it is sent: unknown where there is none.
func limited(b memguard.Bytes) (limit memguard.Bytes, unlimited bool) {
	if n, ok := b.Get(); ok && n >= math.MaxInt64 {
		return memguard.Bytes{}, true
	}
	return b, false
}

func newSample(s *memguard.Sample) *Sample {
	r, c := &s.Runtime, &s.Cgroup
	out := &Sample{
		Time: s.Time, PID: s.PID, Blind: append([]memguard.Blind{}, s.Blind...),
		Runtime: SampleRuntime{
			Origin: string(r.Origin), Total: r.Total, Released: r.Released, Objects: r.Objects, Unused: r.Unused,
			Free: r.Free, Stacks: r.Stacks, OSStacks: r.OSStacks, Metadata: r.Metadata, Live: r.Live,
			Allocated: r.Allocated, GCPercent: r.GCPercent, Cycles: r.Cycles, Goroutines: r.Goroutines,
			GCCPU: r.GCCPU, CPU: r.CPU,
		},
		Process: SampleProcess{RSS: s.Process.RSS, Shared: s.Process.Shared, Cgo: s.Process.Cgo, Exe: s.Process.Exe, Go: s.Process.Build},
	}
	// Without a limit and with GOGC=off the goal is beyond all memory.
	out.Runtime.Goal, _ = limited(r.Goal)
	if n, ok := r.Goal.Get(); ok && n > math.MaxInt64/2 {
		out.Runtime.Goal = memguard.Bytes{}
	}
	out.Runtime.MemoryLimit, out.Runtime.Unlimited = limited(r.MemoryLimit)
	if c.Version == 0 {
		return out
	}
	out.Cgroup = &SampleCgroup{
		Path: c.Path, Version: c.Version, LimitFrom: c.LimitFrom, Usage: c.Usage, WorkingSet: c.WorkingSet, Swap: c.Swap,
		Anon: c.Anon, File: c.File, Shmem: c.Shmem, Kernel: c.Kernel, OOMKills: c.OOMKills, Pressure: c.Pressure,
	}
	out.Cgroup.Limit, out.Cgroup.Unlimited = limited(c.Limit)
	out.Cgroup.High, _ = limited(c.High)
	return out
}
