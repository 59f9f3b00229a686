// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/memguard/memguard-go/memguard"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// printer writes what a command found, as text or as JSON.
type printer struct {
	out   io.Writer
	json  bool
	watch bool
	every time.Duration
}

func (p *printer) jsonFlag(c *cobra.Command) {
	c.Flags().BoolVar(&p.json, "json", false, "print JSON")
}

func (p *printer) watchFlags(c *cobra.Command) {
	c.Flags().BoolVarP(&p.watch, "watch", "w", false, "look again and again until interrupted or the process ends; with --json a line for each look")
	p.every = 2 * time.Second
	c.Flags().Var((*above0)(&p.every), "every", "with --watch: time between two looks")
}

// above0 is the value of a flag for a time above zero.
type above0 time.Duration

func (d *above0) Set(s string) error {
	n, err := time.ParseDuration(s)
	if err == nil && n <= 0 {
		err = errors.New("want a time above zero, such as 2s")
	}
	*d = above0(n)
	return err
}

func (d *above0) String() string { return time.Duration(*d).String() }
func (d *above0) Type() string   { return "duration" }

// text is how to write for whoever reads p.out.
func (p *printer) text() memguard.Text {
	width, color := terminal(p.out)
	return memguard.Text{Width: width, Color: color}
}

// print writes v as JSON, or as text does.
func (p *printer) print(v any, text func(io.Writer) error) error {
	var err error
	if p.json {
		e := json.NewEncoder(p.out)
		if !p.watch {
			e.SetIndent("", "  ")
		}
		err = e.Encode(v)
	} else {
		if p.watch && isTerminal(p.out) {
			fmt.Fprint(p.out, "\x1b[H\x1b[2J") // home and clear
		}
		err = text(p.out)
	}
	if err != nil {
		return cannotLook(fmt.Errorf("writing: %w", err))
	}
	return nil
}

// show writes v, which lays itself out for a terminal's width. Its method comes by
// itself, for an interface would link that of every type that has one.
func (p *printer) show(v any, writeText func(w io.Writer, width int, color bool) error) error {
	width, color := terminal(p.out)
	return p.print(v, func(w io.Writer) error { return writeText(w, width, color) })
}

// repeat calls look once, or with --watch until the context ends or look fails.
// That the process ends is the natural end of watching it.
func (p *printer) repeat(ctx context.Context, look func() error) error {
	for {
		if err := look(); err != nil || !p.watch {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(p.every):
		}
	}
}

// isTerminal reports whether rw, a reader or a writer, is a terminal.
func isTerminal(rw any) bool {
	f, ok := rw.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// terminal returns the width to write for, and whether w is a terminal that
// takes colours.
func terminal(w io.Writer) (width int, color bool) {
	if !isTerminal(w) {
		return 80, false
	}
	width = 80
	if n, _, err := term.GetSize(int(w.(*os.File).Fd())); err == nil && n > 0 {
		width = min(n, 120)
	}
	return width, os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// writeFile writes a file whole or not at all.
func writeFile(name string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".memguard-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already if all went well
	err = errors.Join(write(f), f.Chmod(0o644), f.Close())
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return os.Rename(f.Name(), name)
}

// fit makes a text that another process may have chosen safe for a terminal, in
// one line of it.
func fit(s string, width int) string {
	runes := []rune(strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsGraphic(r) {
			return '?'
		}
		return r
	}, s))
	if width = max(width, 2); len(runes) > width {
		return string(runes[:width-1]) + "…"
	}
	return string(runes)
}
