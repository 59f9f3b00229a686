// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

func reportCommand() *cobra.Command {
	var page string
	c := &cobra.Command{
		Use:   "report DIR",
		Short: "Table and HTML page of earlier runs",
		Long: `Report reads a directory that "run --json" has written, prints its table, and
writes the page: DIR/report.html, or what --out names. The page needs nothing
beside it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := ReadResults(args[0])
			if err != nil {
				return cannot(err)
			}
			if page == "" {
				page = pagePath(args[0])
			}
			if err := r.writePage(page); err != nil {
				return cannot(err)
			}
			width, color := terminal(c.OutOrStdout())
			if err := r.writeTable(c.OutOrStdout(), width, color); err != nil {
				return written(err)
			}
			fmt.Fprintln(c.ErrOrStderr(), "wrote", page)
			return nil
		},
	}
	c.Flags().StringVar(&page, "out", "", "file for the page (default DIR/report.html)")
	return c
}

func compareCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "compare BEFORE AFTER",
		Short: "What changed between two series of runs, and what is noise",
		Long: `Compare holds two directories of "run --json" against each other. A figure has
changed when all repeats after lie on one side of all repeats before; how often
that happens by luck alone is said beside it. What overlaps is noise. Two series
are not interleaved: what else the machine did meanwhile is in the figures.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			before, err := ReadResults(args[0])
			if err != nil {
				return cannot(err)
			}
			after, err := ReadResults(args[1])
			if err != nil {
				return cannot(err)
			}
			cmp := compare(before, after)
			if asJSON {
				e := json.NewEncoder(c.OutOrStdout())
				e.SetIndent("", "  ")
				return written(e.Encode(cmp))
			}
			width, color := terminal(c.OutOrStdout())
			return written(cmp.writeText(c.OutOrStdout(), width, color))
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// comparison is what changed between two series.
type comparison struct {
	Notes []string  `json:"notes"` // why they compare badly, if they do
	Pairs []pairing `json:"pairs"`
}

// pairing is one scenario under one guard, before and after.
type pairing struct {
	Scenario string    `json:"scenario"`
	Guard    string    `json:"guard"`
	Before   side      `json:"before"`
	After    side      `json:"after"`
	Change   *float64  `json:"change"` // of the goodput's middle, as a share of before; null if that was 0
	Outcome  judgement `json:"outcome"`
	Goodput  judgement `json:"goodput"`
}

// side is one series' part of a pairing.
type side struct {
	Runs    int        `json:"runs"`
	Dead    int        `json:"dead"`
	Odds    string     `json:"odds"`
	Goodput [3]float64 `json:"goodput_per_second"` // lowest, middle, highest
}

// judgement says whether a difference means something.
type judgement struct {
	Differs bool    `json:"differs"`     // all after lie on one side of all before
	Luck    float64 `json:"by_luck"`     // probability of that if nothing had changed; 1 if it does not differ
	Text    string  `json:"explanation"` // in words
}

// judge compares repeats by their ranges. For n and m values of one
// distribution, complete separation to either side has the probability
// 2 / C(n+m, n): what the exact Mann-Whitney test gives at its extreme.
func judge(a, b spread) judgement {
	switch {
	case a.n == 0 || b.n == 0:
		return judgement{Luck: 1, Text: "one side has no figure"}
	case a.low == b.low && a.high == b.high:
		return judgement{Luck: 1, Text: "the same"}
	case a.low <= b.high && b.low <= a.high:
		return judgement{Luck: 1, Text: "noise"}
	}
	luck := 2.0
	for i := 1; i <= a.n; i++ {
		luck *= float64(i) / float64(b.n+i)
	}
	if luck >= 1 {
		return judgement{Luck: 1, Text: "one run each: may be noise"}
	}
	return judgement{Differs: true, Luck: luck, Text: fmt.Sprintf("by luck 1 in %.0f", 1/luck)}
}

func compare(before, after *Results) *comparison {
	c := &comparison{Notes: []string{}, Pairs: []pairing{}}
	for _, f := range []struct{ what, a, b string }{
		{"Go", before.Go, after.Go}, {"kernel", before.Kernel, after.Kernel},
		{"system", before.OS, after.OS}, {"number of CPUs", fmt.Sprint(before.CPUs), fmt.Sprint(after.CPUs)},
	} {
		if f.a != f.b {
			c.Notes = append(c.Notes, fmt.Sprintf("another %s: %s before, %s after", f.what, f.a, f.b))
		}
	}
	old := map[string]*summary{}
	for _, s := range before.summaries() {
		old[s.scenario.Name+" under "+s.guard] = s
	}
	for _, s := range after.summaries() {
		key := s.scenario.Name + " under " + s.guard
		o := old[key]
		delete(old, key)
		switch {
		case o == nil:
			c.Notes = append(c.Notes, key+": only after")
		case o.frame() != s.frame():
			c.Notes = append(c.Notes, fmt.Sprintf("%s: not the same thing: %s before, %s after", key, o.frame(), s.frame()))
		default:
			c.Pairs = append(c.Pairs, pair(o, s))
		}
	}
	for _, s := range before.summaries() {
		if key := s.scenario.Name + " under " + s.guard; old[key] != nil {
			c.Notes = append(c.Notes, key+": only before")
		}
	}
	return c
}

func pair(o, s *summary) pairing {
	sideOf := func(s *summary) (side, spread, spread) {
		g := of(s.runs, goodput)
		dead := of(s.runs, func(r *Result) (float64, bool) {
			if r.Outcome != Alive {
				return 1, true
			}
			return 0, true
		})
		return side{len(s.runs), s.dead(), s.odds(), [3]float64{g.low, g.mid, g.high}}, g, dead
	}
	a, ga, da := sideOf(o)
	b, gb, db := sideOf(s)
	p := pairing{Scenario: s.scenario.Name, Guard: s.guard, Before: a, After: b, Outcome: judge(da, db), Goodput: judge(ga, gb)}
	if ga.mid > 0 && gb.n > 0 {
		change := gb.mid/ga.mid - 1
		p.Change = &change
	}
	return p
}

func (c *comparison) writeText(w io.Writer, width int, color bool) error {
	var b strings.Builder
	rows := [][]cell{{{text: "SCENARIO"}, {text: "GUARD"}, {text: "OUTCOME"}, {text: "WORK/s BEFORE", right: true}, {text: "AFTER", right: true}, {text: "CHANGE", right: true}, {text: ""}}}
	for _, p := range c.Pairs {
		row := []cell{{text: p.Scenario}, {text: p.Guard}, {text: p.After.Odds}, {text: fmt.Sprintf("%.0f", p.Before.Goodput[1]), right: true}, {text: fmt.Sprintf("%.0f", p.After.Goodput[1]), right: true}, {right: true}, {text: p.Goodput.Text}}
		if p.Before.Dead != p.After.Dead || p.Before.Runs != p.After.Runs {
			row[2].text = fmt.Sprintf("%s -> %s (%s)", p.Before.Odds, p.After.Odds, p.Outcome.Text)
		}
		if p.Outcome.Differs {
			row[2].color = green
			if p.After.Dead > 0 {
				row[2].color = red
			}
		}
		if p.Change != nil {
			row[5].text = fmt.Sprintf("%+.1f %%", 100**p.Change)
			if p.Goodput.Differs {
				row[5].color = green
				if *p.Change < 0 {
					row[5].color = red
				}
			} else {
				row[5].text = "~ " + row[5].text
			}
		}
		rows = append(rows, row)
	}
	if len(c.Pairs) > 0 {
		writeCells(&b, rows, color)
	} else {
		b.WriteString("The two have nothing in common.\n")
	}
	for _, n := range c.Notes {
		wrap(&b, "Note: "+n+".", 0, width)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
