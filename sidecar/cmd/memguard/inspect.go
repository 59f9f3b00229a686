// SPDX-License-Identifier: Apache-2.0

//go:build !memguard_sidecar

package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/memguard/memguard-go/sidecar/attach"
	"github.com/spf13/cobra"
)

func inspectCommand() *cobra.Command {
	var (
		pid              int
		p                printer
		heap, goroutines string
	)
	c := &cobra.Command{
		Use:   "inspect --pid N",
		Short: "Read the Go runtime's own state out of an unmodified process",
		Long: `Inspect reads the runtime of a running Go program (1.21 to 1.27, amd64) from
outside: heap and collector, size classes with their waste, goroutines in
clusters, finalizer and cleanup queues. The process is not stopped, nothing is
written into it, and it needs no pprof port; stripped binaries work too. What
cannot be read or does not pass the checks is unknown, and said to be.

It needs the rights of ptrace(2): the same user, the process dumpable, and no
Yama in the way, or CAP_SYS_PTRACE. --heap and --goroutines write profiles that
"go tool pprof" opens.`,
		Example: "  memguard inspect --pid 4711\n  memguard inspect --pid 4711 --goroutines g.pb.gz && go tool pprof -top g.pb.gz",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p.out = c.OutOrStdout()
			target, err := attach.Open(pid)
			if err != nil {
				return cannotLook(err)
			}
			defer target.Close()
			parts := attach.Spans | attach.Goroutines
			if goroutines != "" {
				parts |= attach.Stacks
			}
			if heap != "" {
				parts |= attach.HeapProfile
			}
			err = p.repeat(c.Context(), func() error {
				s, err := target.Snapshot(c.Context(), parts)
				if err != nil {
					return err
				}
				if err := p.show(s, s.WriteText); err != nil {
					return err
				}
				if err := save(c, "--goroutines", goroutines, s.WriteGoroutines); err != nil {
					return err
				}
				return save(c, "--heap", heap, s.WriteHeap)
			})
			return ended(c, err, nil)
		},
	}
	pidFlag(c, &pid)
	c.Flags().StringVar(&heap, "heap", "", "write the heap profile to this `file`")
	c.Flags().StringVar(&goroutines, "goroutines", "", "write the goroutine profile, all stacks, to this `file`")
	p.jsonFlag(c)
	p.watchFlags(c)
	return c
}

// save writes a profile to the file that a flag names, if it does.
func save(c *cobra.Command, flag, name string, write func(io.Writer) error) error {
	if name == "" {
		return nil
	}
	err := writeFile(name, write)
	switch {
	case errors.Is(err, attach.ErrNotTaken):
		return cannotLook(fmt.Errorf("%s: nothing to write: the program was linked without the profiler, as the linker does where nothing refers to runtime.MemProfile, or it could not be read (see unknown)", flag))
	case err != nil:
		return cannotLook(err)
	}
	fmt.Fprintln(c.ErrOrStderr(), "wrote", name)
	return nil
}
