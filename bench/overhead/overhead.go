// SPDX-License-Identifier: Apache-2.0

// Package overhead measures what a guard costs a healthy HTTP service. Its
// program is bench/cmd/overhead; that says what is measured and how.
package overhead

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
)

// The exit status.
const (
	exitFine        = 0
	exitOver        = 1
	exitUsage       = 2
	exitCannot      = 3
	exitInterrupted = 130 // by Ctrl-C, as a shell would say it
)

const usageText = `usage: overhead [--rounds N] [--round 5s] [--fail-over PERCENT] [--json]
       overhead --steady 10m [--profile FILE] [--fail-over PERCENT] [--json]

Without --steady every way to run the service has a turn in each round:
plain, with a guard, with a guard and a limiter around handler and listener.

  --rounds N            how many rounds (20); an interval needs 6
  --round D             how long the load of each turn lasts (5s)
  --steady D            instead, one run of that length with guard and limiter:
                        status 1 if a finding of warning or above is raised
  --profile FILE        keep the CPU profile of the steady run
  --fail-over PERCENT   status 1 if the guard costs more CPU than that: the lower
                        end of the interval; of a steady run its share
  --json                the figures of each round too
`

// limit is the service's memory limit: it needs a quarter of that.
const limit = 256 << 20

// settings are what the command line says.
type settings struct {
	rounds   int
	plan     plan
	steady   time.Duration
	profile  string
	failOver float64 // percent; negative is never
	json     bool
}

// plan is how long the parts of a turn last, and how dense the load is.
type plan struct {
	warm time.Duration // load before anything is measured
	load time.Duration // measured
	rest time.Duration // measured, without load
	rate float64       // requests a second while it does not pause
}

const (
	warm = 1500 * time.Millisecond
	rest = time.Second
)

// Main runs the command line args, without the program's name, and returns the
// exit status. A measurement starts copies of the program; in these Main plays
// their part, whatever the arguments.
func Main(args []string, stdout, stderr io.Writer) int {
	if IsChild() {
		return child(stderr)
	}
	s, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usageText)
		return exitFine
	case err != nil:
		fmt.Fprintf(stderr, "overhead: %v\n%s", err, usageText)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	over, err := measure(ctx, s, stdout, stderr)
	switch {
	case ctx.Err() != nil:
		return exitInterrupted
	case err != nil:
		fmt.Fprintln(stderr, "overhead:", err)
		if errors.Is(err, sandbox.ErrUnsupported) {
			fmt.Fprintln(stderr, "Making one takes root, or a delegated part of the tree on cgroup v2: systemd-run --user --scope -p Delegate=yes")
		}
		return exitCannot
	case over:
		return exitOver
	}
	return exitFine
}

func parse(args []string) (s settings, err error) {
	f := flag.NewFlagSet("overhead", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	s.plan = plan{warm: warm, rest: rest, rate: perSecond}
	f.IntVar(&s.rounds, "rounds", 20, "")
	f.DurationVar(&s.plan.load, "round", 5*time.Second, "")
	f.DurationVar(&s.steady, "steady", 0, "")
	f.StringVar(&s.profile, "profile", "", "")
	f.Float64Var(&s.failOver, "fail-over", -1, "")
	f.BoolVar(&s.json, "json", false, "")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	given := map[string]bool{}
	f.Visit(func(f *flag.Flag) { given[f.Name] = true })
	switch {
	case f.NArg() > 0:
		return s, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case s.rounds < 1 || s.rounds > 1000:
		return s, fmt.Errorf("--rounds %d: want 1 to 1000", s.rounds)
	case !within(s.plan.load, time.Second, time.Minute):
		return s, fmt.Errorf("--round %v: want 1s to 1m", s.plan.load)
	case given["steady"] && !within(s.steady, 5*time.Second, 2*time.Hour):
		return s, fmt.Errorf("--steady %v: want 5s to 2h", s.steady)
	case given["fail-over"] && !(s.failOver >= 0 && s.failOver <= 100):
		return s, fmt.Errorf("--fail-over %v: want 0 to 100 percent", s.failOver)
	case s.steady > 0 && (given["rounds"] || given["round"]):
		return s, errors.New("--steady is one run: without --rounds and --round")
	case s.steady == 0 && given["profile"]:
		return s, errors.New("--profile is for --steady")
	case s.steady == 0 && given["fail-over"] && s.rounds < leastPairs:
		return s, fmt.Errorf("--fail-over needs an interval, and that %d rounds: --rounds %d", leastPairs, s.rounds)
	}
	return s, nil
}

func within(d, least, most time.Duration) bool { return d >= least && d <= most }

// printer is a result for people.
type printer interface{ print(w io.Writer) error }

// measure does what the settings say, and prints the result. over says that the
// guard costs too much, or that it was not quiet.
func measure(ctx context.Context, s settings, stdout, stderr io.Writer) (over bool, err error) {
	var result printer
	if s.steady > 0 {
		r, err := steady(ctx, s.steady, perSecond, s.profile, stderr)
		if err != nil {
			return false, err
		}
		result, over = r, r.bad(s.failOver)
	} else {
		r, err := compare(ctx, s.rounds, s.plan, stderr)
		if err != nil {
			return false, err
		}
		result, over = r, r.over(s.failOver)
	}
	if s.json {
		return over, json.NewEncoder(stdout).Encode(result)
	}
	return over, result.print(stdout)
}
