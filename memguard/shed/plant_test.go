// SPDX-License-Identifier: Apache-2.0

package shed

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

const mib = 1 << 20

// load is arrivals per second at a time since the start.
type load func(t time.Duration) float64

func constant(rate float64) load { return func(time.Duration) float64 { return rate } }

func ramp(from, to float64, over time.Duration) load {
	return func(t time.Duration) float64 { return from + (to-from)*min(t.Seconds()/over.Seconds(), 1) }
}

func oscillate(low, high float64, half time.Duration) load {
	return func(t time.Duration) float64 {
		if t/half%2 == 0 {
			return high
		}
		return low
	}
}

// then is l for a while and next after it.
func (l load) then(after time.Duration, next load) load {
	return func(t time.Duration) float64 {
		if t < after {
			return l(t)
		}
		return next(t - after)
	}
}

// kind is work of one route.
type kind struct {
	route    string
	priority Priority
	load     load
	size     float64       // it holds
	garbage  float64       // it drops at once
	hold     time.Duration // mean; 0 is for ever
	lag      time.Duration // from admission to allocation
}

// plant is a Go process in a cgroup, in steps of a millisecond. Its collector
// starts at a goal under GOMEMLIMIT, which is what the limit leaves.
type plant struct {
	limit, margin, base, other float64
	kinds                      []kind
	tick                       func(t time.Duration) bool // whether the guard gets its turn
	look                       bool
	assists                    bool
	marks                      float64 // bytes per second
	change                     func(p *plant, t time.Duration)

	core   core
	live   float64 // reachable, of work
	dead   float64
	free   float64
	marked float64
	cycles uint64

	allocated float64
	gcLeft    time.Duration
	gcFrees   float64
	then      map[time.Duration][]func()
	killed    time.Duration
	peak      float64
	changes   int           // of the brake
	waits     time.Duration // work that slow start holds back

	offered, served, refused map[string]int
	rng                      *rand.Rand
}

func (p *plant) mapped() float64 { return p.base + p.live + p.dead + p.free }
func (p *plant) usage() float64  { return p.mapped() + p.other }

// allocate reports whether there was leave to allocate: while a collection is
// under way and the heap at its goal, who allocates has to help and waits.
func (p *plant) allocate(n float64) bool {
	if p.gcLeft <= 0 {
		p.trigger()
	}
	if p.gcLeft > 0 && p.usage()-p.free+n > p.limit-p.margin && p.assists {
		return false
	}
	p.allocated += n
	reuse := min(n, p.free)
	p.free -= reuse
	// GOMEMLIMIT: pages that lie free elsewhere are given back first
	if over := p.usage() + n - reuse - (p.limit - p.margin); over > 0 {
		p.free = max(p.free-over, 0)
	}
	return true
}

func (p *plant) at(t time.Duration, f func()) {
	t = t.Truncate(time.Millisecond)
	p.then[t] = append(p.then[t], f)
}

func (p *plant) collect(dt time.Duration) {
	if p.gcLeft > 0 {
		if p.gcLeft -= dt; p.gcLeft <= 0 {
			p.marked = p.base + p.live + p.dead - p.gcFrees
			p.dead -= p.gcFrees
			p.free += p.gcFrees
			p.cycles++
		}
		return
	}
	p.trigger()
}

// trigger starts a collection if the heap has grown enough.
func (p *plant) trigger() {
	goal := min(max(2*p.marked, 4*mib), p.limit-p.margin-p.other)
	heap := p.base + p.live + p.dead
	if trigger := p.marked + 0.8*(goal-p.marked); heap >= trigger && p.dead > 0 || heap > goal && p.dead > 0 {
		p.gcLeft = time.Millisecond + time.Duration((p.base+p.live)/p.marks*float64(time.Second))
		p.gcFrees = p.dead
	}
}

func (p *plant) arrive(now time.Duration, k *kind) {
	p.offered[k.route]++
	p.enter(now, now+p.waits, k)
}

