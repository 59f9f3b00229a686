// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// The exit status.
const (
	exitFine  = 0
	exitUsage = 2
	exitBlind = 3
)

const usage = `usage: micro [--benchtime 1s] [--json]

Micro runs the benchmarks of the hot paths beside what other people use for the
same, and prints the ratios. Their own lines go to standard error.
`

// row is a path with its figures. What was not measured is nil, never zero.
type row struct {
	Path    string   `json:"path"`
	Peer    string   `json:"peer"`
	Bench   string   `json:"benchmark"`
	Ours    *float64 `json:"ours,omitempty"`
	Theirs  *float64 `json:"theirs,omitempty"`
	Unit    string   `json:"unit,omitempty"`  // of both
	Ratio   *float64 `json:"ratio,omitempty"` // theirs to ours in cost: above 1 ours is cheaper
	Allocs  *float64 `json:"allocs_per_op,omitempty"`
	Skipped bool     `json:"skipped,omitempty"` // by the benchmark, which says why on standard error
}

// run is the program.
func run(args []string, stdout, stderr io.Writer) int {
	f := flag.NewFlagSet("micro", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	benchtime := f.String("benchtime", "1s", "")
	asJSON := f.Bool("json", false, "")
	err := f.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		return exitFine
	case err == nil && f.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	case err == nil && !validBenchtime(*benchtime):
		err = fmt.Errorf("--benchtime %q: want a time such as 1s, or a count such as 100x", *benchtime)
	}
	if err != nil {
		fmt.Fprintf(stderr, "micro: %v\n%s", err, usage)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	measured := map[string]results{} // by package
	status := exitFine
	for _, pkg := range slices.Sorted(maps.Keys(benches(paths))) {
		r, err := runBenches(ctx, pkg, benches(paths)[pkg], *benchtime, stderr)
		if err != nil {
			fmt.Fprintf(stderr, "micro: %s: %v\n", pkg, err)
			status = exitBlind
		}
		measured[pkg] = r
	}
	var rows []row
	for _, p := range paths {
		r, err := fill(p, measured[p.pkg])
		if err != nil {
			fmt.Fprintf(stderr, "micro: %v\n", err)
			status = exitBlind
		}
		rows = append(rows, r)
	}
	if *asJSON {
		err = json.NewEncoder(stdout).Encode(rows)
	} else {
		err = writeTable(stdout, rows)
	}
	if err != nil {
		fmt.Fprintf(stderr, "micro: %v\n", err)
		return exitBlind
	}
	return status
}

func validBenchtime(s string) bool {
	if n, ok := strings.CutSuffix(s, "x"); ok {
		_, err := strconv.ParseUint(n, 10, 31)
		return err == nil && n != "0"
	}
	d, err := time.ParseDuration(s)
	return err == nil && d > 0
}

// benches are the benchmarks to run, by package.
func benches(paths []path) map[string][]string {
	all := map[string][]string{}
	for _, p := range paths {
		for _, b := range []string{p.bench, p.allocs.bench} {
			if b != "" && !slices.Contains(all[p.pkg], b) {
				all[p.pkg] = append(all[p.pkg], b)
			}
		}
	}
	return all
}

// results are a package's figures by benchmark and metric, and which benchmarks were skipped.
type results struct {
	figures map[string]map[string]float64
	skipped map[string]bool
}

// runBenches runs benchmarks of one package, one go test each, and hands on what they print.
func runBenches(ctx context.Context, pkg string, names []string, benchtime string, stderr io.Writer) (results, error) {
	r := results{map[string]map[string]float64{}, map[string]bool{}}
	var errs []error
	for _, name := range names {
		// The elements of a name are matched one by one.
		var pattern []string
		for element := range strings.SplitSeq(name, "/") {
			pattern = append(pattern, "^"+regexp.QuoteMeta(element)+"$")
		}
		c := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", strings.Join(pattern, "/"), "-benchtime", benchtime, module+pkg)
		c.Cancel = func() error { return c.Process.Signal(os.Interrupt) } // the go command passes it on
		c.WaitDelay = 10 * time.Second
		out, w := io.Pipe()
		c.Stdout, c.Stderr = w, w // both go on to stderr, in one order
		go func() { w.CloseWithError(cmp.Or(c.Run(), io.EOF)) }()
		s := bufio.NewScanner(io.TeeReader(out, stderr))
		for s.Scan() {
			if skipped, ok := strings.CutPrefix(s.Text(), "--- SKIP: "); ok {
				r.skipped[strings.TrimSpace(skipped)] = true
			}
			if of, figures, ok := parse(s.Text()); ok {
				r.figures[of] = figures
			}
		}
		if err := s.Err(); err != nil {
			_, _ = io.Copy(io.Discard, out) // or the benchmark would wait
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return r, errors.Join(errs...)
}

// parse reads a line of results: the name, with -GOMAXPROCS behind it if that is
// not 1, the number of rounds, then values and their metrics by turns
// (golang.org/design/14313-benchmark-format).
func parse(line string) (name string, figures map[string]float64, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 4 || len(fields)%2 != 0 || !strings.HasPrefix(fields[0], "Benchmark") {
		return "", nil, false
	}
	if _, err := strconv.ParseUint(fields[1], 10, 63); err != nil {
		return "", nil, false
	}
	figures = map[string]float64{}
	for pair := range slices.Chunk(fields[2:], 2) {
		v, err := strconv.ParseFloat(pair[0], 64)
		if err != nil {
			return "", nil, false
		}
		figures[pair[1]] = v
	}
	name = fields[0]
	if i := strings.LastIndexByte(name, '-'); i > 0 {
		if _, err := strconv.ParseUint(name[i+1:], 10, 31); err == nil {
			name = name[:i]
		}
	}
	return name, figures, true
}

// fill makes a row of what was measured. The error names the metric that is missing.
func fill(p path, r results) (row, error) {
	to := row{Path: p.Name, Peer: p.Peer, Bench: module + p.pkg + "." + p.bench}
	parent, _, _ := strings.Cut(p.bench, "/")
	if r.skipped[p.bench] || r.skipped[parent] {
		to.Skipped = true
		return to, nil
	}
	var err error
	get := func(f figure) *float64 {
		if f.metric == "" {
			return nil
		}
		v, ok := r.figures[f.bench][f.metric]
		if !ok {
			err = errors.Join(err, fmt.Errorf("%s%s: %s reports no %s", module, p.pkg, f.bench, f.metric))
			return nil
		}
		return &v
	}
	to.Ours, to.Theirs = get(figure{p.bench, p.ours}), get(figure{p.bench, p.theirs})
	to.Ratio, to.Allocs = get(figure{p.bench, p.ratio}), get(p.allocs)
	switch {
	case strings.HasSuffix(p.ours, "MB/s"):
		to.Unit = "MB/s"
	case p.ours != "":
		to.Unit = "ns"
	}
	if to.Ratio != nil && p.oursFirst {
		if *to.Ratio == 0 {
			to.Ratio = nil
			return to, errors.Join(err, fmt.Errorf("%s%s: %s: %s is 0", module, p.pkg, p.bench, p.ratio))
		}
		inverse := 1 / *to.Ratio
		to.Ratio = &inverse
	}
	return to, err
}

// writeTable is for people.
func writeTable(w io.Writer, rows []row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "hot path\tours\tpeer\tpeer's\tratio\tallocs/op")
	for _, r := range rows {
		if r.Skipped {
			fmt.Fprintf(t, "%s\tskipped\t%s\n", r.Path, r.Peer)
			continue
		}
		side := func(v *float64) string {
			switch {
			case v == nil:
				return "-"
			case r.Unit == "ns":
				return (time.Duration(*v) * time.Nanosecond).String()
			}
			return fmt.Sprintf("%.0f %s", *v, r.Unit)
		}
		ratio, allocs := "-", "-"
		if r.Ratio != nil {
			ratio = fmt.Sprintf("%.2fx", *r.Ratio)
		}
		if r.Allocs != nil {
			allocs = fmt.Sprintf("%.0f", *r.Allocs)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Path, side(r.Ours), r.Peer, side(r.Theirs), ratio, allocs)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "\nA ratio is what the peer costs for what ours costs: above 1 ours is the cheaper one.")
	return err
}
