// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/memguard/memguard-go/bench/lab"
)

// The exit status.
const (
	exitFine     = 0 // every verdict is the expected one
	exitSurprise = 1 // one is not
	exitUsage    = 2 // the command line is wrong
	exitBlind    = 3 // an experiment could not be run, or a setting not be put back
)

const usage = `usage: claims [flags]

Claims runs statements about the memory of Go programs as experiments and
prints what happened, the verdict, and the signal to watch.

  --only NAME,...   these claims only
  --list            the names of all claims, and run none
  --json            every figure, as JSON
  --markdown        as docs/claims.md
  --touch-kernel    let experiments change settings of the whole machine, for
                    some seconds each; every one is put back

Exit status: 0 every verdict is the expected one, 1 one is not, 2 wrong usage,
3 an experiment could not be run. Claims that are skipped say why.
`

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 2 && args[0] == measureArg {
		return measureHere(args[1], stdout, stderr)
	}
	if lab.IsChild() || len(args) > 0 && args[0] == labArg {
		return runLab(args[min(1, len(args)):])
	}
	return program{all, "/"}.run(args, stdout, stderr)
}

// program is what tests set up in another way.
type program struct {
	claims []Claim
	root   string // where proc and sys are
}

func (p program) run(args []string, stdout, stderr io.Writer) int {
	f := flag.NewFlagSet("claims", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	only := f.String("only", "", "")
	list := f.Bool("list", false, "")
	asJSON := f.Bool("json", false, "")
	asMarkdown := f.Bool("markdown", false, "")
	touch := f.Bool("touch-kernel", false, "")
	err := f.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		return exitFine
	case err == nil && f.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	case err == nil && *asJSON && *asMarkdown:
		err = errors.New("--json and --markdown exclude each other")
	}
	var claims []Claim
	if err == nil {
		claims, err = choose(p.claims, *only)
	}
	if err != nil {
		fmt.Fprintf(stderr, "claims: %v\nRun 'claims --help' for the flags.\n", err)
		return exitUsage
	}
	if *list {
		if err := writeList(stdout, claims, *asJSON); err != nil {
			return blind(stderr, err)
		}
		return exitFine
	}
	self, err := os.Executable()
	if err != nil {
		return blind(stderr, err)
	}
	// A signal ends the process that measures, and then everything is put back.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer stop()
	e := &engine{self: self, root: p.root, touch: *touch, log: stderr}
	on := here(e.root)
	out := &printer{stdout, on}
	var results []Result
	status := exitFine
	for i := range claims {
		fmt.Fprintf(stderr, "claims: %d of %d: %s\n", i+1, len(claims), claims[i].Name)
		r, err := e.run(ctx, &claims[i])
		if err != nil { // the machine is not as it was
			return blind(stderr, err)
		}
		if ctx.Err() != nil {
			return blind(stderr, fmt.Errorf("interrupted in %s: %w", claims[i].Name, context.Cause(ctx)))
		}
		results = append(results, r)
		switch {
		case r.Error != "":
			status = exitBlind
		case r.Surprising():
			status = max(status, exitSurprise)
		}
		if !*asJSON && !*asMarkdown {
			if err := out.text(&r, i == 0); err != nil {
				return blind(stderr, err)
			}
		}
	}
	switch {
	case *asJSON:
		err = json.NewEncoder(stdout).Encode(report{on, results})
	case *asMarkdown:
		err = out.markdown(results)
	default:
		err = out.summary(results)
	}
	if err != nil {
		return blind(stderr, err)
	}
	return status
}

// report is the whole output as JSON.
type report struct {
	On      place    `json:"on"`
	Results []Result `json:"results"`
}

func blind(stderr io.Writer, err error) int {
	fmt.Fprintf(stderr, "claims: %v\n", err)
	return exitBlind
}

// choose returns the claims of these names, which are separated by commas, in
// their order; all of them if names is empty.
func choose(all []Claim, names string) ([]Claim, error) {
	if names == "" {
		return all, nil
	}
	wanted := map[string]bool{}
	for name := range strings.SplitSeq(names, ",") {
		name = strings.TrimSpace(name)
		if !slices.ContainsFunc(all, func(c Claim) bool { return c.Name == name }) {
			return nil, fmt.Errorf("no claim %q; --list has the names", name)
		}
		wanted[name] = true
	}
	return slices.DeleteFunc(slices.Clone(all), func(c Claim) bool { return !wanted[c.Name] }), nil
}
