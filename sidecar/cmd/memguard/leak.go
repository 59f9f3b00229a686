// SPDX-License-Identifier: Apache-2.0

//go:build !memguard_sidecar

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/memguard/memguard-go/memguard/leak"
	"github.com/memguard/memguard-go/sidecar/attach"
	"github.com/spf13/cobra"
)

func leakCommand() *cobra.Command {
	var (
		pid      int
		from     string
		interval = above0(30 * time.Second)
		p        printer
	)
	c := &cobra.Command{
		Use:   "leak --pid N | --pprof URL|FILE",
		Short: "Compare the goroutines of a program with themselves a while later",
		Long: `Leak takes the goroutines of a Go program twice and says which stacks appeared,
grew and stayed: what grows, blocked, between two looks is what leaks. With --pid
it reads them out of the process (see memguard inspect); with --pprof it asks a
server that has net/http/pprof. With --pprof FILE it shows one file.

Files may be pprof goroutine or goroutineleak profiles, their text (debug=1), or
dumps as of debug=2, a panic or SIGQUIT, of Go 1.18 to 1.27.`,
		Example: "  memguard leak --pid 4711 --interval 1m\n  memguard leak --pprof http://127.0.0.1:6060\n  memguard leak diff before.pb.gz after.pb.gz\n  memguard leak merge pod-*.pb.gz",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p.out = c.OutOrStdout()
			take, err := taker(c.Context(), pid, from)
			if err != nil {
				return cannotLook(err)
			}
			before, err := take()
			if err != nil {
				return cannotLook(err)
			}
			if pid == 0 && !isURL(from) {
				return p.show(before, before.WriteText)
			}
			if isTerminal(c.ErrOrStderr()) {
				fmt.Fprintf(c.ErrOrStderr(), "%d goroutines; looking again in %v ...\n", before.Goroutines, time.Duration(interval))
			}
			select {
			case <-c.Context().Done():
				return cannotLook(fmt.Errorf("interrupted between the two looks"))
			case <-time.After(time.Duration(interval)):
			}
			after, err := take()
			if err != nil {
				return cannotLook(err)
			}
			found := leak.Compare(before, after)
			return p.show(found, found.WriteText)
		},
	}
	c.Flags().VarP((*pidValue)(&pid), "pid", "p", "process to look at")
	_ = c.RegisterFlagCompletionFunc("pid", completePID)
	c.Flags().StringVar(&from, "pprof", "", "`URL` of a server that has net/http/pprof, or file to show")
	c.MarkFlagsOneRequired("pid", "pprof")
	c.MarkFlagsMutuallyExclusive("pid", "pprof")
	c.Flags().Var(&interval, "interval", "time between the two looks")
	p.jsonFlag(c)
	c.AddCommand(leakDiffCommand(), leakMergeCommand())
	return c
}

func leakDiffCommand() *cobra.Command {
	var p printer
	c := &cobra.Command{
		Use:     "diff BEFORE AFTER",
		Short:   "Compare two files of goroutines",
		Example: "  memguard leak diff before.pb.gz after.txt",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			p.out = c.OutOrStdout()
			snapshots, err := parseFiles(args)
			if err != nil {
				return cannotLook(err)
			}
			found := leak.Compare(snapshots[0], snapshots[1])
			return p.show(found, found.WriteText)
		},
	}
	p.jsonFlag(c)
	return c
}

func leakMergeCommand() *cobra.Command {
	var p printer
	c := &cobra.Command{
		Use:   "merge FILE...",
		Short: "Add up the goroutines of many instances of one service",
		Long: `Merge adds up files of many instances of one service and says in how many of
them each stack is: the same stack blocked in many instances is the strongest
sign of a leak.`,
		Example: "  memguard leak merge pod-*.pb.gz",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p.out = c.OutOrStdout()
			snapshots, err := parseFiles(args)
			if err != nil {
				return cannotLook(err)
			}
			found := leak.Merge(snapshots...)
			return p.show(found, found.WriteText)
		},
	}
	p.jsonFlag(c)
	return c
}

// taker returns what takes the goroutines of a process, a server or a file.
func taker(ctx context.Context, pid int, from string) (func() (*leak.Snapshot, error), error) {
	switch {
	case pid != 0:
		target, err := attach.Open(pid)
		if err != nil {
			return nil, err
		}
		return func() (*leak.Snapshot, error) { // the process's end closes it
			s, err := target.Snapshot(ctx, attach.Goroutines|attach.Stacks)
			if err != nil {
				return nil, err
			}
			var b bytes.Buffer
			if err := s.WriteGoroutines(&b); err != nil {
				return nil, err
			}
			return leak.Parse(&b)
		}, nil
	case isURL(from):
		u, err := url.Parse(from)
		if err != nil {
			return nil, err
		}
		if strings.Trim(u.Path, "/") == "" {
			u.Path = "/debug/pprof/goroutine"
		}
		return func() (*leak.Snapshot, error) { return fetchGoroutines(ctx, u) }, nil
	}
	return func() (*leak.Snapshot, error) { return parseFile(from) }, nil
}

func isURL(s string) bool { return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") }

// mostProfile bounds what a server may send: a hundred times a large profile.
const mostProfile = 1 << 30

func fetchGoroutines(ctx context.Context, u *url.URL) (*leak.Snapshot, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", u.Redacted(), resp.Status)
	}
	s, err := leak.Parse(io.LimitReader(resp.Body, mostProfile))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u.Redacted(), err)
	}
	return s, nil
}

func parseFiles(names []string) ([]*leak.Snapshot, error) {
	snapshots := make([]*leak.Snapshot, len(names))
	for i, name := range names {
		s, err := parseFile(name)
		if err != nil {
			return nil, err
		}
		snapshots[i] = s
	}
	return snapshots, nil
}

func parseFile(name string) (*leak.Snapshot, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s, err := leak.Parse(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}
