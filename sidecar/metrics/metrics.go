// SPDX-License-Identifier: Apache-2.0

// Package metrics shows what a sidecar sees of its targets, and how it does
// itself, to Prometheus.
//
//	c := metrics.NewCollector(metrics.Config{Targets: w.Targets})
//	go c.Follow(ctx, w.Events)
//	h, err := metrics.Handler(logger, c)
//
// What is a target's is memguard_target_*, with the target's name as a label;
// go_* and process_* are the sidecar's own. The series of one target are of one
// instant, the last look at it. What is unknown has no series, and is not zero; a
// limit that is known not to be there is +Inf.
//
// A target can put no text of its own into a label: its name is the rule's, and
// every other label has a closed set of values, which are those of the tables in
// this package and of [memguard.Docs]. What is not in the set counts as "other"
// where it is a size or a count, and is left out where it is a state. Goroutine
// clusters and routes are not here, for they have no bound: ask the API for them.
//
// The names are API. Package sidecar/deploy has rules, alerts and a dashboard that
// use them.
package metrics

import (
	"cmp"
	"context"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"sort"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/agent"
	"github.com/memguard/memguard-go/sidecar/incident"
	"github.com/memguard/memguard-go/sidecar/watch"
	"github.com/prometheus/client_golang/prometheus"
)

// Config says what is shown.
type Config struct {
	Targets func() []watch.Status // of the watcher; called at each scrape

	// MaxTargets is how many targets are shown, the first by name; 0 is 100. Each
	// has some 170 series. memguard_targets_dropped says how many are not.
	MaxTargets int

	// Reload tells whether the configuration was good when it was last read, and
	// when the one in force was read. Nil: there is nothing to reload.
	Reload func() (ok bool, read time.Time)

	// Posts tells what became of incidents that webhooks are told of. Nil: there are
	// no webhooks.
	Posts func() []incident.PostStats
}

// Collector is a [prometheus.Collector]. Its methods may be called from several
// goroutines.
type Collector struct {
	cfg   Config
	tally tally
}

// NewCollector returns a collector of what cfg says.
func NewCollector(cfg Config) *Collector {
	cfg.MaxTargets = cmp.Or(cfg.MaxTargets, 100)
	return &Collector{cfg: cfg, tally: tally{most: cfg.MaxTargets}}
}

// Incident counts an incident that was written for a target.
func (c *Collector) Incident(target string, cause incident.Cause) {
	if nameable(target) {
		c.tally.incident(target, cause)
	}
}

// Follow counts the actions in the watcher's events, until ctx ends. It is to be
// called once.
func (c *Collector) Follow(ctx context.Context, events func(ctx context.Context, after uint64) []watch.Event) {
	for after := uint64(0); ; {
		es := events(ctx, after)
		if len(es) == 0 {
			return
		}
		for _, e := range es {
			if e.Seq <= after {
				continue
			}
			c.tally.event(&e, e.Seq-after-1)
			after = e.Seq
		}
	}
}

// Describe tells all that there can be.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs {
		ch <- d
	}
}

// Collect tells what is known.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	out := sink{ch: ch}
	c.self(out)
	targets := slices.Clone(c.cfg.Targets())
	sort.Slice(targets, func(i, j int) bool { return targets[i].Name < targets[j].Name })
	n, before := 0, ""
	for i := range targets {
		s := &targets[i]
		// Two series of one name would fail the whole scrape.
		if n == c.cfg.MaxTargets || !nameable(s.Name) || s.Name == before {
			continue
		}
		n, before = n+1, s.Name
		out.target = s.Name
		c.target(out, s)
	}
	sink{ch: ch}.gauge(targetsDropped, float64(len(targets)-n))
	c.tally.collect(ch)
}

// nameable reports whether a target's name can be a label. Rules have no others.
func nameable(name string) bool {
	return name != "" && len(name) <= 300 && utf8.ValidString(name)
}

// self tells how the sidecar does.
func (c *Collector) self(out sink) {
	version, revision := build()
	out.gauge(buildInfo, 1, version, revision, runtime.Version())
	if c.cfg.Reload != nil {
		ok, read := c.cfg.Reload()
		out.gauge(reloadOK, boolean(ok))
		out.time(reloaded, read)
	}
	if c.cfg.Posts != nil {
		posts(out, c.cfg.Posts())
	}
}

