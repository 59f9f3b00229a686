// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/memguard/evidence"
)

var boxTime = time.Unix(1_790_000_000, 7)

// sampleMoment has all figures but some, each another one.
func sampleMoment(unknown ...int) Moment {
	m := Moment{Time: boxTime, GCPercent: Known[int64](-1)}
	for i, f := range m.figures() {
		*f = Known(uint64(1) << (4 * i))
	}
	m.Limit = Known[uint64](Unlimited)
	for _, i := range unknown {
		*m.figures()[i] = Bytes{}
	}
	return m
}

func TestMomentRoundTrips(t *testing.T) {
	t.Parallel()
	s := healthy(0)
	for name, m := range map[string]Moment{
		"all known": sampleMoment(), "some unknown": sampleMoment(0, 7, 14), "nothing known": {Time: boxTime},
		"known zero": {Time: boxTime, Usage: Known[uint64](0), GCPercent: Known[int64](0)}, "of a sample": momentOf(s),
	} {
		b := m.appendTo(nil)
		require.LessOrEqual(t, len(b), evidence.PayloadSize, name)
		require.Len(t, b, momentSize)
		r, err := DecodeRecord(m.Time, boxMoment, b)
		require.NoError(t, err, name)
		assert.Nil(t, r.Event)
		assert.Equal(t, m, *r.Moment, name)
		for n := range b {
			_, err := DecodeRecord(m.Time, boxMoment, b[:n])
			require.Error(t, err, "%s: %d bytes of it", name, n)
		}
	}
}

func TestMomentAllocatesNothing(t *testing.T) {
	buf := make([]byte, 0, evidence.PayloadSize)
	m := sampleMoment()
	assert.Zero(t, testing.AllocsPerRun(100, func() { m.appendTo(buf) }))
}

func TestEventRoundTrips(t *testing.T) {
	t.Parallel()
	finding := Finding{ID: "oom-forecast", Severity: Critical, Summary: "It grows by 7 MiB a second."}
	for _, e := range []Event{
		{Kind: Raised, Finding: finding},
		{Kind: Cleared, Finding: Finding{ID: "gc-storm", Severity: Warning, Summary: "a storm"}},
		{Kind: Saved, Finding: Finding{ID: "gc-pause", Severity: Info}, Path: "/var/lib/x.trace"},
		{Kind: Saved, Path: "/var/lib/heap.pb.gz"},
		{Kind: Lost, Blind: Blind{"cgroup usage", "permission denied"}},
		{Kind: Died, Why: "The predecessor died."},
		{Kind: Ended},
		{Kind: Planned, Action: Action{Name: FreeOSMemory, Reason: "stacks after a burst"}},
		{Kind: Applied, Action: Action{Name: SetMemoryLimit, From: math.MaxInt64, To: 512 << 20, Reason: "what the cgroup leaves"}},
		{Kind: Undone, Action: Action{Name: SetGCPercent, From: 50, To: -1, Reason: "the guard ends"}},
		{Kind: Clamped, Action: Action{Name: SetGCPercent, From: 200, To: 120, Reason: "the heap would not fit under the limit"}},
	} {
		e.Time = boxTime
		b := appendEvent(nil, &e, evidence.PayloadSize)
		require.LessOrEqual(t, len(b), evidence.PayloadSize)
		r, err := DecodeRecord(boxTime, boxEvent, b)
		require.NoError(t, err, e.Kind)
		assert.Nil(t, r.Moment)
		assert.Equal(t, e, *r.Event)
		for n := range b {
			_, err := DecodeRecord(boxTime, boxEvent, b[:n])
			require.Error(t, err, "%s: %d bytes of it", e.Kind, n)
		}
	}
}

