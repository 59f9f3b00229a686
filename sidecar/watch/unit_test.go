// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/agent"
	"github.com/memguard/memguard-go/sidecar/target"
)

func ledger(usage uint64) *memguard.Ledger {
	return &memguard.Ledger{
		RSS: memguard.Known[uint64](70 << 20),
		Rows: []memguard.Row{
			{Name: memguard.RowLive, Bytes: memguard.Known[int64](40 << 20)},
			{Name: memguard.RowFree, Bytes: memguard.Known[int64](20 << 20)},
			{Name: memguard.RowMetadata, Bytes: memguard.Known[int64](8 << 20)},
			{Name: memguard.RowUntouched, Bytes: memguard.Known[int64](-10 << 20)},
			{Name: memguard.RowAnon, Bytes: memguard.Known[int64](2 << 20)},
			{Name: memguard.RowFile, Bytes: memguard.Known[int64](10 << 20)},
			{Name: memguard.RowBinary},
		},
		Cgroup: &memguard.CgroupLedger{
			Usage: memguard.Known(usage), Limit: memguard.Known[uint64](128 << 20),
			Rows: []memguard.Row{
				{Name: memguard.RowProcesses, Bytes: memguard.Known[int64](65 << 20)},
				{Name: memguard.RowCacheActive, Bytes: memguard.Known[int64](3 << 20)},
				{Name: memguard.RowKernel, Bytes: memguard.Known[int64](1 << 20)},
			},
		},
	}
}

func TestTimelineRows(t *testing.T) {
	t.Parallel()
	var line timeline
	now := time.Now()
	line.add(now, 7, ledger(100<<20))
	got := line.read(now, time.Time{})
	require.Len(t, got.Points, 1)
	p := got.Points[0]
	assert.Equal(t, 7, p.PID)
	assert.Equal(t, memguard.Known[uint64](100<<20), p.Usage)
	assert.Equal(t, memguard.Known[uint64](128<<20), p.Limit)
	rows := map[string]int64{}
	for i, name := range got.Rows {
		if n, ok := p.Rows[i].Get(); ok {
			rows[name] = n >> 20
		}
	}
	assert.Equal(t, map[string]int64{
		memguard.RowLive: 40, memguard.RowFree: 18, memguard.RowMetadata: 0, memguard.RowAnon: 2, // 10 MiB were never touched
		RowOthers: 5, memguard.RowCacheActive: 3, memguard.RowKernel: 1, // files are page cache
	}, rows, "what is unknown is not there")
	line.add(now.Add(time.Second), 7, &memguard.Ledger{})
	got = line.read(now, time.Time{})
	_, ok := got.Points[1].Usage.Get()
	assert.False(t, ok)
}

// Days of looks stay bounded and in order, whatever the clock on the wall does,
// and the highest of each minute is kept.
func TestTimelineLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var line timeline
		begin := time.Now()
		for i := range 26 * 3600 {
			usage := uint64(10 << 20)
			if i == 3600*20+17 {
				usage = 99 << 20
			}
			line.add(time.Now(), 1, ledger(usage))
			time.Sleep(time.Second)
		}
		got := line.read(time.Now(), time.Time{})
		assert.LessOrEqual(t, len(got.Points), fineKept+secondKept+minuteKept)
		assert.Greater(t, len(got.Points), secondKept+minuteKept-20)
		high := 0
		for i, p := range got.Points {
			if i > 0 {
				assert.True(t, p.Time.After(got.Points[i-1].Time), "%d", i)
			}
			if p.Usage == memguard.Known[uint64](99<<20) {
				high++
				assert.Equal(t, 3600*20+17, int(p.Time.Sub(begin).Seconds()))
			}
		}
		assert.Equal(t, 1, high)
		since := line.read(time.Now(), time.Now().Add(-time.Minute))
		assert.InDelta(t, 60, len(since.Points), 1)
	})
}

