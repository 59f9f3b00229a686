// SPDX-License-Identifier: Apache-2.0

package overhead

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// What a guard costs a request is less than by what one second differs from the
// next on a machine that others use too: a request takes a tenth more or less CPU
// there, in one process and still more in two. So requests are compared that follow
// each other within milliseconds and in one process: a window of some to the address
// where nothing is around the handler, two windows to that with the limiter, and one
// to the first again. A window in which the guard has ticked is compared with those
// around it in which it has not.
const (
	usualWindow   = 20 // requests, one after the other
	bundleWindows = 24 // their garbage stays below the heap's goal; between bundles it is collected
)

// tickHeader says when the guard has last ticked, in microseconds of Unix time.
const tickHeader = "Guard-Ticked"

// tickSlack is by how much two readings of one tick's time may differ: far less
// than lies between two ticks.
const tickSlack = 2 * time.Millisecond

// window is of requests that follow each other.
type window struct {
	limited    bool
	start, end time.Time
	cpu        float64 // seconds that the service took meanwhile
}

// bout is what was measured in bundles of windows. Times are in seconds of CPU.
type bout struct {
	Wall     float64 `json:"wall_seconds"`
	Requests int     `json:"requests"`
	Request  float64 `json:"cpu_seconds_per_request"` // without limiter, and without ticks
	Limiter  float64 `json:"limiter_cpu_seconds_per_request"`
	Tick     float64 `json:"cpu_seconds_per_tick"`
	Compared int     `json:"ticks_compared"` // those that were alone in a window
	Ticks    int     `json:"ticks"`
}

// rate is how many ticks there are in a second.
func (b *bout) rate() float64 { return float64(b.Ticks) / b.Wall }

// pairs sends bundles for a while.
func (l *load) pairs(o order) (bout, error) {
	c := comparing{window: o.Window}
	start := time.Now()
	for n := uint64(0); time.Since(start) < o.For; n++ {
		if _, err := l.ask(http.MethodPost, "http://"+o.To.Plain+"/collect", nil); err != nil {
			return bout{}, err
		}
		windows, ticks, err := l.bundle(o, o.Seed<<32|n)
		if err != nil {
			return bout{}, err
		}
		c.bundle(windows, ticks)
	}
	return c.sum(time.Since(start))
}

// bundle sends a bundle. ticks are the times of the guard's last tick as the answers
// told them.
func (l *load) bundle(o order, seed uint64) (windows []window, ticks []time.Time, err error) {
	before, err := cpuOf(o.PID)
	if err != nil {
		return nil, nil, err
	}
	for i := range bundleWindows {
		w := window{limited: i%4 == 1 || i%4 == 2, start: time.Now()}
		addr := o.To.Plain
		if w.limited {
			addr = o.To.Limited
		}
		r := rand.New(rand.NewPCG(seed, 0)) // the same in each window
		for range o.Window {
			path := fmt.Sprintf("http://%s/documents/%d", addr, r.IntN(documents))
			method, body := http.MethodGet, []byte(nil)
			if r.Float64() < writePart {
				method, body = http.MethodPut, l.small
			}
			tick, err := l.ask(method, path, body)
			if err != nil {
				return nil, nil, err
			}
			ticks = append(ticks, tick)
		}
		after, err := cpuOf(o.PID)
		if err != nil {
			return nil, nil, err
		}
		w.end, w.cpu = time.Now(), (after - before).Seconds()
		before = after
		windows = append(windows, w)
	}
	return windows, ticks, nil
}

// ask sends a request that must succeed, and returns when the guard had last ticked.
func (l *load) ask(method, url string, body []byte) (tick time.Time, err error) {
	status, header, err := l.exchange(method, url, body)
	if err != nil {
		return tick, err
	}
	at, err := strconv.ParseInt(header.Get(tickHeader), 10, 64)
	if status != http.StatusOK || err != nil {
		return tick, fmt.Errorf("%s %s: status %d, %s %q", method, url, status, tickHeader, header.Get(tickHeader))
	}
	return time.UnixMicro(at), nil
}

// comparing compares windows, bundle by bundle.
type comparing struct {
	window                 int // requests in each
	windows, ticks         int
	last                   time.Time // tick
	request, limiter, tick sum
}

// bundle takes a bundle, and the times of the guard's last tick as they were told
// meanwhile, in order.
func (c *comparing) bundle(windows []window, ticks []time.Time) {
	c.windows += len(windows)
	in := make([]int, len(windows)) // ticks in each
	for _, at := range ticks {
		if at.Sub(c.last) <= tickSlack {
			continue
		}
		c.last = at
		c.ticks++
		for i, w := range windows {
			if !at.Before(w.start) && at.Before(w.end) {
				in[i]++
			}
		}
	}
	quiet := map[bool]*sum{false: {}, true: {}} // by limited
	for i, w := range windows {
		if in[i] == 0 {
			quiet[w.limited].add(w.cpu)
		}
	}
	if quiet[false].n == 0 || quiet[true].n == 0 {
		return
	}
	c.request.add(quiet[false].mean() / float64(c.window))
	c.limiter.add((quiet[true].mean() - quiet[false].mean()) / float64(c.window))
	for i, w := range windows {
		if in[i] == 1 {
			c.tick.add(w.cpu - quiet[w.limited].mean())
		}
	}
}

func (c *comparing) sum(wall time.Duration) (bout, error) {
	b := bout{Wall: wall.Seconds(), Requests: c.windows * c.window, Ticks: c.ticks, Compared: c.tick.n}
	if c.request.n == 0 || c.tick.n == 0 {
		return b, fmt.Errorf("%d requests and %d ticks in %v: too few to compare", b.Requests, b.Ticks, wall)
	}
	b.Request, b.Limiter, b.Tick = c.request.mean(), c.limiter.mean(), c.tick.mean()
	return b, nil
}

// sum makes a mean.
type sum struct {
	n   int
	sum float64
}

func (s *sum) add(x float64) { s.n, s.sum = s.n+1, s.sum+x }
func (s *sum) mean() float64 { return s.sum / float64(s.n) }
