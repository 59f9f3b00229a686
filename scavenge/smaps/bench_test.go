// SPDX-License-Identifier: Apache-2.0

package smaps

import (
	"bytes"
	"math"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// recorded is the smaps of a program with cgo and eight threads: 94 mappings.
func recorded(b *testing.B) []byte {
	text, err := os.ReadFile("testdata/go1.26-cgo.smaps")
	require.NoError(b, err)
	return parseFixture(b, text).smaps
}

// BenchmarkReader is the parser alone, on 1 MiB of text in memory. best-MB/s is the fastest round, which
// is the one that nobody else disturbed.
func BenchmarkReader(b *testing.B) {
	text := recorded(b)
	text = bytes.Repeat(text, 1<<20/len(text))
	src := bytes.NewReader(text)
	r := NewReader(src)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	best := time.Duration(math.MaxInt64)
	for b.Loop() {
		start := time.Now()
		src.Reset(text)
		r.Reset(src)
		for r.Scan() {
		}
		best = min(best, time.Since(start))
	}
	b.ReportMetric(float64(len(text))/best.Seconds()/1e6, "best-MB/s")
	errs, n := r.SyntaxErrors()
	require.Zero(b, n, "%v", errs)
	require.NoError(b, r.Err())
}