// A text that is too long is cut, and not within a letter.
func TestEventIsCut(t *testing.T) {
	t.Parallel()
	for n := range 8 {
		e := Event{Time: boxTime, Kind: Raised, Finding: Finding{ID: "gc-pause", Summary: strings.Repeat("x", n) + strings.Repeat("é€", 500)}}
		b := appendEvent(nil, &e, evidence.PayloadSize)
		require.LessOrEqual(t, len(b), evidence.PayloadSize)
		r, err := DecodeRecord(boxTime, boxEvent, b)
		require.NoError(t, err)
		got := r.Event.Finding.Summary
		assert.True(t, strings.HasPrefix(e.Finding.Summary, got))
		assert.Greater(t, len(got), 180)
		assert.Equal(t, ID("gc-pause"), r.Event.Finding.ID)
	}
	long := strings.Repeat("x", 1000)
	for _, e := range []Event{
		{Kind: Lost, Blind: Blind{long, long}}, {Kind: EventKind(long)}, {Kind: Raised, Finding: Finding{ID: ID(long), Summary: long}},
	} {
		assert.LessOrEqual(t, len(appendEvent(nil, &e, evidence.PayloadSize)), evidence.PayloadSize)
	}
}

func TestDecodeRecordRefuses(t *testing.T) {
	t.Parallel()
	good := appendEvent(nil, &Event{Kind: Raised, Finding: Finding{ID: "gc-pause"}}, evidence.PayloadSize)
	severe := append([]byte(nil), good...)
	severe[16] = 200
	for name, c := range map[string]struct {
		kind    byte
		payload []byte
		want    string
	}{
		"unknown kind":       {9, nil, "memguard: black box: record of unknown kind 9"},
		"short moment":       {boxMoment, make([]byte, 5), "memguard: black box: a moment of 5 bytes, want 132"},
		"torn event":         {boxEvent, good[:20], "memguard: black box: a torn event"},
		"no event":           {boxEvent, nil, "memguard: black box: a torn event"},
		"impossible":         {boxEvent, severe, "memguard: black box: a torn event"},
		"a later version's":  {boxEvent, appendEvent(nil, &Event{Kind: "resurrected"}, 200), `memguard: black box: an event of unknown kind "resurrected"`},
		"of zeros":           {boxEvent, make([]byte, 232), `memguard: black box: an event of unknown kind ""`},
		"a length too large": {boxEvent, append(make([]byte, 17), 255), "memguard: black box: a torn event"},
	} {
		_, err := DecodeRecord(boxTime, c.kind, c.payload)
		assert.EqualError(t, err, c.want, name)
	}
}

// Whatever the bytes are: no panic, an error or one of the two; what was decoded
// can be written and read again and is the same; and it can be shown.
func FuzzDecodeRecord(f *testing.F) {
	m := sampleMoment(3)
	f.Add(boxMoment, m.appendTo(nil))
	for _, e := range []Event{
		{Kind: Raised, Finding: Finding{ID: "oom-forecast", Severity: Warning, Summary: "it grows"}},
		{Kind: Applied, Action: Action{Name: SetGCPercent, From: 1, To: -1, Reason: "r"}},
		{Kind: Saved, Path: "p\xff\xfe"}, {Kind: Lost, Blind: Blind{"a", "b"}}, {Kind: Died, Why: "w"}, {Kind: Ended},
	} {
		f.Add(boxEvent, appendEvent(nil, &e, evidence.PayloadSize))
	}
	f.Add(byte(0), []byte{})
	f.Fuzz(func(t *testing.T, kind byte, payload []byte) {
		if len(payload) > evidence.PayloadSize { // no record is longer
			payload = payload[:evidence.PayloadSize]
		}
		r, err := DecodeRecord(boxTime, kind, payload)
		if err != nil {
			require.Equal(t, Record{}, r)
			return
		}
		require.True(t, (r.Moment == nil) != (r.Event == nil))
		if r.Moment != nil {
			again, err := DecodeRecord(boxTime, boxMoment, r.Moment.appendTo(nil))
			require.NoError(t, err)
			require.Equal(t, r, again)
			n, ok := r.Moment.GCPercent.Get()
			require.True(t, !ok || n >= -1 && n <= math.MaxInt32)
			return
		}
		b := appendEvent(nil, r.Event, evidence.PayloadSize)
		require.LessOrEqual(t, len(b), evidence.PayloadSize)
		again, err := DecodeRecord(boxTime, boxEvent, b)
		require.NoError(t, err)
		require.Equal(t, r, again)
		_, line, _ := r.Event.logged()
		require.True(t, utf8.ValidString(line))
	})
}
