// SPDX-License-Identifier: Apache-2.0

// Package prommetrics shows what a guard knows and does to Prometheus.
//
//	prometheus.MustRegister(prommetrics.NewCollector(g))
//
// Only what is derived is here: the raw figures of the runtime and of the process
// are client_golang's own (collectors.NewGoCollector, NewProcessCollector). All
// series of a scrape are of one instant, the guard's last tick. What is unknown
// has no series; a limit that is known not to be there is +Inf.
//
// A scrape does not look anew and does not wait for a guard that hangs: then, and
// after the guard has ended, memguard_guard_last_tick_timestamp_seconds is all
// that is left, and tells since when. Alert on its age, and with
//
//	memguard_findings{severity="critical"} == 1
//
// The names are API.
package prommetrics

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/shed"
	"github.com/memguard/memguard-go/pacer"
	"github.com/memguard/memguard-go/scavenge"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	scrapeWait = 100 * time.Millisecond // for the tick under way
	hangsAfter = 10 * time.Second       // without a tick: at rest there is one a second
)

// collector shows one guard.
type collector struct {
	status func() (memguard.Status, bool) // false: there is nothing to tell
	tick   func() time.Time               // the last one
	zero   map[memguard.ID][]prometheus.Metric
	one    map[memguard.ID][]prometheus.Metric
}

// NewCollector returns a collector of what a guard knows and does. To register
// several, tell them apart with [prometheus.WrapRegistererWith].
func NewCollector(g *memguard.Guard) prometheus.Collector {
	return newCollector(
		func() (memguard.Status, bool) {
			select {
			case <-g.Done():
				return memguard.Status{}, false
			default:
			}
			if g.Alive() > hangsAfter { // what it saw then is not what is now
				return memguard.Status{}, false
			}
			return g.StatusWithin(scrapeWait)
		},
		func() time.Time { return time.Now().Add(-g.Alive()) },
	)
}

func newCollector(status func() (memguard.Status, bool), tick func() time.Time) *collector {
	c := &collector{
		status: status, tick: tick,
		zero: map[memguard.ID][]prometheus.Metric{}, one: map[memguard.ID][]prometheus.Metric{},
	}
	for _, d := range memguard.Docs() {
		for _, s := range severities {
			c.zero[d.ID] = append(c.zero[d.ID], gauge(findings, 0, string(d.ID), s.String()))
			c.one[d.ID] = append(c.one[d.ID], gauge(findings, 1, string(d.ID), s.String()))
		}
	}
	return c
}

var severities = []memguard.Severity{memguard.Info, memguard.Warning, memguard.Critical}

// Describe tells all that there can be.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs {
		ch <- d
	}
}

// Collect tells what is known.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	ch <- gauge(lastTick, float64(c.tick().UnixNano())/1e9)
	s, ok := c.status()
	if !ok {
		return
	}
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	counter(ticks, s.Ticks)
	for _, kind := range kinds {
		counter(events, s.Kinds[kind], string(kind))
	}
	for kind, n := range s.Kinds {
		if !slices.Contains(kinds, kind) { // one that came later than the list
			counter(events, n, string(kind))
		}
	}
	if s.Ticks == 0 {
		return // it has not looked yet
	}
	c.memory(ch, &s)
	c.findings(ch, &s)
	if s.Acts {
		hand(ch, &s)
	}
	if s.Shed != nil {
		limiter(ch, s.Shed)
	}
}