// posts tells how webhooks do. Those of one host are one.
func posts(out sink, all []incident.PostStats) {
	hosts := map[string]incident.PostStats{}
	for _, p := range all {
		name := strings.ToValidUTF8(p.Host, "?")
		sum := hosts[name]
		sum.Posted += p.Posted
		sum.Failed += p.Failed
		sum.Dropped += p.Dropped
		sum.Pending += p.Pending
		hosts[name] = sum
	}
	for name, p := range hosts {
		out.counter(webhookPosted, p.Posted, name)
		out.counter(webhookFailed, p.Failed, name)
		out.counter(webhookDropped, p.Dropped, name)
		out.gauge(webhookPending, float64(p.Pending), name)
	}
}

// build is what this binary was built from, "unknown" where it does not say.
func build() (version, revision string) {
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown", "unknown"
	}
	for _, kv := range bi.Settings {
		if kv.Key == "vcs.revision" {
			revision = kv.Value
		}
	}
	return cmp.Or(bi.Main.Version, "unknown"), cmp.Or(revision, "unknown")
}

// sink takes the metrics of the sidecar, or of one target.
type sink struct {
	ch     chan<- prometheus.Metric
	target string // the first label's value; empty is the sidecar
}

func (s sink) send(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
	if s.target != "" {
		labels = slices.Insert(labels, 0, s.target)
	}
	s.ch <- prometheus.MustNewConstMetric(d, t, v, labels...) // panics if the labels are not valid UTF-8, which they are
}

func (s sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s.send(d, prometheus.GaugeValue, v, labels...)
}

func (s sink) counter(d *prometheus.Desc, n uint64, labels ...string) {
	s.send(d, prometheus.CounterValue, float64(n), labels...)
}

// time sends an instant, if it is known.
func (s sink) time(d *prometheus.Desc, t time.Time) {
	if !t.IsZero() {
		s.gauge(d, float64(t.UnixMilli())/1e3)
	}
}

// state sends a gauge for each state that there is, 1 for the one that is. One
// that is not in the set is not known, and has none.
func (s sink) state(d *prometheus.Desc, is string, all []string, labels ...string) {
	if !slices.Contains(all, is) {
		return
	}
	for _, name := range all {
		s.gauge(d, boolean(name == is), append(slices.Clip(labels), name)...)
	}
}

