// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/memguard/memguard-go/memguard"
)

// width is of the story, in columns.
const width = 80

// Tell writes what became of both lives: the verdict first, then the numbers, and
// then what explains them.
func (o *Outcome) Tell(w io.Writer) error {
	s := &story{}
	s.say("TWO LIVES OF ONE SERVICE")
	s.wrap("  ", o.death())
	s.wrap("  ", o.survival())
	s.say("")
	o.table(s)
	s.say("\nMEMORY AGAINST THE LIMIT OF %s, ✗ killed", mib(o.Limit))
	o.chart(s, "unguarded", o.Unguarded)
	o.chart(s, "guarded", o.Guarded)
	o.loadLine(s)
	o.seen(s)
	o.kept(s)
	_, err := io.WriteString(w, s.String())
	return err
}

// story is a text being written.
type story struct{ strings.Builder }

func (s *story) say(format string, args ...any) { fmt.Fprintf(s, format+"\n", args...) }

// wrap writes a sentence in lines of the story's width.
func (s *story) wrap(indent, text string) {
	line := indent
	for word := range strings.FieldsSeq(text) {
		if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width && line != indent {
			s.say("%s", strings.TrimRight(line, " "))
			line = indent
		}
		line += word + " "
	}
	s.say("%s", strings.TrimRight(line, " "))
}

// death says how the unguarded service fared.
func (o *Outcome) death() string {
	u := o.Unguarded
	if len(u.Deaths) == 0 {
		return fmt.Sprintf("Unguarded, the service lived through %.0f s of load, this time: its highest was %s of %s.", o.Seconds, amount(u.Peak), mib(o.Limit))
	}
	first := u.Deaths[0]
	by := "by this demo in the kernel's place"
	if n, ok := u.OOMKills.Get(); ok && n > 0 {
		by = fmt.Sprintf("by the kernel (oom_kill %d)", n)
	}
	if !first.Killed {
		by = fmt.Sprintf("not by SIGKILL: %q", first.Exit)
	}
	return fmt.Sprintf("Unguarded, it died %s in %.0f s, killed %s, and was started again at once (a cluster waits longer). The first time was %.1f s after the load began, with %d orders in its hands.",
		times(len(u.Deaths)), o.Seconds, by, first.Second, first.InAir)
}

// survival says how the guarded one did.
func (o *Outcome) survival() string {
	g := o.Guarded
	if len(g.Deaths) > 0 {
		return fmt.Sprintf("Guarded, it died %s all the same: %s.", times(len(g.Deaths)), g.Deaths[0].Exit)
	}
	s := fmt.Sprintf("Guarded, it lived: the surplus of each burst was refused at once (%d orders), and %d were answered", g.Refused, g.Good)
	if u := o.Unguarded.Good; u > 0 {
		s += fmt.Sprintf(", %.1f times as many", float64(g.Good)/float64(u))
	}
	return s + "."
}

func times(n int) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	}
	return fmt.Sprintf("%d times", n)
}

// table puts the lives side by side.
func (o *Outcome) table(s *story) {
	row := func(what string, figure func(*Life) string) {
		s.say("  %-36s %18s %18s", what, figure(o.Unguarded), figure(o.Guarded))
	}
	count := func(n func(*Life) uint64) func(*Life) string {
		return func(l *Life) string { return fmt.Sprint(n(l)) }
	}
	s.say("  %-36s %18s %18s", fmt.Sprintf("the same %.0f s of load", o.Seconds), "unguarded", "guarded")
	row("outcome", func(l *Life) string {
		if len(l.Deaths) > 0 {
			return "died " + times(len(l.Deaths))
		}
		return "alive"
	})
	row("killed, by the kernel's counter", func(l *Life) string {
		if n, ok := l.OOMKills.Get(); ok {
			return fmt.Sprint(n)
		}
		return "unknown"
	})
	row("orders answered", count(func(l *Life) uint64 { return l.Good }))
	row("orders refused at once (503)", count(func(l *Life) uint64 { return l.Refused }))
	row("orders failed", count(func(l *Life) uint64 { return l.Failed }))
	row("p99 of what was answered", func(l *Life) string {
		if n, ok := l.P99.Get(); ok {
			return fmt.Sprintf("%.2f s", n)
		}
		return "unknown"
	})
	row("peak memory", func(l *Life) string { return amount(l.Peak) })
	row("GC CPU, of all there was", func(l *Life) string {
		if n, ok := l.GCCPU.Get(); ok {
			return fmt.Sprintf("%.0f %%", 100*n)
		}
		return "unknown"
	})
	row("actions of the guard", func(l *Life) string {
		if l.Kept == nil {
			return "none"
		}
		n := 0
		for _, a := range l.Kept.Actions {
			n += a.Count
		}
		return fmt.Sprint(n)
	})
}

// seen tells why the first process of the unguarded life died.
func (o *Outcome) seen(s *story) {
	if len(o.Unguarded.Deaths) == 0 {
		return
	}
	s.say("\nWHY THE FIRST ONE DIED")
	seen := o.Unguarded.Seen
	if seen == nil {
		s.say("  It left nothing behind, and could not be looked at from outside.")
		return
	}
	s.wrap("  ", fmt.Sprintf("It left nothing behind. Seen from outside, up to %.2f s before its end:", o.Unguarded.Deaths[0].Second-seen.Until))
	for i, g := range seen.Growth {
		if d := g.To - g.From; i < 4 && d > 1<<20 {
			const mebi = 1 << 20
			s.say("    %-16s %+7.1f MiB  (%.1f -> %.1f)", g.Row, float64(d)/mebi, float64(g.From)/mebi, float64(g.To)/mebi)
		}
	}
	for _, f := range seen.Warned {
		if f.Severity < memguard.Warning {
			continue
		}
		s.wrap("    ", fmt.Sprintf("%.1f s before, %s: %s: %s", o.Unguarded.Deaths[0].Second-f.Second, f.Severity, f.ID, f.Summary))
	}
}

// kept tells what the guard did, and what it left for people.
func (o *Outcome) kept(s *story) {
	if o.Guarded.Kept == nil {
		return
	}
	k := o.Guarded.Kept
	s.say("\nWHAT THE GUARD DID, FROM ITS BLACK BOX")
	s.say("  refused %d orders, as the customers count", o.Guarded.Refused)
	if low, ok := k.Lowest.Get(); ok {
		high, _ := k.Highest.Get()
		s.say("  kept the Go memory limit between %s and %s", mib(low), mib(high))
	}
	last := ""
	for _, a := range k.Actions {
		text := fmt.Sprintf("%s %s", a.Name, times(a.Count))
		if a.First != last { // one reason may have several actions
			text += ", first: " + a.First
		}
		last = a.First
		s.wrap("  ", text)
	}
	if len(k.Raised) > 0 {
		s.wrap("  ", "warned of "+strings.Join(k.Raised, ", "))
	}
	s.say("\nWHAT IT LEFT")
	for _, f := range k.Files {
		at := ""
		if len(f.Scores) > 0 {
			at = " at " + strings.Trim(fmt.Sprint(f.Scores), "[]") + " % of the limit"
		}
		s.say("  %2d %-18s %7.0f KiB%s", f.Count, f.Kind, float64(f.Bytes)/(1<<10), at)
	}
	if o.Evidence != "" {
		s.say("  in %s: memguard incident %[1]s", o.Evidence)
	} else {
		s.say("  removed with the demo; --keep DIR keeps it, for memguard incident DIR")
	}
}

func amount(b memguard.Bytes) string {
	if n, ok := b.Get(); ok {
		return mib(n)
	}
	return "unknown"
}

func mib(n uint64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }
