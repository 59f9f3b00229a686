// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/attach"
	"github.com/spf13/cobra"
)

// pidFlag adds --pid.
func pidFlag(c *cobra.Command, pid *int) {
	c.Flags().VarP((*pidValue)(pid), "pid", "p", "process to look at")
	_ = c.MarkFlagRequired("pid")
	_ = c.RegisterFlagCompletionFunc("pid", completePID)
}

// pidValue is the value of --pid.
type pidValue int

func (p *pidValue) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n <= 0 {
		return errors.New("want a process id, a number above zero")
	}
	*p = pidValue(n)
	return nil
}

func (p *pidValue) String() string {
	if *p == 0 {
		return ""
	}
	return strconv.Itoa(int(*p))
}

func (p *pidValue) Type() string { return "pid" }

// ended is how watching ends: by the process's end as by an interrupt with what
// was found, else with the error.
func ended(c *cobra.Command, err, found error) error {
	var s *status
	switch {
	case err == nil:
		return found
	case errors.Is(err, memguard.ErrGone), errors.Is(err, attach.ErrGone):
		say(c.ErrOrStderr(), err)
		return found
	case errors.As(err, &s):
		return err
	}
	return cannotLook(hint(err))
}

// hint adds what a person can do about an error.
func hint(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w\n  run as the same user as the process, or with CAP_SYS_PTRACE", err)
	}
	return err
}

// completePID offers the processes of this machine with their names.
func completePID(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var out []string
	for _, dir := range dirs {
		pid := filepath.Base(dir)
		if exe, err := os.Readlink(dir + "/exe"); err == nil && pid != strconv.Itoa(os.Getpid()) {
			out = append(out, pid+"\t"+filepath.Base(exe))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