func TestPace(t *testing.T) {
	t.Parallel()
	now := time.Now()
	const rest, cost = time.Second, 300 * time.Microsecond
	limit := memguard.Known[uint64](1 << 30)
	at := func(used ...float64) time.Duration { // a second apart
		var p pace
		var next time.Duration
		for i, u := range used {
			next = p.next(now.Add(time.Duration(i)*time.Second), memguard.Known(uint64(u*(1<<30))), limit, rest, cost)
		}
		return next
	}
	for _, c := range []struct {
		name string
		got  time.Duration
		want time.Duration
	}{
		{"half full", at(0.5, 0.5), rest},
		{"growing slowly", at(0.50, 0.51), rest},
		{"growing fast", at(0.5, 0.9), 12500 * time.Microsecond},
		{"about to hit it", at(0.5, 0.95), lookFastest},
		{"full for long: no more than a hundredth of a core", at(0.999, 0.999), lookShare * cost},
	} {
		assert.InDelta(t, c.want, c.got, float64(time.Millisecond), c.name)
	}
	var p pace
	assert.Equal(t, rest, p.next(now, memguard.Bytes{}, limit, rest, cost), "unknown")
	assert.Equal(t, rest, p.next(now, limit, memguard.Known[uint64](memguard.Unlimited), rest, cost))
	assert.Equal(t, rest, p.next(now, limit, memguard.Bytes{}, rest, cost))
}

func TestEvents(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &Watcher{events: newEvents()}
		got := make(chan []Event)
		go func() { got <- w.Events(t.Context(), 0) }()
		synctest.Wait()
		w.Note(Event{Kind: "control", Text: strings.Repeat("x", 1<<20) + "\xff"})
		es := <-got
		require.Len(t, es, 1)
		assert.EqualValues(t, 1, es[0].Seq)
		assert.Less(t, len(es[0].Text), 2*mostText)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		assert.Nil(t, w.Events(ctx, 1), "none came")
		for range 3 * eventsKept {
			w.Note(Event{})
		}
		es = w.Events(t.Context(), 5)
		assert.Len(t, es, eventsKept)
		for i, e := range es {
			assert.EqualValues(t, 1+3*eventsKept-eventsKept+1+i, e.Seq)
		}
		es = w.Events(t.Context(), es[len(es)-1].Seq-2)
		assert.Len(t, es, 2)

		// A target that has too many of them is quiet, and that is said.
		s := newSlot("api", 1)
		last := w.events.seq
		for range 1000 {
			w.event(s, Event{Kind: Sourced, Text: "flaps"})
		}
		assert.EqualValues(t, last+burst, w.events.seq)
		time.Sleep(refill)
		w.event(s, Event{Kind: Sourced, Text: "again"})
		es = w.Events(t.Context(), last+burst)
		require.Len(t, es, 2)
		assert.Equal(t, Lost, es[0].Kind)
		assert.Contains(t, es[0].Text, "936 events")
		time.Sleep(time.Hour)
		last = w.events.seq
		for range 2 * burst {
			w.event(s, Event{Kind: Sourced})
		}
		assert.EqualValues(t, last+burst, w.events.seq, "it may have as many again, and no more")
	})
}

func TestSlots(t *testing.T) {
	t.Parallel()
	w, err := New(Config{Rules: []target.Rule{{Name: "b", Command: "b"}, {Name: "a", Command: "a"}}})
	require.NoError(t, err)
	names := func() (out []string) {
		for _, st := range w.Targets() {
			out = append(out, st.Name)
		}
		return out
	}
	assert.Equal(t, []string{"b", "a"}, names(), "a rule without a process is a target that waits")
	for _, bad := range []target.Rule{
		{Name: "x"}, {Command: "x"}, {Name: "x", Command: "x", Pprof: "ftp://127.0.0.1/"}, {Name: "x", Command: "x", Pprof: "http://example.com/debug/pprof"},
	} {
		_, err := New(Config{Rules: []target.Rule{bad}})
		assert.Error(t, err, "%+v", bad)
	}
	_, err = New(Config{RemotePprof: true, Rules: []target.Rule{{Name: "x", Command: "x", Pprof: "http://example.com/debug/pprof"}}})
	assert.NoError(t, err)
}

