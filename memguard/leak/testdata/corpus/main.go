// SPDX-License-Identifier: Apache-2.0

// Command corpus runs one program of the corpus under a [leak.Sampler] and
// prints what it said, as JSON.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/memguard/memguard-go/memguard/leak"
	"github.com/memguard/memguard-go/memguard/leak/testdata/corpus/programs"
)

// answer is what is printed.
type answer struct {
	Verdicts []leak.Verdict // after the last round
	Ever     []leak.Verdict // any that was given after any round
	Runtime  int            // what the goroutineleak profile finds in the end, -1 without it
	At       []leak.Frame   // and where
	Stopped  time.Duration  // by all samples together, at most
}

func main() {
	for _, p := range programs.All() {
		if p.Name == os.Args[1] {
			a, err := run(p)
			if err == nil {
				err = json.NewEncoder(os.Stdout).Encode(a)
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		}
	}
	fmt.Fprintln(os.Stderr, "no such program")
	os.Exit(2)
}

func run(p programs.Program) (a answer, err error) {
	// Rounds come in milliseconds here and not in a quarter of a minute, so the
	// ages are scaled; the number of samples and of goroutines are the defaults.
	// The proof is not used: the verdicts are of signs that every build has.
	s := leak.Sampler{ProveEvery: -1, Tracker: leak.Tracker{MinAge: 20 * time.Millisecond}}
	round := p.New()
	seen := map[leak.Key]bool{}
	for n := range programs.Rounds {
		round(n)
		settle()
		cost, err := s.Sample()
		if err != nil {
			return a, err
		}
		a.Stopped += cost.Stopped
		a.Verdicts = s.Verdicts()
		for _, v := range a.Verdicts {
			if !seen[v.Cluster.Key] {
				seen[v.Cluster.Key] = true
				a.Ever = append(a.Ever, v)
			}
		}
	}
	a.Runtime = -1
	leaked, err := leak.TakeLeaked()
	runtime.KeepAlive(round) // a program's own pools are in use
	if errors.Is(err, leak.ErrNoLeakProfile) {
		return a, nil
	}
	if err != nil {
		return a, err
	}
	a.Runtime = leaked.Goroutines
	for _, c := range leaked.Clusters {
		a.At = append(a.At, c.Blocked())
	}
	return a, nil
}

// settle waits until the number of goroutines stands still, for half a second at
// most.
func settle() {
	last, same := -1, 0
	for range 250 {
		if n := runtime.NumGoroutine(); n == last {
			same++
		} else {
			last, same = n, 0
		}
		if same == 3 {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}
