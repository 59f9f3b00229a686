// SPDX-License-Identifier: Apache-2.0

package leak

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of what is written for people; JSON has everything.
const (
	maxRows = 20 // of a list
	maxTree = 60 // lines of a tree
	barCols = 12
)

const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	yellow = "33"
)

// page is a text being written.
type page struct {
	bytes.Buffer
	width int
	color bool
}

func newPage(width int, color bool) *page { return &page{width: max(width, 40), color: color} }

// line writes one line, cut to the width and free of what would steer a
// terminal: names come from files.
func (p *page) line(code, format string, args ...any) {
	s := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, fmt.Sprintf(format, args...))
	if utf8.RuneCountInString(s) > p.width {
		s = string([]rune(s)[:p.width-1]) + "…"
	}
	if s = strings.TrimRight(s, " "); p.color && code != "" {
		s = "\x1b[" + code + "m" + s + "\x1b[0m"
	}
	p.WriteString(s + "\n")
}

// wrap writes words with an indent.
func (p *page) wrap(code, indent, text string) {
	row := indent
	for _, word := range strings.Fields(text) {
		if len(row) > len(indent) && utf8.RuneCountInString(row)+1+utf8.RuneCountInString(word) > p.width {
			p.line(code, "%s", row)
			row = indent
		}
		if len(row) > len(indent) {
			row += " "
		}
		row += word
	}
	p.line(code, "%s", row)
}

// WriteText writes a snapshot for people: the stacks that wait for another
// goroutine, in its order, with where they were created and in how many instances
// they are, and a tree of all calls, outermost first, with a bar for the share of
// all goroutines. The width is in columns, 40 at
// least.
func (s *Snapshot) WriteText(w io.Writer, width int, color bool) error {
	p := newPage(width, color)
	head := fmt.Sprintf("%d goroutines, %d stacks (%s)", s.Goroutines, len(s.Clusters), s.Format)
	if s.Of > 1 {
		head = fmt.Sprintf("%d goroutines, %d stacks, %d instances", s.Goroutines, len(s.Clusters), s.Of)
	}
	p.line(bold, "%s", head)
	if s.Torn > 0 {
		p.line(yellow, "%d could not be read whole; first: %v", s.Torn, s.First)
	}
	if s.Beyond > 0 {
		p.line(yellow, "%d goroutines in stacks past the bound of %d are not shown", s.Beyond, maxClusters)
	}
	p.waiting(s)
	var t tree
	for _, c := range s.Clusters {
		t.add(c, c.Count)
	}
	p.line("", "")
	p.line(bold, "WHERE ALL ARE")
	p.tree(&t)
	_, err := w.Write(p.Bytes())
	return err
}

// waiting writes the clusters that may be leaks.
func (p *page) waiting(s *Snapshot) {
	rows := 0
	for _, c := range s.Clusters {
		if weight(c) == 0 {
			continue
		}
		if rows++; rows > maxRows {
			continue
		}
		if rows == 1 {
			p.line("", "")
			p.line(bold, "WAIT FOR ANOTHER GOROUTINE")
		}
		p.line(yellow, "%8d  %s%s", c.Count, place(c), inState(c))
		p.line("", "%10s%s", "", from(c))
		if s.Of > 1 {
			p.line("", "%10sin %d of %d instances", "", c.Of, s.Of)
		}
		if longest, ok := c.Waits.Longest(); ok && longest > 0 {
			p.line("", "%10slongest wait %s", "", longest)
		}
	}
	if rows > maxRows {
		p.line(dim, "  ... and %d more", rows-maxRows)
	}
}

// WriteText writes what changed for people: the lists, ranked, then a tree of
// what came.
func (d *Diff) WriteText(w io.Writer, width int, color bool) error {
	p := newPage(width, color)
	p.line(bold, "%d -> %d goroutines (%+d)", d.Before, d.After, d.After-d.Before)
	p.changes("APPEARED", red, d.Appeared)
	p.changes("GREW", red, d.Grew)
	p.changes("STAYED", "", d.Stayed)
	p.changes("SHRANK", dim, d.Shrank)
	var t tree
	for _, list := range [][]Change{d.Appeared, d.Grew} {
		for _, ch := range list {
			t.add(ch.Cluster, ch.Grown())
		}
	}
	if t.root.count > 0 {
		p.line("", "")
		p.line(bold, "WHERE THE %d NEW ONES ARE", t.root.count)
		p.tree(&t)
	}
	_, err := w.Write(p.Bytes())
	return err
}

