// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/memguard/memguard-go/bench/lab"
)

// A request holds a 128th of the limit, 1 MiB of 128, for 50 to 200 ms. If 9/16
// of the limit is for requests and the rest for connections, stacks, garbage and
// the runtime, then 72 fit at a time, and 72 / 125 ms = 576 in a second is what
// the service has room for: more than that is overload.
const (
	requestsToLimit = 128
	requestsAtOnce  = requestsToLimit * 9 / 16
	holdLeast       = 50 * time.Millisecond
	holdMost        = 200 * time.Millisecond
	capacity        = requestsAtOnce * int(2*time.Second/(holdLeast+holdMost)) // requests per second
)

var (
	overload2x = overload(2, "Twice as many requests as there is room for: plain Go takes them all.")
	overload3x = overload(3, "Three times as many requests as there is room for.")
	overload5x = overload(5, "Five times as many requests as there is room for: even refusing has its price.")
	overload7x = overload(7, "4000 requests a second, seven times as many as there is room for: the connections themselves hold memory before anybody can refuse a request.")
)

func overload(times int, story string) lab.Scenario {
	return lab.Scenario{
		Name: fmt.Sprintf("overload-%dx", times),
		Story: story + fmt.Sprintf(" Each holds a %dth of the limit for 50 to 200 ms; "+
			"they come in an open loop, so the service cannot slow its clients down.", requestsToLimit),
		Claim:      "A breaker that sets GC percent to 100, 50 and 200 saves a service under load.",
		Limit:      128 * mib,
		Duration:   7 * time.Second,
		Survivable: true,
		Best: fmt.Sprintf("Up to %d good answers a second of %d, as far as the cores go, and a quick refusal for the rest: what a semaphore of the right size would reach, and a little more.",
			capacity, times*capacity),
		Victim: func(ctx context.Context, h *lab.Host) error {
			mux := http.NewServeMux()
			mux.HandleFunc("/work", func(w http.ResponseWriter, r *http.Request) {
				seed, err := strconv.ParseUint(r.URL.Query().Get("seed"), 10, 64)
				if err != nil {
					http.Error(w, err.Error(), http.StatusBadRequest)
					return
				}
				held := block(h.Limit / requestsToLimit)
				held[0] = byte(seed)
				pause(r.Context(), holdLeast+rand.N(holdMost-holdLeast))
				fmt.Fprint(w, digest(held[:4*kib]))
			})
			return h.Serve(ctx, mux)
		},
		Load: func(ctx context.Context, c *lab.Client) error {
			want := make([]byte, 4*kib)
			want[0] = 7
			good := digest(want)
			return c.Rate(ctx, float64(times*capacity), lab.Request{Path: "/work?seed=7", Check: func(body []byte) error {
				if string(body) != good {
					return fmt.Errorf("digest %q, want %q", body, good)
				}
				return nil
			}})
		},
	}
}

func digest(b []byte) string {
	sum := crc32.ChecksumIEEE(b)
	return hex.EncodeToString([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
}