func (p *plant) enter(now, until time.Duration, k *kind) {
	r := p.core.route(k.route)
	if reason := p.core.admit(now, r, k.priority); reason == SlowStart && now < until {
		p.at(now+tendEvery, func() { p.enter(now+tendEvery, until, k) })
		return
	} else if reason != "" {
		r.refused++
		p.refused[k.route]++
		return
	}
	epoch := p.core.epoch
	p.begin(now+k.lag, k, func() {
		p.core.leave(r, epoch)
		p.served[k.route]++
	})
}

func (p *plant) begin(now time.Duration, k *kind, leave func()) {
	now += time.Millisecond
	p.at(now, func() {
		if !p.allocate(k.size + k.garbage) {
			p.begin(now, k, leave)
			return
		}
		p.live += k.size
		p.dead += k.garbage
		if k.hold == 0 {
			return
		}
		p.at(now+k.hold/2+time.Duration(p.rng.Float64()*float64(k.hold))+time.Millisecond, func() {
			p.live -= k.size
			p.dead += k.size
			leave()
		})
	})
}

func (p *plant) poisson(mean float64) (n int) {
	for l, x := math.Exp(-mean), p.rng.Float64(); x > l; n++ {
		x *= p.rng.Float64()
	}
	return n
}

func (p *plant) memory() Memory {
	return Memory{
		Limit: uint64(p.limit), Usage: uint64(p.usage()), Must: uint64(p.marked), Other: uint64(p.other),
		Free: uint64(p.free), Margin: uint64(p.margin), Cycles: p.cycles, Allocated: uint64(p.base + p.allocated),
	}
}

// run runs from one time to another, until the kernel kills it.
func (p *plant) run(from, to time.Duration) {
	if p.then == nil {
		p.core, p.rng = newCore(), rand.New(rand.NewPCG(1, 2))
		p.then = map[time.Duration][]func(){}
		p.marked = p.base
		p.core.update(0, p.memory())
	}
	p.offered, p.served, p.refused = map[string]int{}, map[string]int{}, map[string]int{}
	const dt = time.Millisecond
	for now := from; now < to; now += dt {
		for i := range p.kinds {
			for range p.poisson(p.kinds[i].load(now) * dt.Seconds()) {
				p.arrive(now, &p.kinds[i])
			}
		}
		for _, f := range p.then[now] {
			f()
		}
		delete(p.then, now)
		if p.change != nil {
			p.change(p, now)
		}
		p.collect(dt)
		was := p.core.braking
		if p.look {
			p.core.see(now, uint64(p.usage()))
		}
		if p.tick(now) {
			p.core.update(now, p.memory())
		}
		if p.core.braking != was {
			p.changes++
		}
		p.peak = max(p.peak, p.usage())
		if p.usage() > p.limit && p.killed == 0 {
			p.killed = now
			return
		}
	}
}

// every is a guard that ticks so often.
func every(d time.Duration) func(time.Duration) bool {
	return func(t time.Duration) bool { return t%d == 0 }
}

// starved is a guard that ticks every 10 ms, but half of each second does not.
func starved(t time.Duration) bool {
	return t%(10*time.Millisecond) == 0 && t%time.Second < 500*time.Millisecond
}

func request(l load) kind {
	return kind{route: "work", load: l, size: mib, hold: 125 * time.Millisecond}
}

const small = 128 * mib

func newPlant(kinds ...kind) *plant {
	return &plant{limit: small, margin: small / 25, base: 4 * mib, other: 2 * mib, kinds: kinds, tick: every(10 * time.Millisecond), look: true, assists: true, marks: 8192 * mib}
}

