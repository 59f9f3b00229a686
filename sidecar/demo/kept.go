// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/evidence"
)

// Kept is what the guard did and kept, read from what it left: the black box and
// the store of evidence.
type Kept struct {
	Actions []Action       `json:"actions"`          // what was applied, by name
	Clamps  int            `json:"clamps"`           // of a breaker's GC percent
	Raised  []string       `json:"findings"`         // ids at warning and above, in the order of their first time
	Lowest  memguard.Bytes `json:"go_limit_lowest"`  // Go memory limit that was set
	Highest memguard.Bytes `json:"go_limit_highest"` // of the same
	Files   []File         `json:"files"`
}

// Action is one kind of what the guard did.
type Action struct {
	Name  memguard.ActionName `json:"name"`
	Count int                 `json:"count"`  // as told; a memory limit that moves on is told once a second
	First string              `json:"reason"` // the first time
}

// File is what is kept of one kind.
type File struct {
	Kind   string `json:"kind"`
	Count  int    `json:"count"`
	Bytes  int64  `json:"bytes"`
	Scores []int  `json:"percent_of_limit,omitempty"` // that were held when it was taken
}

// readKept reads what a guard left in a directory since it began.
func readKept(dir string, began time.Time) (*Kept, error) {
	boxes, err := evidence.Boxes(dir)
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	k := &Kept{Actions: []Action{}, Raised: []string{}}
	if len(boxes) > 0 {
		r, err := evidence.ReadBox(boxes[len(boxes)-1])
		if err != nil {
			return nil, fmt.Errorf("demo: %w", err)
		}
		k.read(r)
		if st, err := os.Stat(r.Path); err == nil {
			k.Files = append(k.Files, File{Kind: "black box", Count: 1, Bytes: st.Size()})
		}
	}
	files, err := (&evidence.Store{Dir: dir}).Files()
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	for _, path := range files {
		if f, ok := evidence.ParseFile(path); ok && !f.Series.Before(began) {
			k.file(f)
		}
	}
	return k, nil
}

// read goes through a black box.
func (k *Kept) read(r *evidence.Recording) {
	for _, rec := range r.Records {
		d, err := memguard.DecodeRecord(rec.Time, rec.Kind, rec.Payload)
		switch {
		case err != nil:
		case d.Moment != nil:
			if n, ok := d.Moment.MemoryLimit.Get(); ok && n != memguard.Unlimited {
				if low, ok := k.Lowest.Get(); !ok || n < low {
					k.Lowest = memguard.Known(n)
				}
				if high, _ := k.Highest.Get(); n > high {
					k.Highest = memguard.Known(n)
				}
			}
		case d.Event.Kind == memguard.Applied:
			k.action(&d.Event.Action)
		case d.Event.Kind == memguard.Clamped:
			k.Clamps++
		case d.Event.Kind == memguard.Raised && d.Event.Finding.Severity >= memguard.Warning:
			if id := string(d.Event.Finding.ID); !slices.Contains(k.Raised, id) {
				k.Raised = append(k.Raised, id)
			}
		}
	}
}

func (k *Kept) action(a *memguard.Action) {
	i := slices.IndexFunc(k.Actions, func(b Action) bool { return b.Name == a.Name })
	if i < 0 {
		i = len(k.Actions)
		k.Actions = append(k.Actions, Action{Name: a.Name, First: a.Reason})
	}
	k.Actions[i].Count++
}

func (k *Kept) file(f evidence.File) {
	i := slices.IndexFunc(k.Files, func(b File) bool { return b.Kind == f.Name })
	if i < 0 {
		i = len(k.Files)
		k.Files = append(k.Files, File{Kind: f.Name})
	}
	b := &k.Files[i]
	b.Count++
	b.Scores = append(b.Scores, f.Score)
	if st, err := os.Stat(f.Path); err == nil {
		b.Bytes += st.Size()
	}
}
