// SPDX-License-Identifier: Apache-2.0

// Package watch follows processes through their lives and joins what can be seen
// of each: the kernel's files, the service's own guard, the Go runtime's memory
// read from outside, and what it prints about its collector.
//
// A target is a slot of a rule: the first process that matches rule "api" is
// target "api", a second one that runs at the same time is "api-2". When a process
// ends, the next one that matches takes the lowest free slot, and that is a
// restart. What is between is a life: one process, by pid, start time and program.
//
// One goroutine looks at all targets in turn, so that fifty of them cost little
// more than fifty short looks: the kernel's counters and the runtime's, whatever
// the size of the heap. What takes time in proportion to a heap (its spans, its
// goroutines) is walked seldom. Looks come closer as a limit does. A look that does
// not return, which a target can bring about (userfaultfd(2)), keeps the goroutine
// that took it, and another goes on with the rest.
package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/agent"
	"github.com/memguard/memguard-go/sidecar/attach"
	"github.com/memguard/memguard-go/sidecar/incident"
	"github.com/memguard/memguard-go/sidecar/internal/brink"
	"github.com/memguard/memguard-go/sidecar/target"
)

// ErrNone says that there is no target of that name, or no process of it lives, or what is
// asked for cannot be had of it; the error's text says which.
var ErrNone = errors.New("not there")

// Config says what is watched.
type Config struct {
	Rules    []target.Rule
	Interval time.Duration // of looks at rest; 0 is 1 s

	// Hold is how long the end of a Go process may be held up so that its memory is
	// read when nothing of it can be lost any more; 0 is attach.DefaultHold, and
	// below 0 no end is held.
	Hold time.Duration

	// OOMHold is whether the kernel's kill for the limit of a Go process's own cgroup is
	// held up, too. Package brink says where that can be done, and what it does to the
	// service. The bound is Hold, or attach.DefaultHold where no end is held.
	OOMHold bool

	// OOMDir is a directory of ours, where it is noted what is set in cgroups for that.
	// What a watcher that was killed left set is taken back, whether OOMHold or not.
	OOMDir string

	// ExecState is the state directory of "memguard exec", where it keeps what the
	// processes that it started print, and how they ended. Empty is none.
	ExecState string

	// RemotePprof allows pprof URLs of rules that lead to another machine.
	RemotePprof bool

	// Died is called once for each life that ended, one call after the other. What it
	// is given is its own, but for the directories in Evidence.Boxes: they can be read
	// until it returns.
	Died func(*incident.Evidence)

	Logger *slog.Logger // nil logs nothing
}

// How much is watched and kept.
const (
	mostTargets = 256
	mostDeaths  = 64              // that wait for Died
	hangsAfter  = 5 * time.Second // a look takes less than a millisecond
	slotKept    = 10 * time.Minute
)

// Watcher watches targets until its context ends.
type Watcher struct {
	cfg    Config
	born   time.Time
	events *events
	http   *pprofClient

	wake   chan struct{} // the looks have to be planned anew
	rescan chan struct{} // so has the search
	deaths chan *death
	logs   chan Event
	opens  chan struct{} // who opens a process, which takes a while
	walks  chan struct{} // who walks one
	asks   chan struct{} // who asks an agent
	all    sync.WaitGroup
	keeper brink.Keeper
	reaps  bool // brink.ReapsAtOnce

	machine machine

	mu      sync.Mutex // guards what follows; held for moments
	running bool
	ctx     context.Context // of Run
	rules   []target.Rule
	finder  *target.Finder
	changed bool // the rules, since the last search
	streams map[string]*stream
	slots   []*slot       // by rule, in their order
	cost    time.Duration // of a look, the least of late
	scanned time.Time
	blind   []memguard.Blind
	full    bool              // there were more targets than can be watched, and that was said
	buried  map[key]time.Time // processes that have ended, and when that was seen
}

// New checks the rules. Run begins to watch.
func New(cfg Config) (*Watcher, error) {
	if cfg.Interval <= 0 {
		cfg.Interval = time.Second
	}
	if cfg.Hold == 0 {
		cfg.Hold = attach.DefaultHold
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	w := &Watcher{
		cfg: cfg, born: time.Now(), http: newPprofClient(cfg.RemotePprof),
		wake: make(chan struct{}, 1), rescan: make(chan struct{}, 1), deaths: make(chan *death, mostDeaths), logs: make(chan Event, eventsKept),
		opens: make(chan struct{}, 2), walks: make(chan struct{}, 1), asks: make(chan struct{}, 8),
		streams: map[string]*stream{}, buried: map[key]time.Time{},
	}
	w.keeper.Dir, w.reaps = cfg.OOMDir, brink.ReapsAtOnce()
	w.events = newEvents()
	if err := w.SetRules(cfg.Rules); err != nil {
		return nil, err
	}
	return w, nil
}

// Run watches until ctx ends, and returns nil then: what was held is let go, and
// all deaths that were seen are told. It may be called once.
func (w *Watcher) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.mu.Lock()
	if w.running {
		w.mu.Unlock()
		return errors.New("watch: run already")
	}
	w.running, w.ctx = true, ctx
	for _, s := range w.streams {
		s.start(ctx)
	}
	w.mu.Unlock()
	told := make(chan struct{})
	go func() {
		defer close(told)
		w.tellDeaths()
	}()
	go w.write(told)
	go func() { // nobody waits for it: it may hang in a mount of some process
		if err := w.keeper.ReclaimAll(); err != nil {
			w.cfg.Logger.Error("memguard: a cgroup may be left in which the kernel does not kill", slog.Any("error", err))
		}
	}()
	w.all.Go(func() { w.search(ctx) })
	go w.loop(ctx)
	<-ctx.Done()
	w.all.Wait() // lives end with ctx
	w.keeper.Close()
	close(w.deaths)
	<-told
	return nil
}

