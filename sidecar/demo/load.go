// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The load is open: orders come at their own rate, whether or not the service
// keeps up, as customers do.
const (
	ordersPerSecond = 200
	orderBytes      = 32 << 10
	inFlight        = 64 // beyond this an order is not sent and counts as failed
)

type load struct {
	answered, failed atomic.Uint64
	cancel           context.CancelFunc
	done             sync.WaitGroup
}

func startLoad(ctx context.Context, url string) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{cancel: cancel}
	body := fmt.Appendf(nil, `{"customer":"c1","items":[{"sku":"a","quantity":2,"note":%q}]}`, strings.Repeat("n", orderBytes))
	client := &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: inFlight},
	}
	slots := make(chan struct{}, inFlight)
	l.done.Go(func() {
		tick := time.NewTicker(time.Second / ordersPerSecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			select {
			case slots <- struct{}{}:
			default:
				l.failed.Add(1)
				continue
			}
			l.done.Go(func() {
				defer func() { <-slots }()
				if order(ctx, client, url, n, body) == nil {
					l.answered.Add(1)
				} else {
					l.failed.Add(1)
				}
			})
		}
	})
	return l
}

// stop ends the load and waits for the requests under way.
func (l *load) stop() {
	l.cancel()
	l.done.Wait()
}

// order sends one order and reads its whole answer.
func order(ctx context.Context, client *http.Client, url string, n int, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/orders", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Idempotency-Key", fmt.Sprint(n))
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	return nil
}
