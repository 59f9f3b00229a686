// SPDX-License-Identifier: Apache-2.0

//go:build !memguard_sidecar

package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strings"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/agent"
)

// page writes a view for a person.
func (v *view) page(out io.Writer, width int, color bool) error {
	var w bytes.Buffer
	line := func(indent, s string) { fmt.Fprintln(&w, indent+fit(s, width-len(indent))) }
	title := func(s string) {
		if color {
			s = "\x1b[1m" + s + "\x1b[0m"
		}
		fmt.Fprintf(&w, "\n%s\n", s)
	}
	line("", fmt.Sprintf("%s, pid %d, %s; %s, %s; tick %d, %.1f s ago", fit(filepath.Base(cmp.Or(v.Exe, "?")), 20), v.PID, fit(cmp.Or(v.Go, "not Go"), 12), v.Eye, v.does(), v.Ticks, v.Age))
	left := "no end in sight"
	if n, ok := v.Left.Get(); ok {
		left = span(n) + " at the present growth"
	}
	line("", "Time left: "+left)
	fmt.Fprintln(&w)
	if err := (memguard.Text{Width: width, Color: color}).Ledger(&w, v.Ledger); err != nil {
		return err
	}
	title("FINDINGS")
	for _, f := range v.Findings {
		line("  ", fmt.Sprintf("%-8s %s: %s", f.Severity, f.ID, f.Summary))
	}
	if len(v.Findings) == 0 {
		line("  ", "none")
	}
	if h := v.Hand; h != nil {
		title("WHAT THE GUARD DOES")
		for _, s := range hand(h) {
			line("  ", s)
		}
	}
	if v.Clusters != nil {
		title("GOROUTINES, by what they wait for, at " + v.Looked.Local().Format(time.TimeOnly))
		for i := range v.Clusters[:min(len(v.Clusters), 5)] {
			line("  ", clusterLine(&v.Clusters[i]))
		}
	}
	if v.Classes != nil {
		title("SIZE CLASSES, the largest")
		for i := range v.Classes[:min(len(v.Classes), 5)] {
			line("  ", classLine(&v.Classes[i]))
		}
	}
	title("LAST EVENTS")
	for i := range v.recent {
		e := &v.recent[i]
		line("  ", e.Time.Local().Format(time.TimeOnly)+" "+says(e))
	}
	if len(v.recent) == 0 {
		line("  ", "none")
	}
	if len(v.Incidents) > 0 {
		title("LAST INCIDENTS, see memguard incident list")
		for i := range v.Incidents {
			line("  ", v.Incidents[i].Time.Local().Format(time.DateTime)+" "+v.Incidents[i].Verdict)
		}
	}
	_, err := out.Write(w.Bytes())
	return err
}

// lines writes a view as a line, and one for each new event.
func (v *view) lines(out io.Writer) error {
	var w bytes.Buffer
	fmt.Fprintf(&w, "%s pid=%d eye=%s", v.Time.UTC().Format(time.RFC3339), v.PID, v.Eye)
	bytes := func(key string, b memguard.Bytes) {
		if n, ok := b.Get(); ok {
			fmt.Fprintf(&w, " %s=%d", key, n)
		}
	}
	bytes("rss_bytes", v.Ledger.RSS)
	if c := v.Ledger.Cgroup; c != nil {
		bytes("usage_bytes", c.Usage)
		bytes("undroppable_bytes", v.Undroppable)
		bytes("limit_bytes", c.Limit)
	}
	if n, ok := v.Left.Get(); ok {
		fmt.Fprintf(&w, " left_seconds=%.0f", n)
	}
	if h := v.Hand; h != nil {
		fmt.Fprintf(&w, " gc_percent=%d memory_limit_bytes=%d", h.Wanted.GCPercent, h.Wanted.MemoryLimit)
	}
	found := make([]string, len(v.Findings))
	for i, f := range v.Findings {
		found[i] = fmt.Sprintf("%s:%v", fit(string(f.ID), 40), f.Severity)
	}
	fmt.Fprintf(&w, " findings=%s\n", cmp.Or(strings.Join(found, ","), "none"))
	for i := range v.New {
		e := &v.New[i]
		fmt.Fprintf(&w, "%s pid=%d event=%d %s\n", e.Time.UTC().Format(time.RFC3339), v.PID, e.Seq, fit(says(e), 1000))
	}
	_, err := out.Write(w.Bytes())
	return err
}

func (v *view) does() string {
	switch h := v.Hand; {
	case h == nil:
		return "watching"
	case h.DryRun:
		return "dry run"
	}
	return "acting"
}

// hand says what a guard of its own process does.
func hand(h *agent.Hand) []string {
	lines := []string{fmt.Sprintf("GC percent %s (own: %s), memory limit %s (own: %s), changed %d times",
		percent(h.Wanted.GCPercent), percent(h.Baseline.GCPercent), limit(h.Wanted.MemoryLimit), limit(h.Baseline.MemoryLimit), h.Changes)}
	if h.Breaker != "" {
		lines = append(lines, fmt.Sprintf("breaker %s; its GC percent was not given %d times", h.Breaker, h.Clamps))
	}
	if h.Spiral {
		lines = append(lines, "collecting harder helps no longer")
	}
	r := &h.Releases
	lines = append(lines, fmt.Sprintf("releaser at %s: %d releases in %v gained %s", h.Grade, r.Ended,
		time.Duration(r.Took*float64(time.Second)).Round(time.Millisecond), size(float64(r.Gained))))
	if s := h.Shed; s != nil {
		inFlight, refused := 0, uint64(0)
		for _, r := range s.Routes {
			inFlight += r.InFlight
			refused += r.Refused
		}
		line := fmt.Sprintf("limiter: %d in flight hold %s, %d wait, %d refused", inFlight, size(float64(s.Held)), s.Waiting, refused)
		if s.Limited {
			line += ", budget " + size(float64(s.Budget))
		}
		if s.Braking {
			line += "; braking"
		}
		lines = append(lines, line)
	}
	return lines
}

func percent(p int) string {
	if p < 0 {
		return "off"
	}
	return fmt.Sprint(p)
}

func limit(n int64) string {
	if n == math.MaxInt64 {
		return "none"
	}
	return size(float64(n))
}

// size renders bytes as evidence does.
func size(n float64) string {
	return strings.TrimSpace(memguard.Fact{Value: n, Unit: memguard.UnitBytes}.String())
}

// span renders a time that a person plans by.
func span(seconds float64) string {
	if seconds < 10 {
		return fmt.Sprintf("%.1f s", seconds)
	}
	return time.Duration(min(seconds, 1e9) * float64(time.Second)).Round(time.Second).String()
}