// SetRules replaces the rules, all or none. Lives that match the new ones go on;
// the others are let go without being told dead.
func (w *Watcher) SetRules(rules []target.Rule) error {
	finder, err := target.NewFinder(rules)
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	for i := range rules {
		if err := w.http.check(rules[i].Pprof); err != nil {
			return fmt.Errorf("watch: rule %q: pprof: %w", rules[i].Name, err)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.setStreams(rules); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	w.rules, w.finder, w.changed = slices.Clone(rules), finder, true
	w.arrange()
	nudge(w.rescan)
	return nil
}

// arrange makes the slots those of the rules: one at least of each, the first of
// which waits. Slots of rules that are gone go. The caller holds mu.
func (w *Watcher) arrange() {
	var slots []*slot
	for i := range w.rules {
		r := &w.rules[i]
		n := len(slots)
		for _, s := range w.slots {
			if s.rule == r.Name {
				slots = append(slots, s)
			}
		}
		if len(slots) == n {
			slots = append(slots, newSlot(r.Name, 1))
		}
	}
	for _, s := range w.slots {
		if s.life != nil && !slices.Contains(slots, s) {
			w.let(s.life, "no rule asks for it any more")
		}
	}
	w.slots = slots
}

// pprofOf is the rule's URL of net/http/pprof.
func (w *Watcher) pprofOf(rule string) string {
	for i := range w.rules {
		if w.rules[i].Name == rule {
			return w.rules[i].Pprof
		}
	}
	return ""
}

// Status is a target at its last look.
type Status struct {
	Name     string             `json:"name"` // of the rule; a second process of the same rule is NAME-2, and so on
	Rule     string             `json:"rule"`
	State    string             `json:"state"`   // running, waiting (no process matches)
	Process  *target.Process    `json:"process"` // null while waiting
	Restarts uint64             `json:"restarts"`
	Sources  []Source           `json:"sources"`
	Eye      string             `json:"eye"`                // whose figures Guard holds: agent, attach or kernel
	Guard    *agent.Status      `json:"guard"`              // null while waiting, and before the first look
	Clusters []attach.Cluster   `json:"goroutine_clusters"` // of the last look at them, biggest first, at most 20; nil is unknown
	Classes  []attach.SizeClass `json:"size_classes"`       // of the same look
	Looked   time.Time          `json:"looked,omitzero"`    // when that was
	Cycles   []Cycle            `json:"gc_cycles"`          // the last ones that it printed (gctrace), at most 20; nil where it prints none
}

// The states of a target.
const (
	Running = "running"
	Waiting = "waiting"
)

// Whose figures a status holds.
const (
	EyeAgent  = "agent"  // the service's own guard, from inside
	EyeAttach = "attach" // its memory, read as it runs
	EyeKernel = "kernel" // the kernel's files alone
)

// Source is one way to see a target.
type Source struct {
	Name  string    `json:"name"`  // kernel, agent, attach, exit-hold, oom-hold, pprof, gctrace
	State string    `json:"state"` // ok, off, failed
	Why   string    `json:"why,omitempty"`
	Since time.Time `json:"since"`
}

// Targets are all targets, by rule and number.
func (w *Watcher) Targets() []Status {
	w.mu.Lock()
	slots := slices.Clone(w.slots)
	w.mu.Unlock()
	out := make([]Status, len(slots))
	for i, s := range slots {
		out[i] = w.status(s)
	}
	return out
}

// Status is one target.
func (w *Watcher) Status(name string) (Status, error) {
	s, err := w.slot(name)
	if err != nil {
		return Status{}, err
	}
	return w.status(s), nil
}

func (w *Watcher) status(s *slot) Status {
	w.mu.Lock()
	st := Status{Name: s.name, Rule: s.rule, State: Waiting, Restarts: s.restarts, Sources: []Source{}}
	l := s.life
	w.mu.Unlock()
	if l != nil {
		st.State = Running
		l.status(&st)
	}
	return st
}

func (w *Watcher) slot(name string) (*slot, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.slots {
		if s.name == name {
			return s, nil
		}
	}
	return nil, fmt.Errorf("watch: target %q: %w: no rule makes one of that name", name, ErrNone)
}

// life is the process of a target.
func (w *Watcher) life(name string) (*life, error) {
	s, err := w.slot(name)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.life == nil {
		return nil, fmt.Errorf("watch: target %q: %w: no process of it runs", name, ErrNone)
	}
	return s.life, nil
}

// Scanned is when the table of processes was last read through; zero is not yet.
func (w *Watcher) Scanned() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.scanned
}

// Blind is what the last search for processes could not look at, and why.
func (w *Watcher) Blind() []memguard.Blind {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.blind)
}

// Timeline is what was seen of a target since then, through all its lives: about
// ten minutes by the second, a day by the minute, and the last looks as close as
// they were taken. Times are by the clock as it stands now.
func (w *Watcher) Timeline(name string, since time.Time) (*incident.Timeline, error) {
	s, err := w.slot(name)
	if err != nil {
		return nil, err
	}
	return s.timeline.read(time.Now(), since), nil
}

// Agent is the hand in the target's process, and whose it is. The caller does not
// close it. When the process ends its methods fail with memguard.ErrGone.
func (w *Watcher) Agent(name string) (*agent.Client, target.Identity, error) {
	l, err := w.life(name)
	if err != nil {
		return nil, target.Identity{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.agent.client == nil {
		return nil, l.Identity, fmt.Errorf("watch: target %q: %w: %s", name, ErrNone, l.sources[srcAgent].Why)
	}
	return l.agent.client, l.Identity, nil
}

// nudge wakes whoever listens, now or next.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
