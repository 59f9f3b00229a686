// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Verdict is what the figures say about a claim.
type Verdict string

const (
	True    Verdict = "true"
	Partly  Verdict = "partly"
	False   Verdict = "false"
	Changed Verdict = "changed" // it held for earlier releases, whose behaviour can still be switched on
	Unclear Verdict = "unclear" // the control of the experiment failed, so the figures say nothing
)

// Claim is one statement and the experiment that tells whether it holds.
type Claim struct {
	Name    string  // as on the command line
	Article string  // the statement's chapter and number in the article; empty if it does not make it
	Says    string  // the statement
	Expect  Verdict // what was found before
	Why     string  // the mechanism, and where the runtime or the kernel has it
	Signal  string  // to watch instead

	Variants []Variant // one process each; none is one process with nothing set
	experiment
}

// Variant is the surroundings of one process of an experiment.
type Variant struct {
	Name   string
	Env    []string
	Kernel []Setting // machine-wide: changed with --touch-kernel only
}

// Setting is a file of the kernel's and what to write into it.
type Setting struct{ File, Value string } // File as in proc/sys/vm/overcommit_memory

// experiment has two halves. The first measures, in a process of its own for
// each variant. The second judges the figures of all variants, in their order,
// and tells them in a sentence.
type experiment struct {
	measure func() (any, error)
	judge   func(figures []json.RawMessage) (Verdict, string, error)
}

// test makes an experiment of two functions that agree on the figures.
func test[T any](measure func() (T, error), judge func([]T) (Verdict, string)) experiment {
	return experiment{
		measure: func() (any, error) { return measure() },
		judge: func(raw []json.RawMessage) (Verdict, string, error) {
			figures := make([]T, len(raw))
			for i, r := range raw {
				if err := json.Unmarshal(r, &figures[i]); err != nil {
					return "", "", fmt.Errorf("figures of variant %d: %w", i, err)
				}
			}
			v, happened := judge(figures)
			return v, happened, nil
		},
	}
}

// errNotHere is wrapped by the error of an experiment that this system, or this
// build of the program, does not have. Its claim is skipped.
var errNotHere = errors.New("not here")

// all is every claim, in the order in which they are told.
var all = slices.Concat(pacing, stacks, spans, finalizers, memstats, releasing, kernel, libc, requests)
