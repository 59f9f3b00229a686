// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/memguard/memguard-go/bench/lab"
)

const (
	fragmentThousandths = 562  // of the limit are small objects at first: 90 of 160 MiB
	cacheThousandths    = 500  // of the limit are larger objects afterwards
	cacheObject         = 4608 // bytes on average
	putsPerSecond       = 150
)

// putObjects is how many objects there are to a unit of work: the cache is full
// after two seconds.
func putObjects(limit uint64) uint64 {
	return share(limit, cacheThousandths) / cacheObject / (2 * putsPerSecond)
}

var fragmentation = lab.Scenario{
	Name: "fragmentation",
	Story: "An index of 16 to 64-byte entries shrinks to one survivor per span: half of the limit is pinned by next to nothing, and only objects of the same size fit into the holes. " +
		"Then a cache of 1 to 8 KiB objects grows beside it.",
	Claim:      "HeapInuse less HeapAlloc is stranded in the mcaches, and MSpanInuse times 8192 says how much.",
	Limit:      160 * mib,
	Duration:   8 * time.Second,
	Cause:      []string{"span-fragmentation"},
	Survivable: true,
	Best:       "Every unit of work, after the index was copied once: no collection moves an object, so only the service itself can close the holes.",
	Victim: func(ctx context.Context, h *lab.Host) error {
		var idx index
		idx.fill(share(h.Limit, fragmentThousandths))
		idx.expire()
		h.Hooks.OnCompact(idx.compact)
		cache := make([][]byte, share(h.Limit, cacheThousandths)/cacheObject)
		puts := 0
		paced(ctx, putsPerSecond, func() {
			unit(ctx, h, "puts", func() {
				for range putObjects(h.Limit) {
					cache[puts%len(cache)] = block(uint64(1+puts%8) * kib)
					puts++
				}
			})
		})
		runtime.KeepAlive(&idx)
		return nil
	},
}

// index holds small entries in lists, each of which is allocated in spans of its
// own size class.
type index struct {
	mu        sync.Mutex // guards what follows
	young     any        // the bulk
	survivors any        // one for each span of 8 KiB
}

// The entries are of 16, 32, 48 and 64 bytes. Their first word pair leads to the
// next in the list, whatever its size.
type (
	entry16 struct{ next any }
	entry32 struct {
		next any
		_    [16]byte
	}
	entry48 struct {
		next any
		_    [32]byte
	}
	entry64 struct {
		next any
		_    [48]byte
	}
)

// newEntry makes an entry of the i-th size, and says how many bytes it has.
func newEntry(i int, next any) (e any, size uint64) {
	switch i % 4 {
	case 0:
		return &entry16{next}, 16
	case 1:
		return &entry32{next: next}, 32
	case 2:
		return &entry48{next: next}, 48
	default:
		return &entry64{next: next}, 64
	}
}

// next is the entry after e, nil if there is none.
func next(e any) any {
	switch e := e.(type) {
	case *entry16:
		return e.next
	case *entry32:
		return e.next
	case *entry48:
		return e.next
	case *entry64:
		return e.next
	}
	return nil
}

func (x *index) fill(bytes uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	const span = 8 * kib
	var filled [4]uint64 // of the present span of each size
	for i := 0; bytes >= 64; i++ {
		var e any
		var size uint64
		if filled[i%4] == 0 {
			e, size = newEntry(i, x.survivors)
			x.survivors = e
		} else {
			e, size = newEntry(i, x.young)
			x.young = e
		}
		if filled[i%4] += size; filled[i%4] > span-size {
			filled[i%4] = 0
		}
		bytes -= size
	}
}

// expire drops all but the survivors.
func (x *index) expire() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.young = nil
}

// compact copies the survivors next to each other. Their old spans are empty
// after the next collection.
func (x *index) compact() {
	x.mu.Lock()
	defer x.mu.Unlock()
	var copied any
	for e := x.survivors; e != nil; e = next(e) {
		switch e.(type) {
		case *entry16:
			copied, _ = newEntry(0, copied)
		case *entry32:
			copied, _ = newEntry(1, copied)
		case *entry48:
			copied, _ = newEntry(2, copied)
		case *entry64:
			copied, _ = newEntry(3, copied)
		}
	}
	x.survivors = copied
}