func TestPlants(t *testing.T) {
	t.Parallel()
	const best = 700. // requests a second: what fits, by 125 ms
	heavy, light := request(constant(7*best)), request(constant(7*best))
	heavy.size, light.size = 4*mib, 24<<10
	late := request(constant(7 * best))
	late.lag = 40 * time.Millisecond
	churn := request(constant(3 * best))
	churn.garbage = 2 * mib
	for _, tt := range []struct {
		name  string
		plant func() *plant
		least float64 // served per second
		most  float64 // refused per second

		changes int // of the brake, at most
	}{
		{"half", func() *plant { return newPlant(request(constant(best / 2))) }, 0.48 * best, 3, 0},
		{"twice", func() *plant { return newPlant(request(constant(2 * best))) }, 0.9 * best, 1.2 * best, 0},
		{"seven times", func() *plant { return newPlant(request(constant(7 * best))) }, 0.9 * best, 6.2 * best, 0},
		{"ramp", func() *plant { return newPlant(request(ramp(0, 7*best, 5*time.Second))) }, 0.6 * best, 7 * best, 0},
		{"oscillation", func() *plant { return newPlant(request(oscillate(best/3, 5*best, 500*time.Millisecond))) }, 0.6 * best, 5 * best, 0},
		{"late allocation", func() *plant { return newPlant(late) }, 0.6 * best, 7 * best, 0},
		{"garbage", func() *plant { return newPlant(churn) }, 0.6 * best, 7 * best, 0},
		{"4 MiB each", func() *plant { return newPlant(heavy) }, 0.8 * best / 4, 7 * best, 0},
		{"24 KiB each fit", func() *plant { return newPlant(light) }, 6.7 * best, 150, 0},
		{"guard starved", func() *plant {
			p := newPlant(request(constant(7 * best)))
			p.tick = starved
			return p
		}, 0.8 * best, 7 * best, 0},
		{"guard at rest", func() *plant {
			p := newPlant(request(constant(7 * best)))
			p.tick = every(time.Second)
			return p
		}, 0.35 * best, 7 * best, 0},
		{"no assists", func() *plant { // the runtime's limiter of GC CPU is on
			p := newPlant(request(constant(7 * best)))
			p.assists, p.marks = false, 2048*mib
			return p
		}, 0.3 * best, 7 * best, 40},
		{"without look", func() *plant {
			p := newPlant(request(constant(7 * best)))
			p.look = false
			return p
		}, 0.6 * best, 7 * best, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := tt.plant()
			p.run(0, 10*time.Second)
			served, refused := float64(p.served["work"])/10, float64(p.refused["work"])/10
			t.Logf("served %.0f/s, refused %.0f/s, peak %.1f MiB, brake changed %d times, cost %.0f KiB, base %.1f MiB, trust %.2f",
				served, refused, p.peak/mib, p.changes, p.core.route("work").cost/1024, p.core.base/mib, p.core.trust)
			assert.Zero(t, p.killed, "killed")
			assert.GreaterOrEqual(t, served, tt.least)
			assert.LessOrEqual(t, refused, tt.most)
			assert.LessOrEqual(t, p.changes, tt.changes, "the brake comes and goes")
		})
	}
}

// A route whose work never ends, beside one that is well.
func TestPlantLeak(t *testing.T) {
	t.Parallel()
	leak := kind{route: "leak", load: constant(20), size: 256 << 10}
	ok := kind{route: "ok", load: constant(200), size: 128 << 10, hold: 20 * time.Millisecond}
	p := newPlant(leak, ok)
	p.run(0, 120*time.Second)
	p.run(120*time.Second, 150*time.Second)
	t.Logf("leak: in flight %d, cost %.0f KiB; ok served %d of %d; peak %.1f MiB", p.core.route("leak").inFlight,
		p.core.route("leak").cost/1024, p.served["ok"], p.offered["ok"], p.peak/mib)
	assert.Zero(t, p.killed, "killed")
	assert.Equal(t, p.offered["leak"], p.refused["leak"], "the leak is refused")
	assert.GreaterOrEqual(t, p.served["ok"], p.offered["ok"]*95/100, "what is well is served")
}

