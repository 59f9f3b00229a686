// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"strconv"
	"strings"
	"time"
)

// Outcome is how a run ended.
type Outcome string

// The outcomes. What the kernel did is taken from its own counter of kills.
const (
	Alive  Outcome = "alive"  // nothing died
	Killed Outcome = "killed" // the kernel killed the victim or its neighbour, once or more
	Died   Outcome = "died"   // a process ended by itself before its time: a panic, an error
	Failed Outcome = "failed" // the run could not be made, or not be observed: see Error
)

// Result is what happened in one run.
type Result struct {
	Scenario string    `json:"scenario"`
	Guard    string    `json:"guard"`
	Repeat   int       `json:"repeat"` // from 1
	Start    time.Time `json:"start"`
	Limit    uint64    `json:"limit_bytes"`
	Planned  float64   `json:"planned_seconds"` // what a run takes that nothing ends
	Ran      float64   `json:"ran_seconds"`

	Outcome Outcome `json:"outcome"`
	Kills   uint64  `json:"kernel_kills"` // the cgroup's oom_kill
	Deaths  []Death `json:"deaths"`
	Error   string  `json:"error,omitempty"` // what went wrong with the run itself

	// Done is the work that counts: good answers, or what the victim reported of
	// its own. Goodput is that for each second of Planned: the time after a death
	// counts too.
	Done    uint64  `json:"done"`
	Refused uint64  `json:"refused"`
	Goodput float64 `json:"goodput_per_second"`
	CPU     float64 `json:"cpu_seconds"` // of all lives of the victim
	Lives   int     `json:"lives"`

	Load *Tally `json:"load"` // nil when the victim drives itself

	Peak   *uint64 `json:"peak_bytes"` // most ever charged, page cache included; null if unknown
	Memory []Usage `json:"memory"`
	Work   []Work  `json:"work"`

	Events    []Event  `json:"events"`
	Stderr    []string `json:"stderr"`
	Artefacts []File   `json:"artefacts"` // what it left in its directory
}

// Usage is the cgroup's memory at one time, read from outside.
type Usage struct {
	At    float64 `json:"t"`     // seconds since the start of the run
	Usage uint64  `json:"usage"` // charged
	Held  *uint64 `json:"held"`  // less what is on the lists of file pages and can be dropped; null if unknown
}

// Work is what was done so far, at one time.
type Work struct {
	At      float64 `json:"t"`
	Done    uint64  `json:"done"`
	Refused uint64  `json:"refused"`
	Lost    uint64  `json:"lost"` // wrong, late, failed and unsent
	P99     Seconds `json:"p99"`  // of the answers since the time before
}

// Death is the end of a process of the run before its time.
type Death struct {
	At     float64 `json:"t"`
	Who    string  `json:"who"`    // victim or neighbour
	How    string  `json:"how"`    // its exit status or signal
	Kernel bool    `json:"kernel"` // the kernel killed it for lack of memory

	// Named are the findings of the guard that stood when it died.
	Named []Named `json:"named"`
}

// Named is a cause of death that the guard had named.
type Named struct {
	Finding  string  `json:"finding"`
	Severity string  `json:"severity"`
	Ahead    float64 `json:"ahead_seconds"` // before the death
	Text     string  `json:"text"`
}

// Event is one line of a guard about what it saw:
//
//	event <unix-nano> <kind> <finding-id> <severity> <text>
type Event struct {
	At       float64 `json:"t"`
	Kind     string  `json:"kind"` // raised, cleared, ...
	Finding  string  `json:"finding"`
	Severity string  `json:"severity"`
	Text     string  `json:"text"`

	life int // of the victim that printed it
}

// File is something that a victim left behind.
type File struct {
	Name string `json:"name"`
	Size int64  `json:"bytes"`
}

// parseEvent reads a line of a guard. Anything else is not ok.
func parseEvent(line string, start time.Time) (e Event, ok bool) {
	f := strings.SplitN(line, " ", 6)
	if len(f) < 5 || f[0] != "event" {
		return e, false
	}
	nano, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		return e, false
	}
	e = Event{At: seconds(time.Unix(0, nano).Sub(start)), Kind: f[2], Finding: f[3], Severity: f[4]}
	if len(f) == 6 {
		e.Text = f[5]
	}
	return e, true
}

// named returns the findings that stood in a life when it ended, the first
// raised first.
func named(events []Event, life int, death float64) (stood []Named) {
	for _, e := range events {
		if e.life != life || e.At > death {
			continue
		}
		i := 0
		for i < len(stood) && stood[i].Finding != e.Finding {
			i++
		}
		switch {
		case e.Kind == "raised" && i < len(stood):
			stood[i].Severity = e.Severity
		case e.Kind == "raised" && e.Severity != "info":
			stood = append(stood, Named{e.Finding, e.Severity, death - e.At, e.Text})
		case e.Kind == "cleared" && i < len(stood):
			stood = append(stood[:i], stood[i+1:]...)
		}
	}
	return stood
}

// seconds rounds to what a sample's time is worth.
func seconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }
