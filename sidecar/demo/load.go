// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/memguard/memguard-go/memguard"
)

// The load is open: orders come at their own rate, whether or not the service
// keeps up, as customers do. They are steady with a burst every four seconds.
// The service holds a mebibyte for each, for a second: the steady rate needs an
// eighth of 128 MiB, and a burst all of it. The CPU would do for both.
const (
	steadyRate = 16.0  // orders per second
	burstRate  = 130.0 // and in a burst
	orderLines = 300   // of an order: 70 KiB of JSON
	deadline   = 5 * time.Second
	mostAtOnce = 2000 // what the demo itself has in the air: beyond it an order counts as failed
)

// rate is the load at so many seconds after its begin, in orders per second.
func rate(second float64) float64 {
	if math.Mod(second, 4) >= 2 {
		return burstRate
	}
	return steadyRate
}

// load sends orders and counts what becomes of them.
type load struct {
	body    []byte
	digest  string // of body, which a good answer has
	client  *http.Client
	url     atomic.Pointer[string] // of the service that is up, or was last
	inAir   atomic.Int64
	done    sync.WaitGroup
	refused atomic.Uint64
	failed  atomic.Uint64

	mu   sync.Mutex
	good []time.Duration // from when the order came to the end of its answer
}

func newLoad() *load {
	body := order()
	digest := sha256.Sum256(body)
	return &load{
		body: body, digest: hex.EncodeToString(digest[:]),
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: mostAtOnce}},
	}
}

// order is what a dealer sends.
func order() []byte {
	b := []byte(`{"customer":"dealer 17","lines":[`)
	for i := range orderLines {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"sku":"part-%06d","note":"gasket, copper, %d mm, in packs of ten; leave them with the porter if nobody is in the store, and ring twice; what cannot be had is to be struck off the order, not kept for later","quantity":%d,"price":%d.5}`, i, 8+i%40, 1+i%9, 1+i%90)
	}
	return append(b, "]}"...)
}

// run sends orders until ctx ends. What is under way then may still be answered,
// until answers ends.
func (l *load) run(ctx, answers context.Context) {
	begin := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	due, last := 0.0, 0.0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Since(begin).Seconds()
		for due += rate(now) * (now - last); due >= 1; due-- {
			l.send(answers)
		}
		last = now
	}
}

// send sends one order, or counts it as failed where there are too many.
func (l *load) send(ctx context.Context) {
	if l.inAir.Add(1) > mostAtOnce {
		l.inAir.Add(-1)
		l.failed.Add(1)
		return
	}
	l.done.Go(func() {
		defer l.inAir.Add(-1)
		ctx, cancel := context.WithTimeout(ctx, deadline)
		defer cancel()
		came := time.Now()
		switch err := l.order(ctx); {
		case err == nil:
			l.mu.Lock()
			l.good = append(l.good, time.Since(came))
			l.mu.Unlock()
		case errors.Is(err, errRefused):
			l.refused.Add(1)
		default:
			l.failed.Add(1)
		}
	})
}

var errRefused = errors.New("refused")

// order sends one order and looks at its whole answer.
func (l *load) order(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, *l.url.Load()+"/orders", bytes.NewReader(l.body))
	if err != nil {
		return err
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode == http.StatusServiceUnavailable:
		return errRefused
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("status %s", resp.Status)
	}
	var receipt struct{ SHA256 string }
	if err := json.Unmarshal(answer, &receipt); err != nil {
		return err
	}
	if receipt.SHA256 != l.digest {
		return errors.New("a receipt for another order")
	}
	return nil
}

// count says what became of the orders, when all have an answer or none any more.
func (l *load) count(life *Life) {
	l.done.Wait()
	l.client.CloseIdleConnections()
	life.Good, life.Refused, life.Failed = uint64(len(l.good)), l.refused.Load(), l.failed.Load()
	slices.SortFunc(l.good, cmp.Compare)
	if n := len(l.good); n > 0 {
		life.P99 = memguard.Known(l.good[(n-1)*99/100].Seconds())
	}
}
