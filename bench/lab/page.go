// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// pagePath is where a report of a directory goes.
func pagePath(dir string) string { return filepath.Join(dir, "report.html") }

// writePage writes the HTML report, a file that needs nothing beside it.
func (r *Results) writePage(path string) error {
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, r.page()); err != nil {
		return err
	}
	return replace(path, b.Bytes())
}

// What the template is given.
type (
	page struct {
		Title   string
		When    string
		System  string
		Remarks string
		Columns []GuardDoc
		Tallies []guardTally
		Rows    []pageRow
		Blocks  []pageBlock
	}
	guardTally struct {
		Name                        string
		Alive, Toss, Dead, Best, Of int // scenarios that could be survived
	}
	pageRow struct {
		Name, Frame string
		Cells       []pageCell
	}
	pageCell struct {
		None  bool
		Best  bool
		Class string // alive, dead, toss, failed
		Odds  string
		Work  string
		Named string
	}
	pageBlock struct {
		ScenarioDoc
		Frame string
		Unit  string
		Heads []string
		Cards []pageCard
	}
	pageCard struct {
		pageCell
		Guard   string
		figures []figure
		Figures []string
		Chart   template.HTML
		Runs    []pageRun
	}
	pageRun struct {
		Repeat    int
		Outcome   Outcome
		Kills     uint64
		Notes     []string
		Artefacts string
		Tail      string
	}
)

func (r *Results) page() *page {
	p := &page{
		Title: "Out-of-memory lab", When: r.Start.UTC().Format("2006-01-02 15:04 UTC"),
		System:  r.system(),
		Remarks: r.remarks(), Columns: r.Guards,
	}
	p.Tallies = make([]guardTally, len(r.Guards))
	for i, g := range r.Guards {
		p.Tallies[i].Name = g.Name
	}
	for all := r.summaries(); len(all) > 0; {
		n := 1
		for n < len(all) && all[n].scenario.Name == all[0].scenario.Name {
			n++
		}
		p.add(all[:n])
		all = all[n:]
	}
	return p
}

// add takes the summaries of one scenario.
func (p *page) add(group []*summary) {
	best := bestOf(group)
	doc := group[0].scenario
	block := pageBlock{ScenarioDoc: doc, Frame: group[0].frame(), Unit: "work/s"}
	if doc.Load {
		block.Unit = "answers/s"
	}
	c := newChart(group)
	for _, s := range group {
		card := pageCard{pageCell: s.cell(best[s]), Guard: s.guard}
		card.figures = s.figures()
		if len(s.runs) > 0 {
			card.Chart = c.draw(s)
		}
		for _, r := range append(s.runs[:len(s.runs):len(s.runs)], s.failed...) {
			card.Runs = append(card.Runs, r.page())
		}
		block.Cards = append(block.Cards, card)
	}
	for i, f := range block.Cards[0].figures { // without the columns that nobody fills
		if !slices.ContainsFunc(block.Cards, func(c pageCard) bool { return c.figures[i].text != "" }) {
			continue
		}
		block.Heads = append(block.Heads, f.name)
		for k := range block.Cards {
			block.Cards[k].Figures = append(block.Cards[k].Figures, block.Cards[k].figures[i].text)
		}
	}
	p.Blocks = append(p.Blocks, block)

	row := pageRow{Name: doc.Name, Frame: block.Frame}
	for i, g := range p.Columns {
		cell := pageCell{None: true}
		for _, s := range group {
			if s.guard == g.Name {
				cell = s.cell(best[s])
				p.Tallies[i].count(s, cell)
			}
		}
		row.Cells = append(row.Cells, cell)
	}
	p.Rows = append(p.Rows, row)
}

func (t *guardTally) count(s *summary, c pageCell) {
	if !s.scenario.Survivable || len(s.runs) == 0 {
		return
	}
	t.Of++
	if c.Best {
		t.Best++
	}
	switch {
	case s.toss():
		t.Toss++
	case s.dead() == 0:
		t.Alive++
	default:
		t.Dead++
	}
}

func (s *summary) cell(best bool) pageCell {
	c := pageCell{Best: best, Odds: s.odds(), Work: number(of(s.runs, goodput)), Named: s.named()}
	switch {
	case len(s.runs) == 0:
		c.Class = "failed"
	case s.toss():
		c.Class = "toss"
	case s.dead() > 0:
		c.Class = "dead"
	default:
		c.Class = "alive"
	}
	return c
}

// page is what a run left behind, for whoever wants to know more.
func (r *Result) page() pageRun {
	p := pageRun{Repeat: r.Repeat, Outcome: r.Outcome, Kills: r.Kills}
	if r.Error != "" {
		p.Notes = append(p.Notes, r.Error)
	}
	for _, d := range r.Deaths {
		by := d.How
		if d.Kernel {
			by = "killed by the kernel"
		}
		text := fmt.Sprintf("%s %s at %.2f s", d.Who, by, d.At)
		for _, n := range d.Named {
			text += fmt.Sprintf("; %s said %.1f s ahead", n.Finding, n.Ahead)
		}
		p.Notes = append(p.Notes, text)
		if len(p.Notes) == 20 {
			p.Notes = append(p.Notes, "...")
			break
		}
	}
	if r.Outcome == Alive {
		for _, e := range r.Events {
			if e.Kind == "raised" && len(p.Notes) < 20 {
				p.Notes = append(p.Notes, fmt.Sprintf("%s (%s) at %.1f s: %s", e.Finding, e.Severity, e.At, e.Text))
			}
		}
	}
	var files []string
	for _, f := range r.Artefacts {
		files = append(files, fmt.Sprintf("%s (%d bytes)", f.Name, f.Size))
	}
	p.Artefacts = strings.Join(files, ", ")
	p.Tail = strings.Join(r.Stderr[max(len(r.Stderr)-12, 0):], "\n")
	return p
}