func gauge(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

// known sends a gauge, if its value is known.
func known[T int64 | uint64 | float64](ch chan<- prometheus.Metric, d *prometheus.Desc, v memguard.Value[T], labels ...string) {
	if n, ok := v.Get(); ok {
		ch <- gauge(d, float64(n), labels...)
	}
}

// state sends a gauge for each state that there is: 1 for the one that is.
func state[S comparable](ch chan<- prometheus.Metric, d *prometheus.Desc, is S, name func(S) string, all ...S) {
	for _, s := range all {
		v := 0.0
		if s == is {
			v = 1
		}
		ch <- gauge(d, v, name(s))
	}
}

func (c *collector) memory(ch chan<- prometheus.Metric, s *memguard.Status) {
	for _, r := range s.Ledger.Rows {
		known(ch, ledger, r.Bytes, r.Name)
	}
	known(ch, ledger, s.Ledger.Residual, memguard.RowResidual)
	if l := s.Ledger.Cgroup; l != nil {
		for _, r := range l.Rows {
			known(ch, cgroupLedger, r.Bytes, r.Name)
		}
		known(ch, cgroupLedger, l.Residual, memguard.RowResidual)
		known(ch, cgroupUsage, l.Usage)
		known(ch, cgroupUndroppable, s.Undroppable)
		limit, isLimited := l.Limit.Get()
		used, isUsed := s.Undroppable.Get()
		switch {
		case isLimited:
			ch <- gauge(cgroupLimit, float64(limit))
			if isUsed {
				ch <- gauge(cgroupHeadroom, float64(limit)-float64(used))
			}
		case l.Unlimited:
			ch <- gauge(cgroupLimit, math.Inf(1))
		}
	}
	known(ch, timeToLimit, s.Left)
	known(ch, must, s.Must)
	ch <- gauge(blind, float64(len(s.Sample.Blind)+len(s.Blind)))
}

func (c *collector) findings(ch chan<- prometheus.Metric, s *memguard.Status) {
	stands := map[memguard.ID]memguard.Severity{}
	for _, f := range s.Findings {
		stands[f.ID] = f.Severity
	}
	for id, zeros := range c.zero {
		for i, m := range zeros {
			if stands[id] == severities[i] {
				m = c.one[id][i]
			}
			ch <- m
		}
	}
}

// percent is a GC percent as a gauge: off collects at no percentage at all.
func percent(p int) float64 {
	if p < 0 {
		return math.Inf(1)
	}
	return float64(p)
}

func limit(bytes int64) float64 {
	if bytes == math.MaxInt64 {
		return math.Inf(1)
	}
	return float64(bytes)
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// settings are those that an order may hold.
var settings = []memguard.ActionName{memguard.SetGCPercent, memguard.SetMemoryLimit, memguard.SetBreaker, memguard.ShedLoad}

// hand tells what a guard of its own process does.
func hand(ch chan<- prometheus.Metric, s *memguard.Status) {
	ch <- gauge(dryRun, boolean(s.DryRun))
	ch <- gauge(gcPercent, percent(s.Baseline.GCPercent), "baseline")
	ch <- gauge(gcPercent, percent(s.Wanted.GCPercent), "wanted")
	ch <- gauge(memoryLimit, limit(s.Baseline.MemoryLimit), "baseline")
	ch <- gauge(memoryLimit, limit(s.Wanted.MemoryLimit), "wanted")
	count := func(d *prometheus.Desc, n float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, n)
	}
	count(changes, float64(s.Changes))
	ch <- gauge(spiral, boolean(s.Decision.Spiral))
	if s.Coupled {
		state(ch, breaker, s.Breaker, pacer.State.String, pacer.Closed, pacer.HalfOpen, pacer.Open)
		count(clamps, float64(s.Clamps))
	}
	if s.MemoryBreaker != "" {
		state(ch, memoryBreaker, s.MemoryBreaker, func(b shed.State) string { return string(b) }, shed.Closed, shed.HalfOpen, shed.Open)
	}
	for _, name := range settings {
		stands := slices.ContainsFunc(s.Orders, func(o memguard.Standing) bool { return o.Action.Name == name })
		ch <- gauge(standing, boolean(stands), string(name))
	}
	state(ch, grade, s.Grade, scavenge.Grade.String, scavenge.Observe, scavenge.Log, scavenge.LowerPercent, scavenge.FreeOSMemory, scavenge.Shed)
	count(releases, float64(s.Releases.Ended))
	count(releasesPaid, float64(s.Releases.Paid))
	count(releaseSeconds, s.Releases.Took.Seconds())
	ch <- gauge(releaseGained, float64(s.Releases.Gained))
}

// limiter tells how the service's limiter does.
func limiter(ch chan<- prometheus.Metric, s *shed.Snapshot) {
	ch <- gauge(shedLimited, boolean(s.Limited))
	if s.Limited { // else there is nothing that these would be of
		ch <- gauge(shedRoom, float64(s.Room))
		ch <- gauge(shedBudget, float64(s.Budget))
		ch <- gauge(shedWindow, float64(s.Window))
	}
	ch <- gauge(shedHeld, float64(s.Held))
	ch <- gauge(shedBraking, boolean(s.Braking))
	ch <- gauge(shedRefusePercent, float64(s.Refusing))
	ch <- gauge(shedWaiting, float64(s.Waiting))
	ch <- gauge(shedConnections, float64(s.Connections))
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	counter(shedBrakes, s.Braked)
	counter(shedConnectionsRefused, s.ConnectionsRefused)
	counter(shedConnectionsClosed, s.ConnectionsClosed)
	for _, r := range s.Routes {
		name := route(r.Route)
		ch <- gauge(shedInFlight, float64(r.InFlight), name)
		if r.Learned {
			ch <- gauge(shedCost, float64(r.Cost), name)
		}
		counter(shedAdmitted, r.Admitted, name)
		counter(shedRefused, r.Refused, name)
	}
}

// route makes a label value of a route's name, which is the service's. The
// limiter tells 64 apart at most. A name that is no UTF-8 is quoted, and then has
// a \x in it: one that has that already is quoted too, so that no two become one.
func route(name string) string {
	if utf8.ValidString(name) && !strings.Contains(name, `\x`) {
		return name
	}
	quoted := strconv.QuoteToASCII(name)
	return quoted[1 : len(quoted)-1]
}
