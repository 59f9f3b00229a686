// SPDX-License-Identifier: Apache-2.0

package overhead

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"
)

// The load: mostly small requests, some large ones, and pauses. It is open-loop:
// requests come when they come, whether or not the service keeps up, and their
// latency counts from then.
const (
	perSecond = 1000                    // while it does not pause; tests have fewer
	busy      = 1500 * time.Millisecond // then it pauses
	pausing   = 500 * time.Millisecond
	patience  = 10 * time.Second // with one answer

	batchOf   = 60   // documents in a large request: 370 KiB
	largePart = 0.01 // of the requests
	writePart = 0.3
)

// tally is what became of the requests.
type tally struct {
	Answered uint64
	Refused  uint64  // 503
	Failed   uint64  // anything else
	P50, P99 float64 // seconds, of those answered; 0 if none was
	Error    string  `json:",omitempty"` // of one that failed
}

// load sends requests and counts what comes back.
type load struct {
	http   *http.Client
	small  []byte // the body of a write
	large  []byte
	mu     sync.Mutex
	tally  tally
	delays []time.Duration
}

func playLoad() error {
	l := &load{http: &http.Client{
		Timeout:   patience,
		Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
	}}
	batch := make([]document, batchOf)
	for i := range batch {
		batch[i] = newDocument(i)
	}
	var err error
	if l.small, err = json.Marshal(batch[0]); err != nil {
		return err
	}
	if l.large, err = json.Marshal(batch); err != nil {
		return err
	}
	return obey(func(o order) (any, error) {
		switch o.Do {
		case send:
			return l.send(o.To.usual(), o.For, o.Rate, o.Seed), nil
		case pair:
			return l.pairs(o)
		}
		return nil, errOrder
	})
}

// send sends for a while, and waits for the answers. The same seed gives the same
// requests at the same times.
func (l *load) send(addr string, d time.Duration, rate float64, seed uint64) tally {
	l.tally, l.delays = tally{}, nil
	r := rand.New(rand.NewPCG(seed, 0))
	var pending sync.WaitGroup
	start := time.Now()
	for at := time.Duration(0); ; {
		at += time.Duration(r.ExpFloat64() / rate * float64(time.Second))
		if at%(busy+pausing) >= busy {
			at = (at/(busy+pausing) + 1) * (busy + pausing)
		}
		if at >= d {
			break
		}
		kind, id := r.Float64(), r.IntN(documents)
		time.Sleep(time.Until(start.Add(at)))
		pending.Go(func() { l.one(addr, start.Add(at), kind, id) })
	}
	time.Sleep(time.Until(start.Add(d))) // also where it ends with a pause
	pending.Wait()
	t := l.tally
	if slices.Sort(l.delays); len(l.delays) > 0 {
		t.P50 = l.delays[len(l.delays)/2].Seconds()
		t.P99 = l.delays[len(l.delays)*99/100].Seconds()
	}
	return t
}

// one sends the request that kind in [0,1) says.
func (l *load) one(addr string, at time.Time, kind float64, id int) {
	method, path, body := http.MethodGet, fmt.Sprint("/documents/", id), []byte(nil)
	switch {
	case kind < largePart:
		method, path, body = http.MethodPost, "/batch", l.large
	case kind < largePart+writePart:
		method, body = http.MethodPut, l.small
	}
	status, _, err := l.exchange(method, "http://"+addr+path, body)
	took := time.Since(at)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil && status == http.StatusOK:
		l.tally.Answered++
		l.delays = append(l.delays, took)
	case err == nil && status == http.StatusServiceUnavailable:
		l.tally.Refused++
	default:
		l.tally.Failed++
		if err == nil {
			err = fmt.Errorf("%s %s: status %d", method, path, status)
		}
		l.tally.Error = err.Error()
	}
}

func (l *load) exchange(method, url string, body []byte) (status int, header http.Header, err error) {
	req, err := http.NewRequestWithContext(context.Background(), method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	resp, err := l.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.Header, err
}
