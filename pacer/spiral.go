// SPDX-License-Identifier: Apache-2.0

package pacer

import (
	"math"
	"time"
)

// meter measures what the collector costs. The runtime adds up CPU time at the
// end of a cycle only, so what is between two ends is known when it is over. Time
// in which none runs dilutes the share, or it would stay for ever in a process that
// went idle.
type meter struct {
	started    bool
	cycles     uint64
	gc, cpu    float64
	allocated  float64
	procs      float64 // cpu-seconds per second
	sinceCycle float64 // seconds
	idle       float64 // of them, those in which surely no cycle ran
	sum        struct{ gc, cpu, cycles, allocated float64 }
	cycled     bool // a cycle has ended at this step
}

const meterHalf = 2.0 // seconds

func (m *meter) step(r *Reading, dt float64) {
	m.cycled = false
	if !m.started || r.Cycles < m.cycles || r.CPU < m.cpu || r.GCCPU < m.gc || float64(r.Allocated) < m.allocated {
		*m = meter{started: true, cycles: r.Cycles, gc: r.GCCPU, cpu: r.CPU, allocated: float64(r.Allocated)}
		return
	}
	decay := math.Exp2(-dt / meterHalf)
	s := &m.sum
	s.gc, s.cpu, s.cycles, s.allocated = s.gc*decay, s.cpu*decay, s.cycles*decay, s.allocated*decay
	m.sinceCycle += dt
	// From 70 % of the way to the goal on a cycle may be under way (trigger in
	// mgcpacer.go), and what it takes is not known yet: no dilution.
	if float64(r.Objects) < float64(r.Live)+0.7*(float64(r.Goal)-float64(r.Live)) {
		m.idle += dt
	}
	if r.Cycles == m.cycles || r.CPU == m.cpu {
		return
	}
	m.cycled = true
	m.procs = (r.CPU - m.cpu) / m.sinceCycle
	s.gc += r.GCCPU - m.gc
	s.cpu += r.CPU - m.cpu
	s.cycles += float64(r.Cycles - m.cycles)
	s.allocated += float64(r.Allocated) - m.allocated
	m.cycles, m.gc, m.cpu, m.allocated = r.Cycles, r.GCCPU, r.CPU, float64(r.Allocated)
	m.sinceCycle, m.idle = 0, 0
}

// share is the part of the CPU that the collector took of late.
func (m *meter) share() float64 {
	all := m.sum.cpu + m.procs*m.idle
	if all <= 0 {
		return 0
	}
	return min(m.sum.gc/all, 1)
}

// leastPercent is the GC percent below which the collector would take more than
// its budget: a cycle costs what it cost before, and comes each time that this
// part of the live heap has been allocated.
func (m *meter) leastPercent(live, budget float64) float64 {
	if m.sum.cycles <= 0 || m.sum.cpu <= 0 {
		return 0
	}
	perCycle := m.sum.gc / m.sum.cycles
	perCPU := m.sum.allocated / m.sum.cpu
	return 100 * perCycle * perCPU / (budget * live)
}

// spiral says whether collecting helps.
type spiral struct {
	on       bool
	over     time.Time // since when it has not been seen; zero while it is
	helpless int       // ineffective cycles in a row
}

const (
	little     = 0.25 // of the live heap, freed by a cycle: as if GOGC were 25
	enough     = 0.50
	spiralWait = 2 * time.Second
	spiralSure = 2 // ineffective cycles in a row
	backOffMax = 4
)

// step takes a reading, what lives, and the bytes between what must stay and the end.
func (s *spiral) step(r *Reading, m *meter, live uint64, room, budget float64) bool {
	alive := float64(max(live, heapLeast))
	gains := min(float64(r.Goal)-float64(live), room)
	share := m.share()
	ineffective := share > budget && gains < little*alive
	effective := share < budget/2 || gains > enough*alive
	if m.cycled {
		switch {
		case ineffective:
			s.helpless = min(s.helpless+1, backOffMax)
		case effective:
			s.helpless = max(s.helpless-1, 0)
		}
	}
	switch {
	case ineffective && s.helpless >= spiralSure:
		s.on, s.over = true, time.Time{}
	case !s.on || ineffective || !effective:
		s.over = time.Time{}
	case s.over.IsZero() || r.Time.Before(s.over): // the clock was set back
		s.over = r.Time
	case r.Time.Sub(s.over) >= spiralWait:
		*s = spiral{}
	}
	return s.on
}

// effect is how much of what the heap may run past its limit is still subtracted
// from that: each collection in a row that gained little halves it. A lower limit
// makes more of them, and they gain even less.
func (s *spiral) effect() float64 { return math.Exp2(-float64(s.helpless)) }
