// SPDX-License-Identifier: Apache-2.0

package shed

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
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

// What the middleware costs on top of a mux: for a pattern with a wildcard the mux
// routes twice, for one without only once. (To set the path values ourselves instead
// was tried: it costs as much, for a request from outside keeps them in a map.) Both
// sides take turns, and the ratio is of their sums.
func BenchmarkHandler(b *testing.B) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /items/{id}", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /items/all", func(http.ResponseWriter, *http.Request) {})
	limited := ample().Handler(mux)
	for _, bb := range []struct{ name, path string }{{"wildcard", "/items/1"}, {"static", "/items/all"}} {
		b.Run(bb.name, func(b *testing.B) {
			w := &nowhere{http.Header{}}
			serve := func(h http.Handler) time.Duration {
				r := httptest.NewRequest("GET", bb.path, nil)
				start := time.Now()
				for range 100 {
					fresh := *r
					h.ServeHTTP(w, &fresh)
				}
				return time.Since(start)
			}
			var plain, with time.Duration
			b.ReportAllocs()
			for b.Loop() {
				plain += serve(mux)
				with += serve(limited)
			}
			n := float64(100 * b.N)
			b.ReportMetric(float64(plain)/n, "mux-ns")
			b.ReportMetric(float64(with)/n, "limiter-ns")
			b.ReportMetric(float64(with)/float64(plain), "ratio")
		})
	}
}
