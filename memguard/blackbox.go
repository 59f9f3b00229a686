// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// The black box holds records of a fixed size that it does not interpret. These
// are the guard's: a Moment of every tick near the limit and one a second at
// rest, and every event as it happens, actions before they are taken.

// The kinds of records.
const (
	boxMoment byte = 1
	boxEvent  byte = 2
)

// BoxLayout is the version of what a guard writes into the black box. A reader
// refuses another.
const BoxLayout = 1

// Record is one record of the black box: either a moment or an event.
type Record struct {
	Moment *Moment `json:"moment,omitempty"`
	Event  *Event  `json:"event,omitempty"`
}

// DecodeRecord reads a record that a guard wrote into the black box
// ([evidence.ReadBox]) at the given time. The bytes are those of another
// process and may be anything: what is not a record gives an error.
func DecodeRecord(at time.Time, kind byte, payload []byte) (Record, error) {
	switch kind {
	case boxMoment:
		m, err := momentFrom(at, payload)
		if err != nil {
			return Record{}, fmt.Errorf("memguard: black box: %w", err)
		}
		return Record{Moment: &m}, nil
	case boxEvent:
		e, err := eventFrom(at, payload)
		if err != nil {
			return Record{}, fmt.Errorf("memguard: black box: %w", err)
		}
		return Record{Event: &e}, nil
	}
	return Record{}, fmt.Errorf("memguard: black box: record of unknown kind %d", kind)
}

// Moment is a sample as the black box keeps it. Byte counts are bytes.
type Moment struct {
	Time        time.Time    `json:"time"`
	Usage       Bytes        `json:"usage"`       // charged to the cgroup
	Undroppable Bytes        `json:"undroppable"` // of that, what the kernel cannot take back
	Limit       Bytes        `json:"limit"`       // Unlimited is none
	RSS         Bytes        `json:"rss"`
	Mapped      Bytes        `json:"go_mapped"` // held by the Go runtime
	Live        Bytes        `json:"go_live"`
	Objects     Bytes        `json:"go_objects"`
	Unused      Bytes        `json:"go_unused"`
	Free        Bytes        `json:"go_free"`
	Stacks      Bytes        `json:"go_stacks"`
	Goal        Bytes        `json:"go_goal"`
	MemoryLimit Bytes        `json:"go_memory_limit"`
	GCPercent   Value[int64] `json:"go_gc_percent"`
	Cycles      Count        `json:"go_cycles"`
	Goroutines  Count        `json:"go_goroutines"`
	OOMKills    Count        `json:"oom_kills"`
}

// momentOf takes from a sample what the black box keeps.
func momentOf(s *Sample) Moment {
	r, c := &s.Runtime, &s.Cgroup
	return Moment{
		Time: s.Time, Usage: c.Usage, Undroppable: c.undroppable(), Limit: c.Limit, RSS: s.Process.RSS,
		Mapped: r.mapped(), Live: r.Live, Objects: r.Objects, Unused: r.Unused, Free: r.Free,
		Stacks: r.Stacks, Goal: r.Goal, MemoryLimit: r.MemoryLimit, GCPercent: r.GCPercent,
		Cycles: r.Cycles, Goroutines: r.Goroutines, OOMKills: c.OOMKills,
	}
}

// figures are the moment's in the order of the record.
func (m *Moment) figures() [15]*Bytes {
	return [15]*Bytes{
		&m.Usage, &m.Undroppable, &m.Limit, &m.RSS, &m.Mapped, &m.Live, &m.Objects, &m.Unused,
		&m.Free, &m.Stacks, &m.Goal, &m.MemoryLimit, &m.Cycles, &m.Goroutines, &m.OOMKills,
	}
}

// momentSize is the size of a moment's record: a bit for each figure that is
// known, and the figures.
const momentSize = 4 + 8*16

