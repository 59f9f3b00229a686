// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func listCommand(scenarios []Scenario, contenders []Contender) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "The scenarios and the guards",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			l := newListing(scenarios, contenders)
			if !asJSON {
				width, _ := terminal(c.OutOrStdout())
				return written(l.writeText(c.OutOrStdout(), width))
			}
			e := json.NewEncoder(c.OutOrStdout())
			e.SetIndent("", "  ")
			return written(e.Encode(l))
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// written says that output could not be written, if so.
func written(err error) error {
	if err != nil {
		return cannot(fmt.Errorf("writing: %w", err))
	}
	return nil
}

var errTimeout = errors.New("--timeout is over")

func runCommand(scenarios []Scenario, contenders []Contender) *cobra.Command {
	var (
		s       series
		limit   sizeValue
		guards  []string
		dir     string
		page    string
		timeout time.Duration
		smoke   bool
		failOn  = failValue(failBroken)
	)
	c := &cobra.Command{
		Use:   "run [SCENARIO...]",
		Short: "Run scenarios under guards",
		Long: `Run starts each scenario under each guard, in memory cgroups of their own, as
often as --repeat says: interleaved, so that what the machine does meanwhile hits
all guards alike. Without names it runs all scenarios but the long ones, which
list says; name these.

On a terminal it prints a table. Else standard output gets the Go benchmark
format, for benchstat, and the table goes to standard error with the progress.

A service with a load is started again a second after it died, as in the world;
one that drives itself has one life. The outcome is the kernel's own count of
kills. Ctrl-C ends the run in course, removes its processes and its cgroup, and
keeps what was measured before.`,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return scenarioNames(scenarios), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) (err error) {
			if s.scenarios, err = choose("scenario", scenarios, func(s *Scenario) string { return s.Name }, args); err != nil {
				return err
			}
			if len(args) == 0 || slices.Contains(args, "all") {
				s.scenarios = slices.DeleteFunc(s.scenarios, func(s *Scenario) bool { return s.Long && !slices.Contains(args, s.Name) })
			}
			if smoke {
				if len(args) > 0 {
					return errors.New("--smoke has its own scenarios: name none")
				}
				s.scenarios = slices.DeleteFunc(s.scenarios, func(s *Scenario) bool { return !s.Smoke })
			}
			if s.guards, err = choose("guard", contenders, func(c *Contender) string { return c.Name }, guards); err != nil {
				return err
			}
			if len(s.scenarios) == 0 {
				return errors.New("there is no such scenario in this program")
			}
			if s.repeat < 1 || s.repeat > 1000 {
				return fmt.Errorf("--repeat %d: want 1 to 1000", s.repeat)
			}
			s.limit = uint64(limit)
			ctx := c.Context()
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeoutCause(ctx, timeout, errTimeout)
				defer cancel()
			}
			return runSeries(ctx, &s, dir, page, string(failOn), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.StringSliceVarP(&guards, "guard", "g", []string{"plain", "memguard"}, "guards, separated by commas; all for every one")
	f.Var(&limit, "limit", "memory limit, such as 256MiB, instead of the scenario's own")
	f.Var((*above0)(&s.duration), "duration", "length of a run, instead of the scenario's own")
	f.IntVarP(&s.repeat, "repeat", "n", 1, "how often each scenario meets each guard")
	f.StringVar(&dir, "json", "", "directory for the results: a file for each run, an index, and bench.txt")
	f.StringVar(&page, "out", "", "file for the HTML report")
	f.Var((*above0)(&timeout), "timeout", "end after this time; what was measured until then is kept")
	f.BoolVar(&smoke, "smoke", false, "the quick subset: real kills, in under 90 seconds with two guards")
	f.Var(&failOn, "fail-on", "exit with 1 if a run is: broken (could not be made or observed), killed (broken, or killed under a guard although it could live), never")
	_ = c.RegisterFlagCompletionFunc("guard", cobra.FixedCompletions(contenderNames(contenders), cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("fail-on", cobra.FixedCompletions([]string{failBroken, failKilled, failNever}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func scenarioNames(all []Scenario) (names []string) {
	for _, s := range all {
		names = append(names, s.Name)
	}
	return names
}

func contenderNames(all []Contender) (names []string) {
	for _, c := range all {
		names = append(names, c.Name)
	}
	return names
}

// choose returns those of all that are named, in the order of all; "all", or no
// name, is every one.
func choose[T any](what string, all []T, name func(*T) string, names []string) (chosen []*T, err error) {
	every := len(names) == 0 || slices.Contains(names, "all")
	wanted := map[string]bool{}
	for _, n := range names {
		wanted[n] = true
	}
	var known []string
	for i := range all {
		n := name(&all[i])
		known = append(known, n)
		if every || wanted[n] {
			chosen = append(chosen, &all[i])
		}
		delete(wanted, n)
	}
	delete(wanted, "all")
	for _, n := range names {
		if wanted[n] {
			return nil, fmt.Errorf("no %s %q: there are %s", what, n, strings.Join(known, ", "))
		}
	}
	return chosen, nil
}

// sizeValue is the value of a flag for a size in bytes.
type sizeValue uint64

var sizeUnits = []struct {
	suffix string
	bytes  uint64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}}

func (v *sizeValue) Set(s string) error {
	const least, most = 16 << 20, 1 << 40
	number, unit := s, uint64(1)
	for _, u := range sizeUnits {
		if n, ok := strings.CutSuffix(s, u.suffix); ok {
			number, unit = n, u.bytes
		}
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || n > most/unit || n*unit < least {
		return errors.New("want 16MiB to 1024GiB, in bytes or with KiB, MiB or GiB")
	}
	*v = sizeValue(n * unit)
	return nil
}

func (v *sizeValue) String() string {
	if *v == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(*v), 10)
}

func (v *sizeValue) Type() string { return "size" }

// above0 is the value of a flag for a time above zero.
type above0 time.Duration

func (d *above0) Set(s string) error {
	n, err := time.ParseDuration(s)
	if err == nil && n <= 0 {
		err = errors.New("want a time above zero, such as 30s")
	}
	*d = above0(n)
	return err
}

func (d *above0) String() string {
	if *d == 0 {
		return ""
	}
	return time.Duration(*d).String()
}

func (d *above0) Type() string { return "duration" }

// failValue is the value of --fail-on.
type failValue string

const (
	failBroken = "broken"
	failKilled = "killed"
	failNever  = "never"
)

func (v *failValue) Set(s string) error {
	if s != failBroken && s != failKilled && s != failNever {
		return errors.New("want broken, killed or never")
	}
	*v = failValue(s)
	return nil
}

func (v *failValue) String() string { return string(*v) }
func (v *failValue) Type() string   { return "what" }
