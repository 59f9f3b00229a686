// SPDX-License-Identifier: Apache-2.0

package shed

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func ample() *Limiter {
	l := New(Config{})
	l.SetLook(func() (uint64, bool) { return 100 * mib, true })
	l.Update(Memory{Limit: 1 << 40, Usage: 100 * mib, Must: 20 * mib})
	return l
}

func BenchmarkEnter(b *testing.B) {
	l, w := ample(), Work{Route: "work"}
	b.ReportAllocs()
	for b.Loop() {
		leave, err := l.Enter(b.Context(), w)
		if err != nil {
			b.Fatal(err)
		}
		leave()
	}
}

func BenchmarkEnterParallel(b *testing.B) {
	l, w := ample(), Work{Route: "work"}
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			leave, err := l.Enter(ctx, w)
			if err != nil {
				b.Fatal(err)
			}
			leave()
		}
	})
}

func BenchmarkRefuse(b *testing.B) {
	l := New(Config{Wait: -1})
	l.Update(Memory{Limit: 128 * mib, Usage: 127 * mib, Must: 127 * mib})
	w := Work{Route: "work"}
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		l.enter(ctx, w)
	}
}

type nowhere struct{ h http.Header }

func (n *nowhere) Header() http.Header         { return n.h }
func (n *nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (n *nowhere) WriteHeader(int)             {}

// What the middleware costs on top of a mux.
func BenchmarkHandler(b *testing.B) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /items/{id}", func(http.ResponseWriter, *http.Request) {})
	r := httptest.NewRequest("GET", "/items/1", nil)
	for _, bb := range []struct {
		name string
		h    http.Handler
	}{{"mux", mux}, {"limiter", ample().Handler(mux)}} {
		b.Run(bb.name, func(b *testing.B) {
			w := &nowhere{http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				bb.h.ServeHTTP(w, r)
			}
		})
	}
}
