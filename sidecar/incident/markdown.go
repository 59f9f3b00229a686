// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/memguard/memguard-go/sidecar/internal/plain"
)

// WriteMarkdown writes the report in Markdown, with tables as GitHub has them.
func (r *Report) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s: %s\n\n**%s**\n", md(r.Target), md(string(r.Cause)), md(r.Verdict))
	sections := r.sections()
	for i, s := range sections {
		if s.title != "" {
			fmt.Fprintf(&b, "\n## %s\n", md(s.title))
		}
		for _, text := range s.say {
			fmt.Fprintf(&b, "\n%s\n", md(text))
		}
		if len(s.list) > 0 {
			b.WriteString("\n")
		}
		for _, text := range s.list {
			fmt.Fprintf(&b, "- %s\n", md(text))
		}
		mdTable(&b, &s)
		mdLines(&b, s.lines)
		if i == 0 {
			r.mdPlot(&b)
		}
	}
	if len(r.Files) > 0 {
		b.WriteString("\n## Files\n\n")
		for _, f := range r.Files {
			fmt.Fprintf(&b, "- %s (%d bytes): %s\n", md(f.Name), f.Bytes, md(f.What))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func mdTable(b *strings.Builder, s *section) {
	if len(s.rows) == 0 {
		return
	}
	b.WriteString("\n|")
	for _, c := range s.head {
		b.WriteString(" " + md(c.name) + " |")
	}
	b.WriteString("\n|")
	for _, c := range s.head {
		if c.right {
			b.WriteString("---:|")
		} else {
			b.WriteString("---|")
		}
	}
	for _, r := range s.rows {
		b.WriteString("\n|")
		for _, c := range r.cells {
			b.WriteString(" " + md(c) + " |")
		}
	}
	b.WriteString("\n")
	for n, r := range s.rows {
		if len(r.more) > 0 && n < 5 {
			fmt.Fprintf(b, "\nStack of row %d:\n", n+1)
			mdLines(b, r.more)
		}
	}
}

// mdLines writes lines as they are. Four spaces make a block of code that no text
// within a line can end, as it could one between fences.
func mdLines(b *strings.Builder, lines []string) {
	if len(lines) == 0 {
		return
	}
	b.WriteString("\n")
	for _, l := range lines {
		b.WriteString("    " + plain.Line(l) + "\n")
	}
}

// mdPlot writes the plot of a terminal.
func (r *Report) mdPlot(b *strings.Builder) {
	p := &page{width: 88}
	p.plot(r.instants(), "Go heap", r.Severity > 0)
	if p.Len() == 0 {
		return
	}
	b.WriteString("\n## Memory against the limit\n")
	text := strings.TrimPrefix(p.String(), "\n")
	_, text, _ = strings.Cut(text, "\n") // its title
	mdLines(b, strings.Split(strings.TrimRight(text, "\n"), "\n"))
}

var mdEscapes = func() *strings.Replacer {
	pairs := []string{
		"&", "&amp;", "<", "&lt;", ">", "&gt;", "@", "&#64;",
		"://", "&#58;//", "www.", "www&#46;", // what GitHub makes a link of without being asked
	}
	for _, c := range "\\`*_{}[]#|~!$" {
		pairs = append(pairs, string(c), `\`+string(c))
	}
	return strings.NewReplacer(pairs...)
}()

// ordered is what begins an ordered list.
var ordered = regexp.MustCompile(`^([0-9]+)[.)](?:\s|$)`)

// md escapes a text so that it shows as it is: no markup, HTML, link or mention, and
// no new line.
func md(s string) string {
	s = mdEscapes.Replace(plain.Line(s))
	if m := ordered.FindStringSubmatch(s); m != nil {
		return m[1] + `\` + s[len(m[1]):]
	}
	if s != "" && strings.ContainsAny(s[:1], "+-=") {
		return `\` + s
	}
	return s
}