// However many targets there are, looks at rest take no more than their share.
func TestRest(t *testing.T) {
	t.Parallel()
	w := &Watcher{cfg: Config{Interval: time.Second}, cost: 400 * time.Microsecond}
	assert.Zero(t, w.rest())
	for range 100 {
		w.slots = append(w.slots, &slot{life: &life{}}, &slot{})
	}
	assert.Equal(t, 3*time.Second, w.rest())
	w.cost = time.Second
	assert.Equal(t, 10*time.Second, w.rest(), "but a target is looked at")
}

func TestParseNumber(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text, line string
		want       memguard.Count
	}{
		{"42\n", "", memguard.Known[uint64](42)},
		{"max\n", "", memguard.Known[uint64](memguard.Unlimited)},
		{"low 0\noom 3\noom_kill 7\n", "oom_kill", memguard.Known[uint64](7)},
		{"low 0\noom 3\n", "oom_kill", memguard.Count{}},
		{"oom_kill -1\n", "oom_kill", memguard.Count{}},
		{"oom_kill 1 2\n", "oom_kill", memguard.Count{}},
		{"", "", memguard.Count{}},
		{"99999999999999999999999", "", memguard.Count{}},
	} {
		assert.Equal(t, c.want, parseNumber([]byte(c.text), c.line), "%q %q", c.text, c.line)
	}
}

// What a hostile agent answers is cut to a size, wherever it is.
func TestBound(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 1<<16)
	st := &agent.Status{Exe: long, Findings: make([]memguard.Finding, 5000), Ledger: &memguard.Ledger{Rows: make([]memguard.Row, 100_000)}, Hand: &agent.Hand{Why: long, Shed: &agent.Shed{Routes: make([]agent.Route, 1<<16)}}}
	st.Findings[0].Summary, st.Ledger.Rows[1].Name, st.Hand.Shed.Routes[2].Route = long, long, long
	bound(reflect.ValueOf(st))
	for _, s := range []string{st.Exe, st.Findings[0].Summary, st.Ledger.Rows[1].Name, st.Hand.Shed.Routes[2].Route, st.Hand.Why} {
		assert.LessOrEqual(t, len(s), mostText+8)
		assert.NotContains(t, s, "�")
	}
	assert.Len(t, st.Findings, mostItems)
	assert.Len(t, st.Ledger.Rows, mostItems)
	assert.Len(t, st.Hand.Shed.Routes, mostItems)
}

func TestPprof(t *testing.T) {
	t.Parallel()
	answers := map[string]func(http.ResponseWriter, *http.Request){
		"/ok/heap":       func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte{0x1f, 0x8b, 1, 2}) },
		"/redirect/heap": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok/heap", http.StatusFound) },
		"/text/heap":     func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) },
		"/large/heap": func(w http.ResponseWriter, _ *http.Request) {
			chunk := make([]byte, 1<<20)
			copy(chunk, []byte{0x1f, 0x8b})
			for range mostProfile>>20 + 1 {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := answers[r.URL.Path]; f != nil {
			f(w, r)
			return
		}
		http.NotFound(w, r)
	}))
	defer server.Close()
	c := newPprofClient(false)
	b, err := c.profile(t.Context(), server.URL+"/ok/", "heap", mostProfile)
	require.NoError(t, err)
	assert.Len(t, b, 4)
	for path, says := range map[string]string{"/redirect": "redirects", "/text": "not a profile", "/large": "more than", "/none": "404"} {
		_, err := c.profile(t.Context(), server.URL+path, "heap", mostProfile)
		assert.ErrorContains(t, err, says, path)
	}
}

// What is entered and not left is free for others after a while.
func TestEnter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		places := make(chan struct{}, 1)
		_, err := enter(t.Context(), places, time.Minute)
		require.NoError(t, err)
		begin := time.Now()
		leave, err := enter(t.Context(), places, time.Minute)
		require.NoError(t, err)
		assert.Equal(t, time.Minute, time.Since(begin))
		leave()
		leave()
		assert.Empty(t, places)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		places <- struct{}{}
		_, err = enter(ctx, places, time.Minute)
		assert.ErrorIs(t, err, context.Canceled)
	})
}