// Who is more important is refused later.
func TestPlantPriorities(t *testing.T) {
	t.Parallel()
	var kinds []kind
	for i, name := range []string{Low: "low", Normal: "normal", High: "high"} {
		k := request(constant(350))
		k.route, k.priority = name, Priority(i)
		kinds = append(kinds, k)
	}
	p := newPlant(kinds...)
	p.run(0, 2*time.Second)
	p.run(2*time.Second, 10*time.Second)
	t.Logf("served: low %d, normal %d, high %d of %d", p.served["low"], p.served["normal"], p.served["high"], p.offered["high"])
	assert.Zero(t, p.killed, "killed")
	assert.GreaterOrEqual(t, p.served["high"], p.offered["high"]*95/100)
	assert.Greater(t, p.served["normal"], p.served["low"])
}

// Two busy routes share; one alone may have everything.
func TestPlantShares(t *testing.T) {
	t.Parallel()
	flood, modest := request(constant(5000)), request(constant(200))
	flood.route, modest.route = "flood", "modest"
	modest.load = load(func(t time.Duration) float64 { return 0 }).then(5*time.Second, constant(200))
	p := newPlant(flood, modest)
	p.run(0, 5*time.Second)
	assert.Greater(t, p.served["flood"], 5*600, "alone")
	p.run(5*time.Second, 6*time.Second)
	p.run(6*time.Second, 10*time.Second)
	t.Logf("flood %d, modest %d of %d", p.served["flood"], p.served["modest"], p.offered["modest"])
	assert.Zero(t, p.killed, "killed")
	assert.GreaterOrEqual(t, p.served["modest"], p.offered["modest"]*8/10)
}

// Pressure that falls, a limit that moves, a neighbour that grows.
func TestPlantChanges(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		load   load
		change func(p *plant, t time.Duration)
		after  float64 // served per second from 10 s to 20 s
		refuse float64
	}{
		{"load falls", constant(5000).then(5*time.Second, constant(350)), nil, 340, 0},
		{"limit rises", constant(5000), func(p *plant, t time.Duration) {
			if t == 5*time.Second {
				p.limit, p.margin = 2*small, 2*small/25
			}
		}, 1300, 5000},
		{"limit falls", constant(5000), func(p *plant, t time.Duration) {
			if t > 5*time.Second && p.limit > small*3/4 { // the kernel lets it fall no faster than the usage
				p.limit -= small / 2000
			}
		}, 400, 5000},
		{"neighbour grows", constant(5000), func(p *plant, t time.Duration) {
			if t > 2*time.Second && p.other < 40*mib {
				p.other += 8 * mib / 1000. // 8 MiB/s
			}
		}, 400, 5000},
		{"cache grows", constant(350), func(p *plant, t time.Duration) {
			if t > 2*time.Second && p.base < 40*mib {
				p.base += 8 * mib / 1000.
			}
		}, 310, 40}, // the growth is taken for a cost at first
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPlant(request(tt.load))
			p.change = tt.change
			p.run(0, 10*time.Second)
			p.run(10*time.Second, 20*time.Second)
			served, refused := float64(p.served["work"])/10, float64(p.refused["work"])/10
			t.Logf("served %.0f/s, refused %.0f/s, peak %.1f MiB, cost %.0f KiB, base %.1f MiB, brake changed %d times",
				served, refused, p.peak/mib, p.core.route("work").cost/1024, p.core.base/mib, p.changes)
			assert.Zero(t, p.killed, "killed")
			assert.GreaterOrEqual(t, served, tt.after)
			assert.LessOrEqual(t, refused, tt.refuse)
			assert.Zero(t, p.changes, "of the brake")
		})
	}
}

// Nobody tells of the memory any more: everything is admitted.
func TestPlantBlind(t *testing.T) {
	t.Parallel()
	p := newPlant(request(constant(5000)))
	p.tick = func(t time.Duration) bool { return t%(10*time.Millisecond) == 0 && t < time.Second }
	p.look = false
	p.run(0, 2*time.Second)
	assert.NotZero(t, p.refused["work"])
	p.run(2*time.Second, 2*time.Second+blindAfter-time.Second)
	assert.NotZero(t, p.refused["work"], "it holds for a while")
	p.run(time.Second+blindAfter, time.Second+blindAfter+50*time.Millisecond)
	assert.Zero(t, p.refused["work"])
}
