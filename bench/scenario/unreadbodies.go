// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bytes"
	"context"
	"net/http"
	"time"

	"github.com/memguard/memguard-go/bench/lab"
)

const unreadRate = 150 // calls per second

var unreadBodies = lab.Scenario{
	Name: "unread-bodies",
	Story: "A service asks an upstream, looks at the status and forgets to close the body. " +
		"Each call leaves the readLoop and the writeLoop of a connection behind, with its buffers and the request's own body; the handler itself is long gone.",
	Claim:      `A leaking client shows as "http: aborting pending request" and is mended by RoundTripper calling req.Cancel.`,
	Limit:      128 * mib,
	Duration:   11 * time.Second,
	Cause:      []string{"goroutine-leak", "goroutine-growth"},
	Survivable: true,
	Best:       "Every unit of orders, and calls refused from the time when they hold their part of the memory: they are over when their memory is not, so it takes the goroutines to tell.",
	Victim: func(ctx context.Context, h *lab.Host) error {
		up, err := talkativeUpstream(ctx)
		if err != nil {
			return err
		}
		client := &http.Client{Transport: &http.Transport{}}
		go paced(ctx, healthyRate, func() { unit(ctx, h, "orders", churn) })
		var failed error
		paced(ctx, unreadRate, func() {
			unit(ctx, h, "calls", func() {
				resp, err := client.Post("http://"+up+"/search", "text/plain", bytes.NewReader(block(basketBytes(h.Limit))))
				if err != nil {
					if ctx.Err() == nil { // else the upstream has ended with the run
						failed = err
					}
					return
				}
				_ = resp.StatusCode // and no resp.Body.Close: here is the bug
			})
		})
		return failed
	},
}