// appendTo writes the moment's payload. It allocates nothing if b has room.
func (m *Moment) appendTo(b []byte) []byte {
	var known uint32
	head := len(b)
	b = binary.LittleEndian.AppendUint32(b, 0)
	for i, f := range m.figures() {
		if f.ok {
			known |= 1 << i
		}
		b = binary.LittleEndian.AppendUint64(b, f.v)
	}
	if m.GCPercent.ok {
		known |= 1 << 15
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(m.GCPercent.v))
	binary.LittleEndian.PutUint32(b[head:], known)
	return b
}

func momentFrom(at time.Time, b []byte) (Moment, error) {
	m := Moment{Time: at}
	if len(b) < momentSize {
		return m, fmt.Errorf("a moment of %d bytes, want %d", len(b), momentSize)
	}
	known := binary.LittleEndian.Uint32(b)
	b = b[4:]
	for i, f := range m.figures() {
		if known&(1<<i) != 0 {
			*f = Known(binary.LittleEndian.Uint64(b[8*i:]))
		}
	}
	if n := int64(binary.LittleEndian.Uint64(b[8*15:])); known&(1<<15) != 0 && n >= -1 && n <= math.MaxInt32 {
		m.GCPercent = Known(n)
	}
	return m, nil
}

// appendEvent writes an event's payload in at most size bytes: two figures, the
// severity, and three texts with their length before them: the kind, what it is
// about, and as much of the sentence as there is room for.
func appendEvent(b []byte, e *Event, size int) []byte {
	var from, to int64
	texts := [3]string{string(e.Kind)}
	switch e.Kind {
	case Raised, Cleared, Saved:
		texts[1], texts[2] = string(e.Finding.ID), e.Finding.Summary
		if e.Kind == Saved {
			texts[2] = e.Path
		}
	case Lost:
		texts[1], texts[2] = e.Blind.What, e.Blind.Why
	case Died:
		texts[2] = e.Why
	default:
		from, to = e.Action.From, e.Action.To
		texts[1], texts[2] = string(e.Action.Name), e.Action.Reason
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(from))
	b = binary.LittleEndian.AppendUint64(b, uint64(to))
	b = append(b, byte(e.Finding.Severity))
	size -= 17
	for i, t := range texts {
		t = cut(t, min(size-(len(texts)-i), math.MaxUint8)) // each has its length before it
		b = append(b, byte(len(t)))
		b = append(b, t...)
		size -= 1 + len(t)
	}
	return b
}

// cut shortens a text to n bytes at most, and not within a letter.
func cut(s string, n int) string {
	if n = max(n, 0); len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

var errBoxEvent = errors.New("a torn event")

func eventFrom(at time.Time, b []byte) (Event, error) {
	e := Event{Time: at}
	if len(b) < 17 {
		return e, errBoxEvent
	}
	from, to := int64(binary.LittleEndian.Uint64(b)), int64(binary.LittleEndian.Uint64(b[8:]))
	severity := Severity(b[16])
	b = b[17:]
	var texts [3]string
	for i := range texts {
		if len(b) == 0 || 1+int(b[0]) > len(b) {
			return e, errBoxEvent
		}
		n := 1 + int(b[0])
		texts[i], b = strings.ToValidUTF8(string(b[1:n]), "?"), b[n:]
	}
	switch e.Kind = EventKind(texts[0]); e.Kind {
	case Raised, Cleared, Saved:
		if severity > Critical {
			return e, errBoxEvent
		}
		e.Finding = Finding{ID: ID(texts[1]), Severity: severity, Summary: texts[2]}
		if e.Kind == Saved {
			e.Finding.Summary, e.Path = "", texts[2]
		}
	case Lost:
		e.Blind = Blind{texts[1], texts[2]}
	case Died:
		e.Why = texts[2]
	case Planned, Applied, Undone, Clamped, Ended:
		e.Action = Action{Name: ActionName(texts[1]), From: from, To: to, Reason: texts[2]}
	default:
		return e, fmt.Errorf("an event of unknown kind %q", texts[0])
	}
	return e, nil
}
