// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Client is the world outside: it sends requests to the service and counts what
// comes back. Its methods may be called from several goroutines.
type Client struct {
	Limit uint64 // of the service's memory cgroup, in bytes
	Addr  string // host:port of the service

	http     *http.Client
	inFlight atomic.Int64
	seed     uint64

	mu      sync.Mutex // guards what follows
	streams map[string]*stream
}

// Request is one kind of request.
type Request struct {
	Stream string // counted under this name; the path if empty
	Method string // GET if empty, or POST if there is a Body
	Path   string // with the query, from "/" on
	Body   []byte

	// Deadline is how long an answer may take, from the arrival of the request,
	// not from when there was time to send it; 0 is two seconds. What comes later
	// is late, and the connection is closed. The end of a run waits for 10 s.
	Deadline time.Duration

	// Check looks at an answer with status 200. Nil takes any body.
	Check func(body []byte) error
}

const (
	defaultDeadline = 2 * time.Second

	// maxInFlight bounds what the generator itself may hold: a request beyond it
	// is not sent, and counted as Unsent.
	maxInFlight = 10000

	maxBody = 64 << 20 // a longer answer is a wrong one
)

// Counts says what became of requests. Every request that arrived is in
// Arrived, and in exactly one of the others when it is over.
type Counts struct {
	Arrived uint64 `json:"arrived"`
	Good    uint64 `json:"good"`    // answered in time, status 200, body checked
	Refused uint64 `json:"refused"` // status 503 or 429, in time
	Wrong   uint64 `json:"wrong"`   // any other status, or a body that failed its check
	Late    uint64 `json:"late"`    // no whole answer within the deadline
	Failed  uint64 `json:"failed"`  // no connection, or a broken one
	Unsent  uint64 `json:"unsent"`  // the load generator had its hands full
}

func (c *Counts) add(o Counts) {
	c.Arrived += o.Arrived
	c.Good += o.Good
	c.Refused += o.Refused
	c.Wrong += o.Wrong
	c.Late += o.Late
	c.Failed += o.Failed
	c.Unsent += o.Unsent
}

type stream struct {
	Counts
	latency histogram // of good answers, all of them
	recent  histogram // of good answers since the last report
}

// Errors of a request that was not answered well.
var (
	ErrRefused = errors.New("refused")
	ErrLate    = errors.New("no answer within the deadline")
)

func newClient(addr string, limit uint64, seed uint64) *Client {
	return &Client{
		Limit: limit, Addr: addr, seed: seed,
		streams: map[string]*stream{},
		http: &http.Client{
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				DialContext:         (&net.Dialer{}).DialContext,
				MaxIdleConnsPerHost: maxInFlight,
				DisableCompression:  true,
			},
		},
	}
}

// Rate sends requests until ctx ends, and then waits for the answers that are
// due. Arrivals are a Poisson process: they come at perSecond on average, at
// times of their own, whether or not the service keeps up with them.
//
// A service that stands still is not spared: what arrives meanwhile is sent as
// soon as it can be, and its latency counts from its arrival.
func (c *Client) Rate(ctx context.Context, perSecond float64, r Request) error {
	if !(perSecond > 0) {
		return fmt.Errorf("lab: rate of %v requests per second: want one above zero", perSecond)
	}
	gap := c.gaps(&r)
	var pending sync.WaitGroup
	defer pending.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	next := time.Now()
	for {
		next = next.Add(time.Duration(gap() / perSecond * float64(time.Second)))
		if d := time.Until(next); d > 0 {
			timer.Reset(d)
			select {
			case <-ctx.Done():
				return nil
			case <-timer.C:
			}
		} else if ctx.Err() != nil {
			return nil
		}
		arrived := next
		if c.inFlight.Load() >= maxInFlight {
			c.count(&r, 0, errUnsent)
			continue
		}
		pending.Go(func() { _, _ = c.send(context.WithoutCancel(ctx), arrived, &r) })
	}
}

// Do sends one request now and returns the body of a good answer. The error is
// ErrRefused, ErrLate, or says what else went wrong; it is counted either way,
// except when ctx ended.
func (c *Client) Do(ctx context.Context, r Request) ([]byte, error) {
	return c.send(ctx, time.Now(), &r)
}

