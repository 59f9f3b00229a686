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

const usageText = `usage: overhead [--rounds N] [--fail-over PERCENT] [--json]
       overhead --steady 10m [--profile FILE] [--fail-over PERCENT] [--json]

Without --steady each round compares the CPU of requests with a limiter around
handler and listener and without, and while the guard ticks and does not; then
what services with and without a guard take at rest, in the guard's first seconds
and after them.

  --rounds N            how many rounds of 65 s (15); an interval needs 6
  --steady D            instead, one run of that length with guard and limiter:
                        status 1 if a finding of warning or above is raised
  --profile FILE        keep the CPU profile of the steady run
  --fail-over PERCENT   status 1 if the guard, without the limiter, takes more of the
                        service's CPU than that: the lower end of the interval; of a
                        steady run its share of the CPU profile
  --json                the figures of each round too
`

// limit is the service's memory limit: it needs a quarter of that.
const limit = 256 << 20

// settings are what the command line says.
type settings struct {
	rounds   int
	steady   time.Duration
	profile  string
	failOver float64 // percent; negative is never
	json     bool
}

// plan is how long the parts of a round last, and how dense the load is.
type plan struct {
	warm   time.Duration // load before anything is measured ...
	settle time.Duration // ... and this before ticks are, or rest: a guard looks more often in its first 10 s
	load   time.Duration // in which requests are compared ...
	window int           // ... so many of them with so many
	start  time.Duration // measured without load, while the guard is new
	rest   time.Duration // measured without load, when it is not: what a service pays for the rest of its life
	rate   float64       // requests a second while it does not pause
}

var usual = plan{warm: 1500 * time.Millisecond, settle: 10 * time.Second, load: 30 * time.Second, window: usualWindow, start: 3 * time.Second, rest: 8 * time.Second, rate: perSecond}

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
	f.IntVar(&s.rounds, "rounds", 15, "")
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
	case given["steady"] && (s.steady < 5*time.Second || s.steady > 2*time.Hour):
		return s, fmt.Errorf("--steady %v: want 5s to 2h", s.steady)
	case given["fail-over"] && !(s.failOver >= 0 && s.failOver <= 100):
		return s, fmt.Errorf("--fail-over %v: want 0 to 100 percent", s.failOver)
	case s.steady > 0 && given["rounds"]:
		return s, errors.New("--steady is one run: without --rounds")
	case s.steady == 0 && given["profile"]:
		return s, errors.New("--profile is for --steady")
	case s.steady == 0 && given["fail-over"] && s.rounds < leastRounds:
		return s, fmt.Errorf("--fail-over needs an interval, and that %d rounds: --rounds %d", leastRounds, s.rounds)
	}
	return s, nil
}

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
		r, err := compare(ctx, s.rounds, usual, stderr)
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
