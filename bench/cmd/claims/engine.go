// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// timeout is for one process of an experiment. They take some seconds at most.
const timeout = time.Minute

// engine runs experiments.
type engine struct {
	self  string // this program, which is also every process of an experiment
	root  string // where proc and sys are
	touch bool   // kernel settings may be changed
	log   io.Writer
}

// Result is what came of a claim: a verdict, or why there is none.
type Result struct {
	Name     string        `json:"name"`
	Article  string        `json:"article,omitempty"`
	Claim    string        `json:"claim"`
	Happened string        `json:"happened,omitempty"`
	Verdict  Verdict       `json:"verdict,omitempty"`
	Expected Verdict       `json:"expected,omitempty"`
	Why      string        `json:"why,omitempty"`
	Signal   string        `json:"signal"`
	Measured []Measurement `json:"measured,omitempty"`

	Skipped string `json:"skipped,omitempty"` // why it was not tested
	Error   string `json:"error,omitempty"`   // why it could not be
}

// Measurement is the figures of one process.
type Measurement struct {
	Variant string          `json:"variant,omitempty"`
	Figures json.RawMessage `json:"figures"`
}

// Surprising reports whether a verdict was found and is not the expected one.
func (r *Result) Surprising() bool { return r.Verdict != "" && r.Verdict != r.Expected }

// run puts a claim to the test. It leaves the kernel's settings as it found
// them, whatever happens; the error is for when it could not.
func (e *engine) run(ctx context.Context, c *Claim) (r Result, err error) {
	r = Result{Name: c.Name, Article: c.Article, Claim: c.Says, Expected: c.Expect, Why: c.Why, Signal: c.Signal}
	k := settings{root: e.root}
	defer func() { err = errors.Join(err, k.restore()) }()

	var figures []json.RawMessage
	for _, v := range c.variants() {
		if len(v.Kernel) > 0 && !e.touch {
			r.Skipped = "it changes settings of the whole machine; --touch-kernel lets it, and it puts them back"
			return r, nil
		}
		if err := e.apply(&k, v.Kernel); err != nil {
			r.Skipped = "it needs a kernel setting that may not be changed here: " + err.Error()
			return r, nil
		}
		f, err := e.measure(ctx, c.Name, v.Env)
		switch {
		case errors.Is(err, errNotHere):
			r.Skipped = reason(err)
			return r, nil
		case err != nil:
			r.Error = err.Error()
			return r, nil
		}
		figures = append(figures, f)
		r.Measured = append(r.Measured, Measurement{v.Name, f})
	}
	verdict, happened, err := c.judge(figures)
	if err != nil {
		r.Error = err.Error()
		return r, nil
	}
	r.Verdict, r.Happened = verdict, happened
	return r, nil
}

// apply changes settings. Nothing is printed between the first change and
// restore: a reader that went away would end the program there (SIGPIPE).
func (e *engine) apply(k *settings, to []Setting) error {
	if len(k.old) == 0 {
		for _, s := range to {
			if now, err := k.value(s.File); err == nil && now != s.Value {
				fmt.Fprintf(e.log, "claims: /%s is %s; will be %s for a few seconds and then put back\n", s.File, now, s.Value)
			}
		}
	}
	for _, s := range to {
		if err := k.set(s); err != nil {
			return err
		}
	}
	return nil
}

// variants is at least one.
func (c *Claim) variants() []Variant {
	if len(c.Variants) == 0 {
		return make([]Variant, 1)
	}
	return c.Variants
}

// measureArg is the hidden command of a process of an experiment.
const measureArg = "measure"

// reply is what such a process prints.
type reply struct {
	Figures any    `json:"figures,omitempty"`
	NotHere string `json:"not_here,omitempty"`
}

// measure runs the measuring half of an experiment in a process of its own.
func (e *engine) measure(ctx context.Context, name string, env []string) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// What the runtime prints goes to a file, which the process itself reads
	// again (see traced); a pipe could fill up and stop it.
	trace, err := os.CreateTemp("", "claims-*.txt")
	if err != nil {
		return nil, err
	}
	defer os.Remove(trace.Name())
	defer trace.Close()
	var out bytes.Buffer
	c := exec.CommandContext(ctx, e.self, measureArg, name)
	c.Env = append(clean(os.Environ()), env...)
	c.Stdout, c.Stderr = &out, trace
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("%w%s", cmp.Or(ctx.Err(), err), lastWords(trace))
	}
	var r struct {
		reply
		Figures json.RawMessage `json:"figures"`
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		return nil, fmt.Errorf("the figures of %s: %w", name, err)
	}
	if r.NotHere != "" {
		return nil, fmt.Errorf("%w: %s", errNotHere, r.NotHere)
	}
	return r.Figures, nil
}

// clean is an environment without what sets up the Go runtime.
func clean(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains([]string{"GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG", "GOTRACEBACK", "GORACE"}, name)
	})
}

// lastWords is the end of what a failed process printed.
func lastWords(f *os.File) string {
	const most = 1 << 10
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	b := make([]byte, min(size, most))
	n, _ := f.ReadAt(b, size-int64(len(b)))
	if text := strings.TrimSpace(string(b[:n])); text != "" {
		return ": " + text
	}
	return ""
}

// reason is what stands behind errNotHere.
func reason(err error) string { return strings.TrimPrefix(err.Error(), errNotHere.Error()+": ") }

// measureHere is the other end: the process of one experiment.
func measureHere(name string, stdout, stderr io.Writer) int {
	i := slices.IndexFunc(all, func(c Claim) bool { return c.Name == name && c.experiment.measure != nil })
	if i < 0 {
		fmt.Fprintf(stderr, "claims: no experiment %q\n", name)
		return exitUsage
	}
	var r reply
	figures, err := all[i].experiment.measure()
	switch {
	case errors.Is(err, errNotHere):
		r.NotHere = reason(err)
	case err != nil:
		fmt.Fprintln(stderr, err)
		return exitBlind
	default:
		r.Figures = figures
	}
	if err := json.NewEncoder(stdout).Encode(r); err != nil {
		fmt.Fprintln(stderr, err)
		return exitBlind
	}
	return exitFine
}