// gaps returns the source of the times between arrivals, with a mean of 1: for
// each kind of request its own, so that what else is sent does not change them.
func (c *Client) gaps(r *Request) func() float64 {
	h := fnv.New64a()
	fmt.Fprint(h, r.stream(), r.Path)
	return rand.New(rand.NewPCG(c.seed, h.Sum64())).ExpFloat64
}

func (r *Request) stream() string { return cmp.Or(r.Stream, r.Path) }

// errUnsent and errWrong are reasons that count on their own.
var errUnsent = errors.New("too many requests are under way")

type wrongError struct{ err error }

func (w *wrongError) Error() string { return "wrong answer: " + w.err.Error() }
func (w *wrongError) Unwrap() error { return w.err }

func (c *Client) send(ctx context.Context, arrived time.Time, r *Request) ([]byte, error) {
	c.inFlight.Add(1)
	defer c.inFlight.Add(-1)
	deadline := r.Deadline
	if deadline <= 0 {
		deadline = defaultDeadline
	}
	limited, cancel := context.WithDeadlineCause(ctx, arrived.Add(deadline), ErrLate)
	defer cancel()
	body, err := c.exchange(limited, r)
	if ctx.Err() != nil {
		return nil, ctx.Err() // the load ended, the service did not fail
	}
	took := time.Since(arrived)
	if err != nil && context.Cause(limited) == ErrLate || took > deadline {
		body, err = nil, ErrLate // also where we ourselves were late to see it
	}
	c.count(r, took, err)
	return body, err
}

func (c *Client) exchange(ctx context.Context, r *Request) ([]byte, error) {
	method := r.Method
	if method == "" {
		method = http.MethodGet
		if r.Body != nil {
			method = http.MethodPost
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.Addr+r.Path, bytes.NewReader(r.Body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusServiceUnavailable, resp.StatusCode == http.StatusTooManyRequests:
		return nil, ErrRefused
	case resp.StatusCode != http.StatusOK:
		return nil, &wrongError{fmt.Errorf("status %s", resp.Status)}
	case len(body) > maxBody:
		return nil, &wrongError{fmt.Errorf("more than %d bytes", maxBody)}
	}
	if r.Check != nil {
		if err := r.Check(body); err != nil {
			return nil, &wrongError{err}
		}
	}
	return body, nil
}

// count puts a request that is over where it belongs.
func (c *Client) count(r *Request, took time.Duration, err error) {
	name := r.stream()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[name]
	if s == nil {
		s = &stream{}
		c.streams[name] = s
	}
	s.Arrived++
	var wrong *wrongError
	switch {
	case err == nil:
		s.Good++
		s.latency.add(took)
		s.recent.add(took)
	case errors.Is(err, errUnsent):
		s.Unsent++
	case errors.Is(err, ErrRefused):
		s.Refused++
	case errors.Is(err, ErrLate):
		s.Late++
	case errors.As(err, &wrong):
		s.Wrong++
	default:
		s.Failed++
	}
}

// Tally is what a load generator says of itself, cumulative since its start.
type Tally struct {
	Counts
	Streams map[string]Stream `json:"streams"`
	P50     Seconds           `json:"p50_seconds"` // latency of good answers, from arrival
	P99     Seconds           `json:"p99_seconds"`
	Recent  Seconds           `json:"recent_p99_seconds"` // of those since the last report
}

// Stream is what became of one kind of requests.
type Stream struct {
	Counts
	P50 Seconds `json:"p50_seconds"`
	P99 Seconds `json:"p99_seconds"`
}

func (c *Client) tally() (t Tally) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t.Streams = map[string]Stream{}
	var all, recent histogram
	for name, s := range c.streams {
		t.Counts.add(s.Counts)
		t.Streams[name] = Stream{s.Counts, s.latency.seconds(0.5), s.latency.seconds(0.99)}
		all.merge(&s.latency)
		recent.merge(&s.recent)
		s.recent = histogram{}
	}
	t.P50, t.P99, t.Recent = all.seconds(0.5), all.seconds(0.99), recent.seconds(0.99)
	return t
}
