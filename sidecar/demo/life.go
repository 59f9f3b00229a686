// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/memguard/memguard-go/memguard"
)

// Life is what became of the service in one of its lives. After each death it is
// started again at once.
type Life struct {
	Deaths   []Death                 `json:"deaths"`
	OOMKills memguard.Count          `json:"oom_kills"`      // by the kernel's own counter; unknown without a cgroup
	Good     uint64                  `json:"answered"`       // with the right receipt
	Refused  uint64                  `json:"refused"`        // 503
	Failed   uint64                  `json:"failed"`         // no connection, a broken one, or no answer within 5 s
	P99      memguard.Value[float64] `json:"p99_seconds"`    // of good answers
	Peak     memguard.Bytes          `json:"peak_bytes"`     // the most ever charged, or the largest resident size seen
	GCCPU    memguard.Value[float64] `json:"gc_cpu_ratio"`   // of what GOMAXPROCS allowed, from the collector's own lines
	Points   []Point                 `json:"points"`         // ten a second
	Seen     *Seen                   `json:"seen,omitempty"` // from outside, of the first process, without the guard
	Kept     *Kept                   `json:"kept,omitempty"` // by the guard

	gcCPU   float64 // CPU-seconds of the collector
	allowed float64 // CPU-seconds that GOMAXPROCS allowed; 0 is unknown
}

// Death is the end of one process that nobody had asked to end.
type Death struct {
	Second float64 `json:"second"`           // since the load began
	Exit   string  `json:"exit"`             // as the kernel reported it to the parent
	Killed bool    `json:"killed"`           // by SIGKILL
	InAir  int64   `json:"orders_in_flight"` // just before
}

// Point is the most that was seen in a tenth of a second.
type Point struct {
	Second float64 `json:"second"`
	Usage  uint64  `json:"usage_bytes"` // that counted against the limit
	InAir  int64   `json:"orders_in_flight"`
}

const (
	pointEvery = 100 * time.Millisecond
	lookEvery  = 5 * time.Millisecond
	showEvery  = 250 * time.Millisecond
)

// live lets the service live for a while under load, and starts it again whenever
// it dies. Guard is the directory of the evidence, or empty.
func live(ctx context.Context, cfg *Config, p *place, exe, guard string, lifetime time.Duration) (*Life, error) {
	life, began := &Life{Deaths: []Death{}}, time.Now()
	s, err := begin(ctx, p, exe, guard)
	if err != nil {
		return nil, err
	}
	defer func() { s.close() }()
	cfg.Say(fmt.Sprintf("the service is pid %d at %s; orders come in", s.cmd.Process.Pid, s.url))
	var seen *witness
	if guard == "" {
		seen = watch(ctx, cfg.Open, s.cmd.Process.Pid)
		defer seen.close()
	}

	loadCtx, cancel := context.WithCancel(ctx)
	l := newLoad()
	defer func() { cancel(); l.done.Wait() }()
	l.url.Store(&s.url)
	start := time.Now()
	l.done.Go(func() { l.run(loadCtx, ctx) })

	m := newMeter(p, s)
	defer func() { m.close() }()
	over := time.After(lifetime)
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var shown time.Time
	for lives := true; lives; {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-over:
			lives = false
		case now := <-look.C:
			usage := m.look(life, now.Sub(start), l.inAir.Load())
			if p.box == nil && usage > p.limit {
				_ = s.cmd.Process.Kill() // in the kernel's place
			}
			if now.Sub(shown) >= showEvery {
				shown = now
				cfg.Show(Now{guard != "", now.Sub(start).Seconds(), usage, p.limit, len(life.Deaths)})
			}
		case <-s.dead:
			life.died(s, time.Since(start))
			life.account(s)
			next, err := begin(ctx, p, exe, guard)
			if err != nil {
				return nil, err
			}
			s = next
			l.url.Store(&s.url)
			m.close()
			m = newMeter(p, s)
		}
	}
	cancel()
	l.count(life)
	select {
	case <-s.dead: // while it answered the last orders
		life.died(s, time.Since(start))
	default:
		s.stop()
	}
	life.account(s)
	life.OOMKills = p.kills()
	if peak := p.peak(); peak != (memguard.Bytes{}) {
		life.Peak = peak
	}
	if life.allowed > 0 {
		life.GCCPU = memguard.Known(life.gcCPU / life.allowed)
	}
	if seen != nil {
		life.Seen = seen.tell(start)
	} else if life.Kept, err = readKept(guard, began); err != nil {
		return nil, err
	}
	return life, nil
}

// died notes that a process has ended, and nobody had asked it to.
func (life *Life) died(s *process, at time.Duration) {
	how, killed := s.exit()
	life.Deaths = append(life.Deaths, Death{at.Seconds(), how, killed, life.inAir()})
}

// account adds a process that has ended.
func (life *Life) account(s *process) {
	life.gcCPU += s.gcCPU.Seconds()
	life.allowed += time.Since(s.began).Seconds() * float64(s.procs)
}

// inAir is how many orders were in flight in the last two points: those of a
// process that was killed have failed by the time that its end is known.
func (life *Life) inAir() (most int64) {
	for _, p := range life.Points[max(0, len(life.Points)-2):] {
		most = max(most, p.InAir)
	}
	return most
}

// meter reads what counts against the limit.
type meter struct {
	place *place
	src   *memguard.Source // of the process, where there is no cgroup
}

func newMeter(p *place, s *process) *meter {
	m := &meter{place: p}
	if p.box == nil {
		m.src, _ = memguard.Open(s.cmd.Process.Pid) // nil: it has ended
	}
	return m
}

func (m *meter) close() {
	if m.src != nil {
		_ = m.src.Close()
	}
}

// look notes the memory at a time since the load began.
func (m *meter) look(life *Life, at time.Duration, inAir int64) uint64 {
	usage, ok := m.place.used(m.src)
	if !ok {
		return 0
	}
	second := at.Truncate(pointEvery).Seconds()
	if n := len(life.Points); n == 0 || life.Points[n-1].Second != second {
		life.Points = append(life.Points, Point{Second: second})
	}
	last := &life.Points[len(life.Points)-1]
	last.Usage, last.InAir = max(last.Usage, usage), max(last.InAir, inAir)
	if peak, _ := life.Peak.Get(); usage > peak {
		life.Peak = memguard.Known(usage)
	}
	return usage
}
