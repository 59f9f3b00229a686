// SPDX-License-Identifier: Apache-2.0

//go:build !memguard_sidecar

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/memguard/memguard-go/pacer/exectrace"
	"github.com/memguard/memguard-go/pacer/exectrace/report"
	"github.com/spf13/cobra"
)

// progressFrom is the size of a trace that takes long enough to show progress.
const progressFrom = 50 << 20

func traceCommand() *cobra.Command {
	var (
		p    printer
		fail failOn
		page string
		take = above0(5 * time.Second)
	)
	c := &cobra.Command{
		Use:   "trace FILE|-|URL",
		Short: "Tell an execution trace as the collector's story",
		Long: `Trace reads an execution trace (runtime/trace, /debug/pprof/trace, a flight
recorder's snapshot) of Go 1.22 to 1.27 and tells the pacer's story: which phase
held when, what the live heap and its goal did meanwhile, who was made to assist,
when the world stood still and why, and what of it is wrong.

With a URL it takes the trace itself: from /debug/pprof/trace of a server that
has net/http/pprof. A trace that is truncated or corrupt gives
what was whole, says where it broke, and exits with 3.`,
		Example: "  memguard trace app.trace\n  memguard trace http://127.0.0.1:6060 --for 10s --html story.html\n  curl -s http://127.0.0.1:6060/debug/pprof/trace | memguard trace - --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p.out = c.OutOrStdout()
			in, name, size, err := openTrace(c, args, time.Duration(take))
			if err != nil {
				return cannotLook(err)
			}
			defer in.Close()
			r, err := exectrace.Read(untilDone(c.Context(), in), exectrace.Options{Progress: traceProgress(c.ErrOrStderr(), size)})
			if r == nil {
				return cannotLook(fmt.Errorf("%s: %w", name, err))
			}
			if r.Span == 0 && err == nil {
				return cannotLook(fmt.Errorf("%s: a trace of no time, with nothing in it", name))
			}
			if page != "" {
				if err := writeFile(page, func(w io.Writer) error { return report.HTML(w, r, filepath.Base(name)) }); err != nil {
					return cannotLook(err)
				}
			}
			if page != "" && !p.json {
				fmt.Fprintf(p.out, "%s: %s\n", page, r.Verdict)
			}
			if page == "" || p.json {
				width, color := terminal(p.out)
				if werr := p.print(r, func(w io.Writer) error {
					return report.Text(w, r, report.TextOptions{Width: width, Color: color})
				}); werr != nil {
					return werr
				}
			}
			if err != nil {
				return cannotLook(fmt.Errorf("%s: %w", name, err))
			}
			return fail.status(worst(r.Findings, func(f exectrace.Finding) string { return string(f.Severity) }))
		},
	}
	p.jsonFlag(c)
	c.Flags().StringVar(&page, "html", "", "write the story as one self-contained HTML page to this `file`, and print the verdict alone")
	c.Flags().Var(&take, "for", "with a URL: how long to trace")
	fail.flag(c)
	return c
}

// openTrace opens what the argument names. The size is 0 where it is not known.
func openTrace(c *cobra.Command, args []string, take time.Duration) (in io.ReadCloser, name string, size int64, err error) {
	if u, err := url.Parse(args[0]); err == nil && (u.Scheme == "http" || u.Scheme == "https") {
		in, err := fetchTrace(c.Context(), c.ErrOrStderr(), u, take)
		return in, u.Redacted(), 0, err
	}
	in, name, err = input(c, args)
	if f, ok := in.(*os.File); ok && err == nil {
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
			size = st.Size()
		}
	}
	return in, name, size, err
}

// fetchTrace takes a trace from a server that has net/http/pprof.
func fetchTrace(ctx context.Context, stderr io.Writer, u *url.URL, take time.Duration) (io.ReadCloser, error) {
	if strings.Trim(u.Path, "/") == "" {
		u.Path = "/debug/pprof/trace"
	}
	q := u.Query()
	if !q.Has("seconds") {
		q.Set("seconds", fmt.Sprint(take.Seconds()))
		u.RawQuery = q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if isTerminal(stderr) {
		fmt.Fprintf(stderr, "tracing %s for %s s ...\n", u.Host, q.Get("seconds"))
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		return nil, fmt.Errorf("%s: %s: %q", u.Redacted(), resp.Status, text)
	}
	return resp.Body, nil
}

// traceProgress shows how far the reading of a large trace is, once it is known
// to be large, on a terminal only.
func traceProgress(w io.Writer, size int64) func(exectrace.Progress) {
	if !isTerminal(w) {
		return nil
	}
	return func(p exectrace.Progress) {
		switch {
		case size > progressFrom:
			fmt.Fprintf(w, "\rreading: %3.0f %% of %d MiB\x1b[K", 100*float64(p.Bytes)/float64(size), size>>20)
		case size == 0 && p.Bytes > progressFrom:
			fmt.Fprintf(w, "\rreading: %d MiB, %v of trace\x1b[K", p.Bytes>>20, p.At.Round(time.Second))
		default:
			return
		}
		if p.Bytes == size {
			fmt.Fprint(w, "\r\x1b[K")
		}
	}
}
