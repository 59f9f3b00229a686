// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/memguard/memguard-go/bench/contender"
	"github.com/memguard/memguard-go/bench/lab"
	"github.com/memguard/memguard-go/bench/scenario"
)

type tableFigures struct {
	Percent int     `json:"gogc_percent"`
	Goal    uint64  `json:"goal_bytes"`
	Peak    uint64  `json:"max_end_bytes"` // heap at mark end
	Cycles  uint64  `json:"cycles"`
	GCCPU   float64 `json:"gc_cpu_seconds"`
}

func measureTable() (all []tableFigures, err error) {
	live := grow(48 * mib)
	for _, percent := range []int{100, 200, 50} { // closed, open, half-open
		debug.SetGCPercent(percent)
		runtime.GC()
		seen, err := traced()
		if err != nil {
			return nil, err
		}
		f := tableFigures{Percent: percent, Goal: readHeap().Goal}
		before, cpu := readHeap().Automatic, gcCPU()
		churn(512 * mib)
		f.Cycles = readHeap().Automatic - before
		runtime.GC() // the CPU classes move at the end of a cycle only
		f.GCCPU = gcCPU() - cpu
		cycles, err := traced()
		if err != nil {
			return nil, err
		}
		for _, c := range cycles[len(seen):] {
			f.Peak = max(f.Peak, c.HeapEnd)
		}
		all = append(all, f)
	}
	runtime.KeepAlive(live)
	return all, nil
}

// gcCPU is the CPU time of the collector but for what only an idle P would have done.
func gcCPU() float64 {
	return readFloat("/cpu/classes/gc/total:cpu-seconds") - readFloat("/cpu/classes/gc/mark/idle:cpu-seconds")
}

func judgeTable(all [][]tableFigures) (Verdict, string) {
	closed, open, half := all[0][0], all[0][1], all[0][2]
	happened := fmt.Sprintf("The same 512 MiB of garbage beside the same live heap. Closed (%d): goal %s, at mark end at most %s. Open (%d): goal %s, %s. Half-open (%d): %d cycles and %.2f s of GC CPU where closed had %d and %.2f s.",
		closed.Percent, inMiB(closed.Goal), inMiB(closed.Peak), open.Percent, inMiB(open.Goal), inMiB(open.Peak),
		half.Percent, half.Cycles, half.GCCPU, closed.Cycles, closed.GCCPU)
	// By the goals alone: a peak also depends on when the marking got a CPU.
	if open.Goal <= closed.Goal {
		return True, happened
	}
	return False, happened
}

func judgeRoom(all [][]tableFigures) (Verdict, string) {
	closed, open := all[0][0], all[0][1]
	happened := fmt.Sprintf("The same 512 MiB of garbage beside the same live heap. Closed (%d): %d cycles, %.2f s of GC CPU, goal %s. Open (%d): %d cycles, %.2f s, goal %s.",
		closed.Percent, closed.Cycles, closed.GCCPU, inMiB(closed.Goal), open.Percent, open.Cycles, open.GCCPU, inMiB(open.Goal))
	if open.Cycles < closed.Cycles && open.GCCPU < closed.GCCPU {
		return True, happened
	}
	return False, happened
}

// What becomes of a service is for the kernel to say: the lab's scenarios, in a real
// memory cgroup. This program has the lab in it.

// labArg is the hidden command of the lab.
const labArg = "lab"

func runLab(args []string) int { return lab.Main(args, scenario.All, contender.All...) }

// guardEnv names the guard of a variant.
const guardEnv = "CLAIMS_GUARD"

func guarded(name string) Variant { return Variant{Name: name, Env: []string{guardEnv + "=" + name}} }

// overloaded are the scenarios: too much work, and too little room.
var overloaded = []string{"overload-2x", "live-near-limit-40"}

type labFigures struct {
	Guard string           `json:"guard"`
	Runs  map[string]lived `json:"runs_by_scenario"`
}

// lived is what came of a service.
type lived struct {
	Outcome lab.Outcome `json:"outcome"`
	Kills   uint64      `json:"kernel_kills"`
	Done    uint64      `json:"done"`
	Refused uint64      `json:"refused"`
	Seconds float64     `json:"planned_seconds"`
}

func measureLab() (f labFigures, err error) {
	f = labFigures{Guard: os.Getenv(guardEnv), Runs: map[string]lived{}}
	self, err := os.Executable()
	if err != nil {
		return f, err
	}
	dir, err := os.MkdirTemp("", "claims-lab-")
	if err != nil {
		return f, err
	}
	defer os.RemoveAll(dir)
	args := append([]string{labArg, "run", "--guard", f.Guard, "--json", dir}, overloaded...)
	var said bytes.Buffer
	c := exec.Command(self, args...)
	c.Stderr = &said
	if err := c.Run(); err != nil {
		text := strings.TrimSpace(said.String())
		if c.ProcessState != nil && c.ProcessState.ExitCode() == 3 { // the lab could not: no cgroup may be made
			return f, fmt.Errorf("%w: %s", errNotHere, text)
		}
		return f, fmt.Errorf("lab: %w: %s", err, text)
	}
	results, err := lab.ReadResults(dir)
	if err != nil {
		return f, err
	}
	for _, r := range results.Results {
		f.Runs[r.Scenario] = lived{r.Outcome, r.Kills, r.Done, r.Refused, r.Planned}
	}
	return f, nil
}

// judgeLab has the figures of no guard, of the table, and of the table with a breaker
// that refuses work, in this order.
func judgeLab(f []labFigures) (Verdict, string) {
	var told []string
	killed, saved := 0, 0
	for _, name := range overloaded {
		plain, table, refusing := f[0].Runs[name], f[1].Runs[name], f[2].Runs[name]
		if plain.Kills > 0 {
			killed++
			if table.Outcome == lab.Alive {
				saved++
			}
		}
		told = append(told, fmt.Sprintf("In %s the service alone %s, with the table it %s, and with a breaker that refuses work, too, it %s.", name, plain, table, refusing))
	}
	happened := strings.Join(told, " ")
	switch {
	case killed == 0:
		return Unclear, happened
	case saved == 0:
		return False, happened
	case saved < killed:
		return Partly, happened
	}
	return True, happened
}

func (l lived) String() string {
	end := string(l.Outcome)
	switch {
	case l.Outcome == lab.Alive:
		end = "lived"
	case l.Kills == 1:
		end = "was killed once"
	case l.Kills > 1:
		end = fmt.Sprintf("was killed %d times", l.Kills)
	}
	return fmt.Sprintf("%s (%d/s done, %d/s refused)", end, int(float64(l.Done)/l.Seconds), int(float64(l.Refused)/l.Seconds))
}
