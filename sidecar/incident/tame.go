// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/leak"
	"github.com/memguard/memguard-go/sidecar/attach"
	"github.com/memguard/memguard-go/sidecar/internal/plain"
)

// What a report holds of one thing. All of it is somebody else's text, or as many
// as somebody else pleases.
const (
	mostText    = 1000 // bytes of a sentence
	mostName    = 300  // bytes of a function's name, a path
	mostFrames  = 32   // of a stack
	mostRows    = 40   // of a ledger
	mostLines   = 60   // of stderr
	mostEvents  = 500
	mostPoints  = 600 // of the timeline
	mostStacks  = 12
	mostShown   = 12 // goroutine clusters, size classes
	mostLevels  = 16
	mostUnknown = 40
)

// tame makes one line of bounded length of a text that another process has chosen.
func tame(s string, most int) string {
	if len(s) > most { // before the work of the rest
		s = s[:most]
		for i := 1; i <= 3 && i < len(s) && !utf8.ValidString(s); i++ { // a character was cut
			s = s[:len(s)-1]
		}
		s += "…"
	}
	return strings.TrimSpace(plain.Line(strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")))
}

// tameTime is a time that JSON can say, which has four digits for a year, else none.
func tameTime(t time.Time) time.Time {
	if y := t.UTC().Year(); y < 1 || y > 9998 { // in a zone it may be the next one
		return time.Time{}
	}
	return t
}

func frames(stack []leak.Frame) []leak.Frame {
	fs := []leak.Frame{}
	for _, f := range stack[:min(len(stack), mostFrames)] {
		fs = append(fs, leak.Frame{Func: tame(f.Func, mostName), File: tame(f.File, mostName), Line: f.Line})
	}
	return fs
}

func attached(stack []attach.Frame) []leak.Frame {
	fs := []leak.Frame{}
	for _, f := range stack[:min(len(stack), mostFrames)] {
		fs = append(fs, leak.Frame{Func: tame(f.Func, mostName), File: tame(f.File, mostName), Line: f.Line})
	}
	return fs
}

// own is the innermost frame of the program's own code, else the innermost one.
func own(stack []leak.Frame) leak.Frame {
	if len(stack) == 0 {
		return leak.Frame{}
	}
	return (&leak.Cluster{Stack: stack}).Blocked()
}

// tamedLedger is a copy: that of a service's own guard says what the service likes.
func tamedLedger(l *memguard.Ledger) *memguard.Ledger {
	if l == nil {
		return nil
	}
	c := *l
	c.Time, c.Rows = tameTime(l.Time), tamedRows(l.Rows)
	if l.Cgroup != nil {
		g := *l.Cgroup
		g.Path, g.Rows = tame(g.Path, mostName), tamedRows(g.Rows)
		c.Cgroup = &g
	}
	return &c
}

func tamedRows(rows []memguard.Row) []memguard.Row {
	rows = slices.Clone(rows[:min(len(rows), mostRows)])
	for i := range rows {
		r := &rows[i]
		r.Name, r.Why, r.Note = tame(r.Name, mostName), tame(r.Why, mostText), tame(r.Note, mostText)
	}
	return rows
}

// tameLine is tame for a line whose spaces matter.
func tameLine(s string, most int) string {
	indent := s[:min(len(s)-len(strings.TrimLeft(s, " ")), 40)]
	return indent + tame(s, most)
}
