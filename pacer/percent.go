// SPDX-License-Identifier: Apache-2.0

package pacer

import "math"

const (
	heapLeast   = 4 << 20 // defaultHeapMinimum in runtime/mgcpacer.go: the least heap goal at GOGC=100
	percentUnit = 5       // a clamped percent is a multiple of it
	percentMin  = 10      // below it nothing is gained: the memory limit rules there
	releaseBy   = 1.2     // a clamp ends when the proposal would fit with a fifth to spare
)

// percent decides the GC percent. The table proposes. The heap goal that follows
// must fit under the memory limit, with all of Go's memory that is not objects;
// and the collector must stay within its CPU budget, unless it would not with
// what the table has for a closed breaker either.
func (g *Governor) percent(r *Reading, limit float64, d *Decision) {
	d.Proposed, d.GCPercent, d.Reason = g.Baseline.GCPercent, g.Baseline.GCPercent, asBaseline
	proposed, ok := g.Table.percent(r.State)
	if !ok {
		return
	}
	d.Proposed, d.GCPercent, d.Reason = proposed, proposed, byTable

	live := float64(max(r.Live, heapLeast))
	heap := limit - float64(r.Unused+r.Stacks+r.Metadata)
	heap -= max(goalHeadroom*heap, headroomMin)
	fits := 100 * (heap - live) / (live + float64(r.Stacks)) // commit in runtime/mgcpacer.go
	affordable := min(g.meter.leastPercent(live, g.budget()), g.atRest(proposed))

	held := g.clamp != "" && g.last.Proposed == proposed
	spare := 1.0
	if held {
		spare = releaseBy
	}
	want := float64(proposed)
	if affordable*spare > want {
		want, d.Reason = max(math.Ceil(affordable/percentUnit)*percentUnit, want), overBudget
	}
	if fits < want || held && g.clamp == heapWouldNotFit && fits < want*spare {
		want, d.Reason = min(max(math.Floor(fits/percentUnit)*percentUnit, percentMin), want), heapWouldNotFit
	}
	d.GCPercent = int(want)
	d.Clamped = d.GCPercent != proposed
	if !d.Clamped {
		d.Reason = byTable
		return
	}
	// A clamp follows each cycle's live heap no closer than it must.
	if last := float64(g.last.GCPercent); held && last <= max(fits, percentMin) && math.Abs(last-want) < 3*percentUnit {
		d.GCPercent = g.last.GCPercent
	}
}

// atRest is the GC percent of better times: what the CPU budget may raise to.
func (g *Governor) atRest(proposed int) float64 {
	rest, ok := g.Table.percent(Closed)
	if !ok {
		rest = g.Baseline.GCPercent
	}
	if rest < 0 { // GOGC=off: the budget costs no memory that the limit does not allow
		return math.MaxInt32
	}
	return float64(max(rest, proposed))
}
