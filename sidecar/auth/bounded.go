// SPDX-License-Identifier: Apache-2.0

package auth

import "sync"

// bounded is a map that drops any of its entries when it is full. What is in it can
// be found again at a cost, so it need not be the oldest.
type bounded[K comparable, V any] struct {
	max int
	mu  sync.Mutex
	m   map[K]V
}

func (b *bounded[K, V]) get(k K) (v V, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v, ok = b.m[k]
	return v, ok
}

// getOr returns the entry of k, and makes it if there is none.
func (b *bounded[K, V]) getOr(k K, v func() V) V {
	b.mu.Lock()
	defer b.mu.Unlock()
	if old, ok := b.m[k]; ok {
		return old
	}
	if b.m == nil {
		b.m = map[K]V{}
	}
	for drop := range b.m {
		if len(b.m) < b.max {
			break
		}
		delete(b.m, drop)
	}
	made := v()
	b.m[k] = made
	return made
}
