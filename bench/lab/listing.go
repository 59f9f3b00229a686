// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// listing is what there is to run.
type listing struct {
	Scenarios []ScenarioDoc `json:"scenarios"`
	Guards    []GuardDoc    `json:"guards"`
}

func newListing(scenarios []Scenario, contenders []Contender) *listing {
	l := &listing{Scenarios: []ScenarioDoc{}, Guards: []GuardDoc{}}
	for i := range scenarios {
		l.Scenarios = append(l.Scenarios, scenarioDoc(&scenarios[i]))
	}
	for i := range contenders {
		l.Guards = append(l.Guards, guardDoc(&contenders[i]))
	}
	return l
}

func (l *listing) writeText(w io.Writer, width int) error {
	var b strings.Builder
	for _, s := range l.Scenarios {
		fate := "nothing can save it"
		if s.Survivable {
			fate = "it could live"
		}
		fmt.Fprintf(&b, "%s  (%d MiB, %.0f s, %s)\n", s.Name, s.Limit>>20, s.Seconds, fate)
		wrap(&b, s.Story, 4, width)
		if s.Claim != "" {
			wrap(&b, "Claim: "+s.Claim, 4, width)
		}
		if s.Best != "" {
			wrap(&b, "Best: "+s.Best, 4, width)
		}
		b.WriteByte('\n')
	}
	b.WriteString("Guards:\n")
	for _, g := range l.Guards {
		fmt.Fprintf(&b, "  %s\n", strings.TrimSpace(g.Name+" "+g.Version))
		wrap(&b, g.Setup, 4, width)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// wrap writes text in lines of at most width columns.
func wrap(b *strings.Builder, text string, indent, width int) {
	column := 0
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case column == 0:
			b.WriteString(strings.Repeat(" ", indent))
			column = indent
		case column+1+n > width:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	if column > 0 {
		b.WriteByte('\n')
	}
}
