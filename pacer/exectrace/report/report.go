// SPDX-License-Identifier: Apache-2.0

// Package report shows an exectrace.Report: as text for a terminal, as JSON,
// and as one HTML page that needs nothing else. Strings from the trace, which
// anybody may have written, are shown, never obeyed.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/memguard/memguard-go/pacer/exectrace"
)

// JSON writes the report as one indented JSON object. Durations are in
// nanoseconds and sizes in bytes, as their keys say; null is unknown.
func JSON(w io.Writer, r *exectrace.Report) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// clean makes a string from a trace safe for a terminal, whatever is in it,
// and not longer than most runes.
func clean(s string, most int) string {
	var b strings.Builder
	n := 0
	for _, c := range s {
		if n++; n > most {
			b.WriteString("…")
			break
		}
		if unicode.IsPrint(c) {
			b.WriteRune(c)
		} else {
			fmt.Fprintf(&b, "\\u%04x", c)
		}
	}
	return b.String()
}

// bytes writes a size the way people say it.
func bytes(n uint64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%.0f GiB", float64(n)/(1<<30))
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 10<<20:
		return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.0f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

func optBytes(o exectrace.Opt[uint64]) string {
	if n, ok := o.Value(); ok {
		return bytes(n)
	}
	return "?"
}

// dur writes a duration with three digits.
func dur(d time.Duration) string {
	unit := time.Duration(1)
	for d >= 1000*unit && unit < time.Hour {
		unit *= 10
	}
	return d.Round(unit).String()
}

func optDur(o exectrace.Opt[time.Duration]) string {
	if d, ok := o.Value(); ok {
		return dur(d)
	}
	return "?"
}

// percent writes part of whole, "-" of nothing.
func percent(part, whole time.Duration) string {
	if whole <= 0 {
		return "-"
	}
	p := 100 * float64(part) / float64(whole)
	if p > 0 && p < 0.1 {
		return "<0.1 %"
	}
	return fmt.Sprintf("%.1f %%", p)
}

// where is the line of the payer's own function on its stack, and who called
// that: "file.go:12 < main.handler".
func where(p *exectrace.Payer) string {
	at := ""
	for _, f := range p.Stack {
		if at == "" && f.Func == p.Name {
			at = fmt.Sprintf("%s:%d", f.File[strings.LastIndexByte(f.File, '/')+1:], f.Line)
		} else if at != "" && f.Func != p.Name {
			return at + " < " + f.Func
		}
	}
	return at
}

// overshoot is a cycle's heap over its goal, "1.20", "?" if not known.
func overshoot(c *exectrace.Cycle) string {
	if x, ok := c.Overshoot(); ok {
		return fmt.Sprintf("%.2f", x)
	}
	return "?"
}

// cycles returns the n that marked longest, in the order they ran.
func cycles(r *exectrace.Report, n int) []exectrace.Cycle {
	if len(r.Cycles) <= n {
		return r.Cycles
	}
	keep := make([]bool, len(r.Cycles))
	for range n {
		best := -1
		for i := range r.Cycles {
			if keep[i] {
				continue
			}
			d, _ := r.Cycles[i].Mark.Value()
			if best < 0 {
				best = i
			} else if b, _ := r.Cycles[best].Mark.Value(); d > b {
				best = i
			}
		}
		keep[best] = true
	}
	var out []exectrace.Cycle
	for i, k := range keep {
		if k {
			out = append(out, r.Cycles[i])
		}
	}
	return out
}

// brokenNote says that the trace ended early.
func brokenNote(b *exectrace.BrokenError) string {
	return fmt.Sprintf("The trace breaks off between byte %d and byte %d, after %d events and %s: %s. All below is about what came before.",
		b.Generation, b.Offset, b.Events, dur(b.At), clean(b.Reason, 300))
}
