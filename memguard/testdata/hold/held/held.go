// SPDX-License-Identifier: Apache-2.0

// Package held is the frame of the hold programs: each brings itself into a
// state of memory that it knows by construction, tells what it holds and what
// its own ledger says of it, and keeps the state until its standard input is
// closed, so that somebody else can look at it from outside.
package held

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/memguard/memguard-go/memguard"
)

// MiB is the unit that the cases are written in.
const MiB = 1 << 20

// Holds is what a case knows that it holds, in bytes, by the name of the row of
// the process's ledger or of its cgroup's where it belongs. It comes from the
// sizes that the case asked for and touched, not from the runtime or the kernel.
type Holds map[string]int64

// Case builds up a state. keep is what keeps it alive.
type Case func() (holds Holds, keep any, err error)

// Told is the line of JSON that a hold program prints once it holds.
type Told struct {
	Holds  Holds            `json:"holds"`
	Ledger *memguard.Ledger `json:"ledger"` // of the program itself, by itself
}

// ExitUnsupported is the exit status of a case that this system cannot have.
const ExitUnsupported = 3

// Main runs the case that the first argument names. One that fails with
// errors.ErrUnsupported cannot be on this system.
func Main(cases map[string]Case) {
	err := run(cases)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "hold:", err)
	if errors.Is(err, errors.ErrUnsupported) {
		os.Exit(ExitUnsupported)
	}
	os.Exit(1)
}

func run(cases map[string]Case) error {
	if len(os.Args) < 2 || cases[os.Args[1]] == nil {
		return fmt.Errorf("usage: %s CASE, one of %s", os.Args[0], strings.Join(slices.Sorted(maps.Keys(cases)), ", "))
	}
	name := os.Args[1]
	holds, keep, err := cases[name]()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s := memguard.Self()
	defer s.Close()
	var sample memguard.Sample
	if err := s.Survey(&sample); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	err = json.NewEncoder(os.Stdout).Encode(Told{holds, memguard.NewLedger(&sample)})
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(keep)
	return err
}
