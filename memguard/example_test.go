// SPDX-License-Identifier: Apache-2.0

package memguard_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/memguard/memguard-go/memguard"
)

// A service answers where its memory is and what is wrong, on demand.
func ExampleExplain() {
	r, err := memguard.Explain(context.Background(), 0) // one look; 3 s show growth too
	if err != nil {
		log.Fatal(err)
	}
	var page strings.Builder
	if err := (memguard.Text{Width: 100}).Report(&page, r); err != nil {
		log.Fatal(err)
	}
	if r.Worst() >= memguard.Critical {
		log.Print(page.String())
	}
	fmt.Println(r.PID == os.Getpid(), strings.Contains(page.String(), "VERDICT"))
	// Output: true true
}

// A figure that could not be read is unknown, and the ledger says why. What is
// known and the residual add up to RSS.
func ExampleNewLedger() {
	const mib = 1 << 20
	l := memguard.NewLedger(&memguard.Sample{
		Runtime: memguard.Runtime{
			Origin:  memguard.FromRuntime,
			Objects: memguard.Known[uint64](90 * mib), Unused: memguard.Known[uint64](5 * mib), Free: memguard.Known[uint64](20 * mib),
			Stacks: memguard.Known[uint64](4 * mib), OSStacks: memguard.Known[uint64](0), Metadata: memguard.Known[uint64](6 * mib),
		},
		Process: memguard.Process{
			Go: true, RSS: memguard.Known[uint64](180 * mib), Shared: memguard.Known[uint64](12 * mib),
		},
	})
	for _, row := range l.Rows {
		if n, ok := row.Bytes.Get(); ok {
			fmt.Printf("%-16s %3d MiB\n", row.Name, n/mib)
		} else {
			fmt.Printf("%-16s unknown: %s\n", row.Name, row.Why)
		}
	}
	residual, _ := l.Residual.Get()
	fmt.Println("residual", residual)
	// Output:
	// go/heap/live     unknown: no collection has completed yet
	// go/heap/dead      90 MiB
	// go/heap/unused     5 MiB
	// go/heap/free      20 MiB
	// go/stacks          4 MiB
	// go/metadata        6 MiB
	// go/untouched       0 MiB
	// anon/other        43 MiB
	// thp/refill       unknown: needs smaps, which was not read
	// file              12 MiB
	// binary           unknown: needs smaps, which was not read
	// libc             unknown: needs smaps, which was not read
	// shmem            unknown: needs smaps, which was not read
	// special          unknown: needs smaps, which was not read
	// lazyfree         unknown: needs smaps, which was not read
	// residual 0
}

// A service watches itself from its first line to its last, and logs what is
// found while there is time to act.
func ExampleStart() {
	g := memguard.Start(memguard.Config{
		Event: func(e memguard.Event) {
			switch e.Kind {
			case memguard.Raised:
				if e.Finding.Severity >= memguard.Warning {
					log.Printf("memory: %s: %s %s", e.Finding.ID, e.Finding.Summary, e.Finding.Remedy)
				}
			case memguard.Lost:
				log.Printf("memory: cannot see %s: %s", e.Blind.What, e.Blind.Why)
			}
		},
	})
	defer g.Close()

	// ... the service runs ...

	r, err := g.Report() // for a debug page
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Verdict != "")
	// Output: true
}

// A Value cannot be read without meeting the case that it is unknown.
func ExampleValue() {
	var limit memguard.Bytes // nobody has read it
	if _, ok := limit.Get(); !ok {
		fmt.Println("unknown is not zero")
	}
	limit = memguard.Known[uint64](512 << 20)
	n, _ := limit.Get()
	fmt.Println(n)
	// Output:
	// unknown is not zero
	// 536870912
}