func (p *page) changes(title, code string, list []Change) {
	if len(list) == 0 {
		return
	}
	p.line("", "")
	p.line(bold, "%s", title)
	for i, ch := range list {
		if i == maxRows {
			p.line(dim, "  ... and %d more", len(list)-i)
			break
		}
		c := ch.Cluster
		p.line(code, "%+8d  %d -> %d  %s%s", ch.Grown(), ch.Before, ch.After, place(c), inState(c))
		p.line("", "%10s%s", "", from(c))
		if ch.Instances > 1 {
			p.line("", "%10sin %d instances", "", ch.Instances)
		}
		if longest, ok := c.Waits.Longest(); ok && longest > 0 {
			p.line("", "%10slongest wait %s", "", longest)
		}
		if ch.Shape != nil && (ch.Grown() > 0 || c.Proved > 0) {
			p.wrap(dim, "          ", ch.Shape.Name+": "+ch.Shape.Why)
		}
	}
}

// place is where a cluster waits. A goroutine that was created just now has no
// frame yet but the runtime's, which profiles leave out.
func place(c *Cluster) string {
	if len(c.Stack) == 0 {
		return "(no stack: not started yet)"
	}
	return c.Blocked().String()
}

func inState(c *Cluster) string {
	s := ""
	if c.State != "" {
		s = " [" + string(c.State) + "]"
	}
	if c.Proved > 0 {
		s += fmt.Sprintf(" %d proved leaked", c.Proved)
	}
	return s
}

// from says where a cluster comes from.
func from(c *Cluster) string {
	if len(c.Created) == 0 {
		if len(c.Stack) == 0 {
			return "entered at a function that is not known"
		}
		return "entered at " + c.Entry().String()
	}
	s := "created by " + c.Created[0].String()
	if n := len(c.Created) - 1; n > 0 {
		s += fmt.Sprintf(" and %d more", n)
	}
	return s
}

// tree is stacks put together from their outermost frames.
type tree struct{ root node }

type node struct {
	frame Frame
	count int
	kids  []*node
	ends  []*Cluster // stacks whose innermost frame this is
}

func (t *tree) add(c *Cluster, count int) {
	at := &t.root
	at.count += count
	for _, f := range slices.Backward(c.Stack) {
		i := slices.IndexFunc(at.kids, func(k *node) bool { return k.frame.Func == f.Func })
		if i < 0 {
			i = len(at.kids)
			at.kids = append(at.kids, &node{frame: f})
		}
		at = at.kids[i]
		at.count += count
	}
	at.ends = append(at.ends, c)
}

func (p *page) tree(t *tree) {
	left := maxTree
	p.nodes(&t.root, t.root.count, 0, &left)
}

// nodes writes the children of a node. Calls from one function of the standard
// library to the next are one line.
func (p *page) nodes(n *node, total, depth int, left *int) {
	slices.SortStableFunc(n.kids, func(a, b *node) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.frame.Func, b.frame.Func))
	})
	for i, k := range n.kids {
		if *left <= 0 {
			rest := 0
			for _, k := range n.kids[i:] {
				rest += k.count
			}
			p.line(dim, "%8d  %s%s... %d more", rest, strings.Repeat(" ", barCols+1), indent(depth), len(n.kids)-i)
			return
		}
		*left--
		hidden := 0
		for len(k.kids) == 1 && len(k.ends) == 0 && standard(k.frame.Func) && standard(k.kids[0].frame.Func) {
			k = k.kids[0]
			hidden++
		}
		code, label := "", k.frame.String()
		if hidden > 0 {
			label = fmt.Sprintf("(%d calls) %s", hidden, label)
		}
		for _, c := range k.ends {
			label = strings.TrimSpace(inState(c)+" ") + " " + label
			if c.State.class().blocked() {
				code = yellow
			}
		}
		bar := min(max((barCols*k.count+total/2)/max(total, 1), 1), barCols)
		p.line(code, "%8d  %s %s%s", k.count, strings.Repeat("#", bar)+strings.Repeat(" ", barCols-bar), indent(depth), label)
		p.nodes(k, total, depth+1, left)
	}
}

func indent(depth int) string { return strings.Repeat("  ", min(depth, 12)) }
