// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"encoding/json"
	"net/http"
	"runtime"
	"time"

	"github.com/memguard/memguard-go/bench/lab"
)

var steady = lab.Scenario{
	Name: "steady",
	Story: "A healthy service: a quarter of the limit is live, requests read and write orders, half of one core is busy. " +
		"Nothing is wrong, and a guard that costs, refuses, accuses or moves settings to and fro is worse than none.",
	Claim:      "Low traffic makes the pacer sample wrongly and collect too early.",
	Limit:      256 * mib,
	Duration:   10 * time.Second,
	Survivable: true,
	Best:       "Every answer, at the latency that plain Go has; no finding, no change of a setting.",
	Victim: func(ctx context.Context, h *lab.Host) error {
		heap := nodes(share(h.Limit, 250))
		mux := http.NewServeMux()
		mux.HandleFunc("GET /orders", serveOrder)
		mux.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) {
			var o order
			if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, mib)).Decode(&o); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			serveOrder(w, r)
		})
		err := h.Serve(ctx, mux)
		runtime.KeepAlive(heap)
		return err
	},
	Load: func(ctx context.Context, c *lab.Client) error {
		body, err := json.Marshal(&sampleOrder)
		if err != nil {
			return err
		}
		return both(
			func() error { return c.Rate(ctx, 300, lab.Request{Stream: "read", Path: "/orders", Check: checkOrder}) },
			func() error {
				return c.Rate(ctx, 150, lab.Request{Stream: "write", Path: "/orders", Body: body, Check: checkOrder})
			},
		)
	},
}
