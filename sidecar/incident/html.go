// SPDX-License-Identifier: Apache-2.0

package incident

import (
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"regexp"
	"strings"

	"github.com/memguard/memguard-go/sidecar/internal/plain"
)

// style.css is the whole look of the page, light and dark, on screen and paper.
//
//go:embed style.css
var style string

// mostEmbedded bounds what a page carries of files.
const mostEmbedded = 16 << 20

// policy lets the page do nothing but show itself.
const policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

// WriteHTML writes the report as one page that needs nothing else: no script, no
// font, no image. The files are in it, to be saved from it; those beyond 16 MiB are
// only named.
func (r *Report) WriteHTML(w io.Writer, files []File) error {
	var b strings.Builder
	esc := html.EscapeString
	fmt.Fprintf(&b, `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="%s"><meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">
<title>%s: %s</title><style>%s</style></head><body><main>
<header class="%s"><p class="cause">%s</p><h1>%s</h1></header>
`, policy, esc(r.Target), esc(string(r.Cause)), style, r.severity(), esc(string(r.Cause)), breakable(r.Verdict))
	for i, s := range r.sections() {
		htmlSection(&b, &s)
		if i > 0 { // the plot is after the facts
			continue
		}
		if c := r.chart(); c != nil {
			b.WriteString(`<section><h2>Memory against the limit</h2>`)
			c.write(&b, r)
			b.WriteString("</section>\n")
		}
	}
	if err := r.htmlFiles(&b, files); err != nil {
		return err
	}
	b.WriteString("</main></body></html>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// severity is the class of the page's head.
func (r *Report) severity() string {
	if r.Severity == 0 {
		return "fine"
	}
	return r.Severity.String()
}

func htmlSection(b *strings.Builder, s *section) {
	if s.title == "" {
		b.WriteString(`<section><dl>`)
		for _, r := range s.rows {
			fmt.Fprintf(b, `<div><dt>%s</dt><dd>%s</dd></div>`, html.EscapeString(r.cells[0]), breakable(r.cells[1]))
		}
		b.WriteString("</dl></section>\n")
		return
	}
	fmt.Fprintf(b, `<section><h2>%s</h2>`, html.EscapeString(s.title))
	for _, text := range s.say {
		fmt.Fprintf(b, `<p>%s</p>`, breakable(text))
	}
	if len(s.list) > 0 {
		b.WriteString(`<ul>`)
		for _, text := range s.list {
			fmt.Fprintf(b, `<li>%s</li>`, breakable(text))
		}
		b.WriteString(`</ul>`)
	}
	htmlTable(b, s)
	if len(s.lines) > 0 {
		b.WriteString(`<pre tabindex="0">`)
		for _, l := range s.lines {
			b.WriteString(html.EscapeString(plain.Line(l)) + "\n")
		}
		b.WriteString(`</pre>`)
	}
	b.WriteString("</section>\n")
}

func htmlTable(b *strings.Builder, s *section) {
	if len(s.rows) == 0 {
		return
	}
	class := func(i int) string {
		if s.head[i].right {
			return ` class="n"`
		}
		return ""
	}
	// A region that scrolls must be reachable with the keyboard.
	fmt.Fprintf(b, `<div class="scroll" tabindex="0" role="region" aria-label="%s"><table><thead><tr>`, html.EscapeString(s.title))
	for i, c := range s.head {
		fmt.Fprintf(b, `<th scope="col"%s>%s</th>`, class(i), html.EscapeString(c.name))
	}
	b.WriteString(`</tr></thead><tbody>`)
	for n, r := range s.rows {
		fmt.Fprintf(b, `<tr class="%s">`, html.EscapeString(r.mark))
		for i, cell := range r.cells {
			fmt.Fprintf(b, `<td%s>`, class(i))
			if len(r.more) > 1 && s.head[i].stack {
				open := ""
				if n == 0 {
					open = " open"
				}
				fmt.Fprintf(b, `<details%s><summary>%s</summary><ol>`, open, breakable(cell))
				for _, m := range r.more {
					fmt.Fprintf(b, `<li>%s</li>`, breakable(m))
				}
				b.WriteString(`</ol></details>`)
			} else {
				b.WriteString(breakable(cell))
			}
			b.WriteString(`</td>`)
		}
		b.WriteString(`</tr>`)
	}
	b.WriteString(`</tbody></table></div>`)
}

// htmlFiles writes links that hold the files' bytes.
func (r *Report) htmlFiles(b *strings.Builder, files []File) error {
	report, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("incident: %w", err)
	}
	b.WriteString(`<section><h2>Files</h2><ul class="files">`)
	left := mostEmbedded
	for _, f := range append([]File{{"report.json", "this report for programs", report}}, files...) {
		name := html.EscapeString(fileName(f.Name))
		if left -= len(f.Content); left < 0 {
			fmt.Fprintf(b, `<li>%s, %s: too large for this page</li>`, name, html.EscapeString(plain.Line(f.What)))
			continue
		}
		kind := "application/octet-stream"
		if strings.HasSuffix(f.Name, ".json") {
			kind = "application/json"
		}
		fmt.Fprintf(b, `<li><a download="%s" href="data:%s;base64,%s">%s</a> %s (%s)</li>`, name, kind,
			base64.StdEncoding.EncodeToString(f.Content), name, html.EscapeString(plain.Line(f.What)), short(float64(len(f.Content))))
	}
	b.WriteString(`</ul><p class="hint">Profiles open with <code>go tool pprof FILE</code>; two heap profiles compare with <code>go tool pprof -base EARLIER LATER</code>.</p></section>`)
	return nil
}

// seam is where a long name may break: a figure such as 1.5 may not.
var seam = regexp.MustCompile(`([/_])([A-Za-z(*])|(\.)([A-Z(])`)

// breakable escapes a text, and lets a long name break at its separators.
func breakable(s string) string {
	return seam.ReplaceAllString(html.EscapeString(plain.Line(s)), "$1$3<wbr>$2$4")
}