// known sends a gauge, if its value is known.
func known[T int64 | uint64 | float64](s sink, d *prometheus.Desc, v memguard.Value[T], labels ...string) {
	if n, ok := v.Get(); ok {
		s.gauge(d, float64(n), labels...)
	}
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// The closed sets of labels' values.
var (
	eyes          = []string{"agent", "attach", "kernel"}
	sources       = []string{"kernel", "agent", "attach", "exit-hold", "oom-hold", "pprof", "gctrace"}
	sourceStates  = []string{"ok", "off", "failed"}
	breakerStates = []string{"closed", "half-open", "open"}
	severities    = []memguard.Severity{memguard.Info, memguard.Warning, memguard.Critical}
	rows          = []string{
		memguard.RowHeap, memguard.RowLive, memguard.RowDead, memguard.RowUnused, memguard.RowFree, memguard.RowStacks,
		memguard.RowThreads, memguard.RowMetadata, memguard.RowUntouched, memguard.RowRefill, memguard.RowBinary, memguard.RowFile,
		memguard.RowLibc, memguard.RowAnon, memguard.RowShmem, memguard.RowSpecial, memguard.RowLazyFree, memguard.RowResidual,
	}
	cgroupRows = []string{
		memguard.RowShmem, memguard.RowCacheActive, memguard.RowCacheInactive, memguard.RowCacheLocked,
		memguard.RowKernel, memguard.RowDeferredSplit, memguard.RowProcesses, memguard.RowResidual,
	}
)

const other = "other" // what is in none of them

// target tells of one target.
func (c *Collector) target(out sink, s *watch.Status) {
	c.tally.see(s.Name)
	out.gauge(up, boolean(s.State == "running"))
	out.counter(restarts, s.Restarts)
	for _, name := range sources {
		i := slices.IndexFunc(s.Sources, func(src watch.Source) bool { return src.Name == name })
		if i >= 0 {
			out.state(sourceState, s.Sources[i].State, sourceStates, name)
		}
	}
	if s.Process != nil {
		out.time(startTime, s.Process.Started)
	}
	g := s.Guard
	if g == nil || g.Ticks == 0 {
		return // nobody has looked yet
	}
	out.state(eye, s.Eye, eyes)
	out.time(lastLook, g.Time)
	out.gauge(blind, float64(len(g.Blind)))
	memory(out, g)
	standing(out, g.Findings)
	if g.Hand != nil {
		c.tally.acts(s.Name)
		hand(out, g.Hand)
	}
}

func memory(out sink, g *agent.Status) {
	known(out, timeToLimit, g.Left)
	if g.Ledger == nil {
		return
	}
	known(out, rss, g.Ledger.RSS)
	add(out, ledger, rows, g.Ledger.Rows, g.Ledger.Residual)
	l := g.Ledger.Cgroup
	if l == nil {
		return
	}
	add(out, cgroupLedger, cgroupRows, l.Rows, l.Residual)
	known(out, cgroupUsage, l.Usage)
	known(out, cgroupUndroppable, g.Undroppable)
	limit, isLimited := l.Limit.Get()
	held, isHeld := g.Undroppable.Get()
	switch {
	case isLimited:
		out.gauge(cgroupLimit, float64(limit))
		if isHeld {
			out.gauge(cgroupHeadroom, float64(limit)-float64(held))
		}
	case l.Unlimited:
		out.gauge(cgroupLimit, math.Inf(1))
	}
}

// add sends a ledger's rows. Rows of one name are one, whoever made them two, and
// those that we do not know are "other": the sum stays what it is.
func add(out sink, d *prometheus.Desc, names []string, rows []memguard.Row, residual memguard.Value[int64]) {
	sums := map[string]float64{}
	for _, r := range rows {
		n, ok := r.Bytes.Get()
		if !ok {
			continue
		}
		name := r.Name
		switch {
		case strings.HasPrefix(name, "process/"): // and a pid
			name = memguard.RowProcesses
		case !slices.Contains(names, name):
			name = other
		}
		sums[name] += float64(n)
	}
	if n, ok := residual.Get(); ok {
		sums[memguard.RowResidual] += float64(n)
	}
	for name, n := range sums {
		out.gauge(d, n, name)
	}
}

func standing(out sink, fs []memguard.Finding) {
	for _, d := range memguard.Docs() {
		var stands memguard.Severity
		for i := range fs {
			if fs[i].ID == d.ID {
				stands = max(stands, fs[i].Severity)
			}
		}
		for _, s := range severities {
			out.gauge(findings, boolean(s == stands), string(d.ID), s.String())
		}
	}
}

// hand tells what the target's own guard does.
func hand(out sink, h *agent.Hand) {
	out.gauge(dryRun, boolean(h.DryRun))
	for _, s := range []struct {
		name string
		agent.Setting
	}{{"baseline", h.Baseline}, {"wanted", h.Wanted}} {
		percent, limit := float64(s.GCPercent), float64(s.MemoryLimit)
		if s.GCPercent < 0 { // off collects at no percentage at all
			percent = math.Inf(1)
		}
		if s.MemoryLimit == math.MaxInt64 {
			limit = math.Inf(1)
		}
		out.gauge(gcPercent, percent, s.name)
		out.gauge(memoryLimit, limit, s.name)
	}
	known(out, unfreeable, h.Must)
	out.gauge(spiral, boolean(h.Spiral))
	out.counter(changes, h.Changes)
	out.counter(releases, h.Releases.Ended)
	if h.Breaker != "" {
		out.state(breaker, h.Breaker, breakerStates)
		out.counter(clamps, h.Clamps)
	}
	out.state(memoryBreaker, h.MemoryBreaker, breakerStates)
	out.gauge(orders, float64(len(h.Orders)))
	if h.Shed == nil {
		return
	}
	var admitted, refused uint64
	for _, r := range h.Shed.Routes { // their names are the service's, and are not shown
		admitted += r.Admitted
		refused += r.Refused
	}
	out.gauge(shedBraking, boolean(h.Shed.Braking))
	out.gauge(shedOrdered, float64(h.Shed.Refusing)/100)
	out.gauge(shedHeld, float64(h.Shed.Held))
	out.counter(shedAdmitted, admitted)
	out.counter(shedRefused, refused)
}
