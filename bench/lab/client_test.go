// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestClientCounts(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/good":
			b, _ := io.ReadAll(r.Body)
			io.WriteString(w, r.Method+" "+string(b))
		case "/refused":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/moved":
			http.Redirect(w, r, "/good", http.StatusFound)
		case "/never":
			w.(http.Flusher).Flush() // the head alone is no answer
			select {
			case <-r.Context().Done():
			case <-release:
			}
		case "/broken":
			panic(http.ErrAbortHandler)
		}
	}))
	defer srv.Close()
	defer close(release)
	c := newClient(strings.TrimPrefix(srv.URL, "http://"), 1, 1)
	picky := func([]byte) error { return errors.New("not what I ordered") }
	for _, tt := range []struct {
		r    Request
		body string
		want Counts
	}{
		{Request{Path: "/good"}, "GET ", Counts{Arrived: 1, Good: 1}},
		{Request{Path: "/good", Body: []byte("x"), Stream: "post"}, "POST x", Counts{Arrived: 1, Good: 1}},
		{Request{Path: "/good", Check: picky, Stream: "picky"}, "", Counts{Arrived: 1, Wrong: 1}},
		{Request{Path: "/refused"}, "", Counts{Arrived: 1, Refused: 1}},
		{Request{Path: "/moved"}, "", Counts{Arrived: 1, Wrong: 1}},
		{Request{Path: "/never", Deadline: 20 * time.Millisecond}, "", Counts{Arrived: 1, Late: 1}},
		{Request{Path: "/broken"}, "", Counts{Arrived: 1, Failed: 1}},
	} {
		body, err := c.Do(t.Context(), tt.r)
		assert.Equal(t, tt.want.Good == 1, err == nil, "%s: %v", tt.r.Path, err)
		assert.Equal(t, tt.body, string(body))
		name := tt.r.stream()
		s := c.tally().Streams[name]
		assert.Equal(t, tt.want, s.Counts, name)
		_, known := s.P99.Value()
		assert.Equal(t, tt.want.Good == 1, known, "only good answers have a latency")
	}
	assert.Equal(t, Counts{Arrived: 7, Good: 2, Refused: 1, Wrong: 2, Late: 1, Failed: 1}, c.tally().Counts)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Do(ctx, Request{Path: "/good", Stream: "after the end"})
	assert.ErrorIs(t, err, context.Canceled)
	assert.NotContains(t, c.tally().Streams, "after the end", "the service did not fail")
}

// answer is a service without a network.
type answer func(*http.Request) (*http.Response, error)

func (f answer) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// The load is open: it keeps to its rate while the service stands still, counts
// the wait from the arrival, and waits in the end for what is due.
func TestRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClient("service", 1, 1)
		start := time.Now()
		c.http.Transport = answer(func(r *http.Request) (*http.Response, error) {
			if wait := time.Until(start.Add(9 * time.Second)); wait > 0 && r.URL.Path == "/stands" {
				select {
				case <-r.Context().Done():
					return nil, r.Context().Err()
				case <-time.After(wait):
				}
			}
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		require.NoError(t, c.Rate(ctx, 100, Request{Path: "/stands", Deadline: 5 * time.Second}))
		assert.Zero(t, c.inFlight.Load())
		got := c.tally()
		assert.InDelta(t, 1000, got.Arrived, 5*math.Sqrt(1000), "Poisson: five deviations")
		assert.InDelta(t, 400, got.Late, 5*math.Sqrt(400), "those of the first four seconds")
		assert.Equal(t, got.Arrived, got.Good+got.Late)
		p99, ok := got.P99.Value()
		assert.True(t, ok)
		assert.InDelta(t, 5, p99, 0.35)
	})
}

// What the generator cannot hold is not sent, and not forgotten.
func TestRateUnsent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClient("service", 1, 1)
		c.http.Transport = answer(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NoError(t, c.Rate(ctx, 20000, Request{Path: "/", Deadline: time.Minute}))
		got := c.tally()
		assert.EqualValues(t, maxInFlight, got.Late)
		assert.Equal(t, got.Arrived, got.Late+got.Unsent)
		assert.Positive(t, got.Unsent)
	})
}

// The same seed brings the same arrivals, whoever is under test.
func TestGaps(t *testing.T) {
	t.Parallel()
	first := func(seed uint64, path string) float64 {
		return newClient("service", 1, seed).gaps(&Request{Path: path})()
	}
	assert.Equal(t, first(1, "/a"), first(1, "/a"))
	assert.NotEqual(t, first(1, "/a"), first(2, "/a"))
	assert.NotEqual(t, first(1, "/a"), first(1, "/b"))
}

func TestRateWantsARate(t *testing.T) {
	t.Parallel()
	for _, rate := range []float64{0, -1, math.NaN()} {
		assert.ErrorContains(t, newClient("service", 1, 1).Rate(t.Context(), rate, Request{}), "want one above zero")
	}
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	var h histogram
	_, ok := h.quantile(0.5)
	assert.False(t, ok, "nothing is not zero")
	for i := 1; i <= 1000; i++ {
		h.add(time.Duration(i) * time.Millisecond)
	}
	for _, q := range []float64{0.001, 0.5, 0.99, 1} {
		got, ok := h.quantile(q)
		require.True(t, ok)
		want := q * float64(time.Second)
		assert.GreaterOrEqual(t, float64(got), want)
		assert.LessOrEqual(t, float64(got), want*1.0626+float64(time.Microsecond))
	}
	for i := range 40 * sub { // each bucket begins where the one before ends
		if i > 0 {
			assert.Equal(t, i, index(upper(i-1)))
		}
		assert.Equal(t, i, index(upper(i)-1))
	}
	h.add(1 << 62)
	h.add(-1)
	assert.EqualValues(t, 1002, h.n)
}
