// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// place is where the experiments ran.
type place struct {
	Go         string `json:"go"`
	System     string `json:"system"`
	Kernel     string `json:"kernel,omitempty"`
	CPUs       int    `json:"cpus"`
	Cgo        bool   `json:"cgo"`
	THP        string `json:"thp,omitempty"` // transparent_hugepage/enabled
	Overcommit string `json:"overcommit_memory,omitempty"`
}

// here reads it; what this system does not tell stays empty.
func here(root string) place {
	k := settings{root: root}
	known := func(file string) string { v, _ := k.value(file); return v }
	release, _ := os.ReadFile(filepath.Join(root, "proc/sys/kernel/osrelease"))
	return place{
		Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, Kernel: strings.TrimSpace(string(release)),
		CPUs: runtime.NumCPU(), Cgo: cgo, THP: known(thp + "enabled"), Overcommit: known(overcommit),
	}
}

func (p place) String() string {
	unknown := func(s string) string { return cmp.Or(s, "unknown") }
	return fmt.Sprintf("%s %s, kernel %s, %d CPUs, transparent huge pages: %s, vm.overcommit_memory: %s, cgo: %t",
		p.Go, p.System, unknown(p.Kernel), p.CPUs, unknown(p.THP), unknown(p.Overcommit), p.Cgo)
}

// printer writes results for people.
type printer struct {
	io.Writer
	on place
}

// text writes one result.
func (p *printer) text(r *Result, first bool) error {
	var b bytes.Buffer
	if first {
		fmt.Fprintf(&b, "%s\n", p.on)
	}
	from := "not in the article"
	if r.Article != "" {
		from = "article " + r.Article
	}
	fmt.Fprintf(&b, "\n%-9s%s (%s)\n", strings.ToUpper(r.outcome()), r.Name, from)
	for _, part := range [][2]string{
		{"claim", r.Claim}, {"happened", r.Happened}, {"because", r.Why}, {"instead", r.expected()},
		{"skipped", r.Skipped}, {"error", r.Error}, {"watch", r.Signal},
	} {
		if part[1] != "" {
			wrap(&b, part[0], part[1])
		}
	}
	_, err := p.Write(b.Bytes())
	return err
}

// outcome is the verdict, or one word for why there is none.
func (r *Result) outcome() string {
	switch {
	case r.Verdict != "":
		return string(r.Verdict)
	case r.Skipped != "":
		return "skipped"
	}
	return "error"
}

// expected is a sentence if the verdict is not the expected one.
func (r *Result) expected() string {
	if !r.Surprising() {
		return ""
	}
	return fmt.Sprintf("This contradicts what was found before, which is: %s.", r.Expected)
}

// wrap writes a labelled paragraph, 80 columns wide.
func wrap(b *bytes.Buffer, label, text string) {
	const indent, width = 11, 80
	fmt.Fprintf(b, "  %-*s", indent-2, label)
	column := indent
	for i, word := range strings.Fields(text) {
		if n := len([]rune(word)); i > 0 && column+1+n > width {
			fmt.Fprintf(b, "\n%*s", indent, "")
			column = indent
		} else if i > 0 {
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len([]rune(word))
	}
	b.WriteByte('\n')
}

// counts tells how many results came out how.
func counts(results []Result) string {
	n := map[string]int{}
	contradict := 0
	for i := range results {
		n[results[i].outcome()]++
		if results[i].Surprising() {
			contradict++
		}
	}
	var each []string
	for _, outcome := range []string{"true", "partly", "false", "changed", "unclear", "skipped", "error"} {
		if n[outcome] > 0 {
			each = append(each, fmt.Sprintf("%d %s", n[outcome], outcome))
		}
	}
	text := fmt.Sprintf("%d claims: %s", len(results), strings.Join(each, ", "))
	if contradict > 0 {
		text += fmt.Sprintf("; %d against what was found before", contradict)
	}
	return text + "."
}

func (p *printer) summary(results []Result) error {
	_, err := fmt.Fprintf(p, "\n%s\n", counts(results))
	return err
}

// markdown writes docs/claims.md.
func (p *printer) markdown(results []Result) error {
	var b bytes.Buffer
	b.WriteString(`# Claims

What is said about the memory of Go programs, put to the test. Printed by
` + "`go run ./bench/cmd/claims --markdown --touch-kernel`" + `; do not edit. Most sizes and counts repeat from
run to run; times, and what depends on them, do not. Statements with a number are those of an article on why Go services
die of memory, by its chapter; those without one it does not make.

`)
	fmt.Fprintf(&b, "Ran on %s.\n\n%s\n\n| Claim | Article | Verdict |\n|---|---|---|\n", p.on, counts(results))
	for i := range results {
		r := &results[i]
		fmt.Fprintf(&b, "| [%s](#%s) | %s | %s |\n", r.Name, r.Name, r.Article, r.outcome())
	}
	for i := range results {
		r := &results[i]
		fmt.Fprintf(&b, "\n## %s\n\n> %s\n\n**%s.**", r.Name, r.Claim, capital(r.outcome()))
		for _, sentence := range []string{r.Happened, r.expected(), r.Skipped, r.Error} {
			if sentence != "" {
				fmt.Fprintf(&b, " %s", sentence)
			}
		}
		b.WriteString("\n\n")
		if r.Why != "" {
			fmt.Fprintf(&b, "- **Because:** %s\n", r.Why)
		}
		fmt.Fprintf(&b, "- **Watch:** %s\n", r.Signal)
	}
	_, err := p.Write(b.Bytes())
	return err
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// writeList writes what the claims say.
func writeList(w io.Writer, claims []Claim, asJSON bool) error {
	if asJSON {
		type entry struct {
			Name    string `json:"name"`
			Article string `json:"article,omitempty"`
			Claim   string `json:"claim"`
		}
		var list []entry
		for _, c := range claims {
			list = append(list, entry{c.Name, c.Article, c.Says})
		}
		return json.NewEncoder(w).Encode(list)
	}
	var b bytes.Buffer
	for _, c := range claims {
		fmt.Fprintf(&b, "%-24s %-4s %s\n", c.Name, c.Article, c.Says)
	}
	_, err := w.Write(b.Bytes())
	return err
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
