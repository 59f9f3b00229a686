// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/memguard/memguard-go/bench/lab"
)

// unit does one unit of work if the contender lets it, and reports it. It is for
// services that drive themselves: one that was refused waits a little, as a
// client would, before it comes back with the next unit.
func unit(ctx context.Context, h *lab.Host, route string, do func()) {
	leave, ok := h.Hooks.Enter(ctx, route)
	if !ok {
		pause(ctx, time.Millisecond)
		return
	}
	defer leave()
	do()
	h.Done(1)
}

// pause waits for d, and says whether the run still goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// paced calls do perSecond times in each second, at even intervals, until ctx
// ends. After a stall it makes up for at most a quarter of a second: a rate has
// to survive a busy machine, but a stall must not turn into a burst.
func paced(ctx context.Context, perSecond float64, do func()) {
	const most = 250 * time.Millisecond
	interval := time.Duration(float64(time.Second) / perSecond)
	next := time.Now()
	for {
		now := time.Now()
		if behind := now.Sub(next); behind > most {
			next = now.Add(-most)
		}
		for ; !next.After(now); next = next.Add(interval) {
			if ctx.Err() != nil {
				return
			}
			do()
		}
		// No shorter than a millisecond: high rates come in small batches.
		if !pause(ctx, max(time.Until(next), time.Millisecond)) {
			return
		}
	}
}

// onAllCores runs do over and over on as many goroutines as Go uses cores, until ctx ends.
func onAllCores(ctx context.Context, do func()) {
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for ctx.Err() == nil {
				do()
			}
		})
	}
	wg.Wait()
}

// order is the document that the services read and write: some forty lines,
// 5 KiB of JSON.
type order struct {
	ID       string            `json:"id"`
	Customer string            `json:"customer"`
	Lines    []orderLine       `json:"lines"`
	Labels   map[string]string `json:"labels"`
}

type orderLine struct {
	SKU      string  `json:"sku"`
	Quantity int     `json:"quantity"`
	Price    float64 `json:"price"`
	Note     string  `json:"note"`
}

var sampleOrder = func() order {
	o := order{ID: "o-1", Customer: "c-1", Labels: map[string]string{"channel": "web", "region": "north"}}
	for i := range 40 {
		o.Lines = append(o.Lines, orderLine{
			SKU: fmt.Sprintf("sku-%06d", i), Quantity: i + 1, Price: 9.95 * float64(i+1),
			Note: "leave with the neighbour if nobody is in, ring twice",
		})
	}
	return o
}()

// churn encodes and decodes an order. That takes some hundred microseconds and
// leaves 20 KiB of garbage. It panics if an order does not survive the way there and back.
func churn() {
	text := bytes.NewBuffer(make([]byte, 0, 8*kib))
	if err := json.NewEncoder(text).Encode(&sampleOrder); err != nil {
		panic(err)
	}
	var o order
	if err := json.Unmarshal(text.Bytes(), &o); err != nil {
		panic(err)
	}
	if len(o.Lines) != len(sampleOrder.Lines) {
		panic(fmt.Sprintf("scenario: order came back with %d lines, not %d", len(o.Lines), len(sampleOrder.Lines)))
	}
}

// node is 1 KiB of live heap in a linked list: the collector has to follow it
// from one to the next. Eight bytes of it are the header that the runtime puts
// before an object of more than 512 bytes with pointers (runtime/malloc.go,
// mallocHeaderSize): with them it just fits into its size class.
type node struct {
	next *node
	id   int
	_    [kib - 8 - 16]byte
}

// nodes is so many bytes of live heap, every page of it written to. They are
// linked in 256 lists, as in the buckets of a hash table: in a single one, the
// collector could not mark the next before it has read the last.
func nodes(bytes uint64) []*node {
	n := int(bytes / kib)
	heads := make([]*node, min(n, 256))
	for i := range n {
		head := &heads[i%len(heads)]
		*head = &node{next: *head, id: i}
	}
	return heads
}

// block is n bytes with every page written to.
func block(n uint64) []byte {
	b := make([]byte, n)
	touch(b)
	return b
}

// touch writes one byte to each page of b.
func touch(b []byte) {
	const page = 4 * kib
	for i := 0; i < len(b); i += page {
		b[i] = 1
	}
}
