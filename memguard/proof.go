// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/memguard/memguard-go/memguard/evidence"
)

const (
	// boxBytes has room for some 1800 moments and 250 events. It is locked in memory.
	boxBytes = 512 << 10
	// momentEvery and momentRest bound what that is worth: a minute and a half of
	// movement near the limit, half an hour at rest.
	momentEvery = 50 * time.Millisecond
	momentRest  = time.Second
	momentMoved = 0.01 // of the limit: the usage has moved
	boxChecked  = time.Minute
	traceEvery  = time.Minute
)

// explainedByTrace are the findings whose cause an execution trace shows.
var explainedByTrace = map[ID]bool{"gc-pause": true, "gc-death-spiral": true}

// proof keeps what tells of the end afterwards: the black box, the profiles on
// the way to the limit, and the trace of what a trace explains. Of another
// process it keeps nothing.
type proof struct {
	g        *Guard
	recorder *evidence.Recorder
	tracedAt time.Time
	profiles *evidence.Profiles
	planner  evidence.Planner
	cycles   evidence.Cycles
	ask      ID // the finding that asks for profiles

	box     *evidence.Box
	at      time.Time // of the last moment
	used    uint64    // then, of the cgroup
	checked time.Time
	buf     [evidence.PayloadSize]byte
}

// newProof keeps nothing yet: the black box comes with record.
func newProof(cfg *Config, g *Guard) proof {
	p := proof{g: g, recorder: cfg.Recorder}
	if cfg.Evidence == nil || g.source.runtime == nil {
		return p
	}
	p.profiles = &evidence.Profiles{Store: cfg.Evidence}
	return p
}

// close waits for a second, if the disk hangs.
func (p *proof) close() {
	box := p.box
	_, _ = atMost(time.Second, func() (_ struct{}, err error) {
		if box != nil {
			err = box.Close()
		}
		if p.recorder != nil {
			p.recorder.Close() // waits for a save under way
		}
		return struct{}{}, err
	})
}

func (p *proof) lost(what string, err error) {
	p.g.note(Event{Kind: Lost, Blind: Blind{what, err.Error()}})
}

// moment writes a sample into the black box.
func (p *proof) moment(s *Sample) {
	if p.box == nil {
		return
	}
	limit, _ := bounded(s.Cgroup.Limit)
	used := s.Cgroup.Usage.v
	every := momentRest
	if float64(max(used, p.used)-min(used, p.used)) >= momentMoved*float64(limit) {
		every = momentEvery
	}
	if since := s.Time.Sub(p.at); since < every && since >= 0 {
		return
	}
	p.at, p.used = s.Time, used
	m := momentOf(s)
	p.wrote(p.box.Record(s.Time, boxMoment, m.appendTo(p.buf[:0])))
	if p.box != nil && s.Time.Sub(p.checked) >= boxChecked {
		p.checked = s.Time
		p.wrote(p.box.Check())
	}
}

// event writes an event into the black box.
func (p *proof) event(e *Event) {
	if p.box != nil {
		p.wrote(p.box.Note(e.Time, boxEvent, appendEvent(p.buf[:0], e, len(p.buf))))
	}
}

// wrote gives the box up when nothing can be written into it any more.
func (p *proof) wrote(err error) {
	if err == nil {
		return
	}
	box := p.box
	p.box = nil
	p.lost("black box", err)
	_ = box.Close()
}

// raised answers a new finding with the evidence that explains it.
func (p *proof) raised(f Finding) {
	if f.Severity < Warning {
		return
	}
	p.ask = f.ID
	if now := p.g.sample.Time; p.explained(f, now) && p.g.aside("execution trace", true, func() func() {
		path, err := p.recorder.Save(string(f.ID))
		return func() { p.saved(f, path, err, "execution trace") }
	}) {
		p.tracedAt = now
	}
}

// explained reports whether f is to be answered with a trace.
func (p *proof) explained(f Finding, now time.Time) bool {
	return p.recorder != nil && f.Severity >= Warning && explainedByTrace[f.ID] &&
		(p.tracedAt.IsZero() || now.Sub(p.tracedAt) >= traceEvery)
}

// saved tells what became of evidence.
func (p *proof) saved(f Finding, path string, err error, what string) {
	if path != "" {
		p.g.note(Event{Kind: Saved, Finding: f, Path: path})
	}
	if err != nil {
		p.lost(what, err)
	}
}

// step captures profiles on the way to the limit.
func (p *proof) step(s *Sample) {
	if p.profiles == nil {
		return
	}
	p.look(&s.Runtime)
	if p.g.busy[string(Capture)] {
		return // a stage that is reached meanwhile is for the next tick
	}
	limit, _ := bounded(s.Cgroup.Limit)
	used, ok := s.Cgroup.undroppable().Get()
	if !ok {
		limit = 0 // a finding may still ask
	}
	goroutines, _ := s.Runtime.Goroutines.Get()
	in := evidence.Pressure{
		Time: s.Time, Limit: limit, Usage: used, Held: used,
		Ask: string(p.ask), Cost: p.profiles.Cost(goroutines),
	}
	if idle, ok := s.Runtime.idle().Get(); ok {
		in.Held -= min(used, idle)
	}
	in.Left, _ = p.g.judge.TimeLeft()
	plan := p.planner.Step(&in)
	if plan.Why == "" {
		p.ask = ""
		return
	}
	p.g.note(Event{Time: s.Time, Kind: Planned, Action: Action{Name: Capture, Reason: plan.Why}})
	p.capture(plan, s)
}

// look keeps what a capture's report tells of the last collections.
func (p *proof) look(r *Runtime) {
	_, ok := plus(r.Cycles, r.Objects, r.Live).Get()
	if ok && r.Goal.ok && r.GCCPU.ok && r.CPU.ok {
		p.cycles.Step(&evidence.Collector{
			Cycles: r.Cycles.v, Objects: r.Objects.v, Live: r.Live.v, Goal: r.Goal.v, GCCPU: r.GCCPU.v, CPU: r.CPU.v,
		})
	}
}

// capture takes profiles, with the ledger, the findings and the last collections
// beside them.
func (p *proof) capture(plan evidence.Plan, s *Sample) bool {
	now := *s
	now.Blind = slices.Clone(s.Blind)
	report := newReport(&now, p.g.judge, 0)
	cycles := p.cycles.Append([]byte("\n"))
	var about Finding
	for _, f := range report.Findings {
		if f.ID == p.ask {
			about = f
		}
	}
	if !p.g.aside("capture", true, func() func() {
		var text bytes.Buffer
		_ = Text{}.Report(&text, report)
		text.Write(cycles)
		c, err := p.profiles.Capture(plan, evidence.Attachment{Name: "report.txt", Content: text.Bytes()})
		return func() {
			for _, path := range c.Paths {
				p.saved(about, path, nil, "")
			}
			if err != nil {
				p.lost("profiles", err)
			}
			if plan.LeftOut != "" {
				p.lost("profiles", fmt.Errorf("left out: %s", plan.LeftOut))
			}
		}
	}) {
		return false
	}
	p.ask = ""
	return true
}
