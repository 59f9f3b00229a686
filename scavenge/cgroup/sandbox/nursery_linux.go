// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
)

// nursery is an operating system thread from which processes are born.
//
// It has to live as long as they do: the signal of Pdeathsig is sent when the
// thread that forked ends, not the process (prctl(2), golang.org/issue/27505).
//
// On version 1, where fork cannot be told a cgroup, the thread steps into the
// group, forks, and steps out again: a child is born where its thread stands.
// A shell that writes its own pid and then calls exec would do the same, but
// not every container has one, and an exec that fails would look like a
// command that does. Version 1 lets single threads move, and the memory of our own
// process stays where it is: it is charged to the group of the thread group's
// leader (mm->owner, mm/memcontrol.c), so the thread must not be the leader.
// Nor does it stay inside: before Linux 5.3 the kernel, looking for a victim,
// would take it for one of the group's processes, that is us.
type nursery struct {
	home, group string // "tasks" of the caller's own group and of the sandbox; "" on version 2
	births      chan birth
}

type birth struct {
	cmd  *exec.Cmd
	done chan<- error
}

func newNursery(home, group string) *nursery {
	n := &nursery{home: home, group: group, births: make(chan birth)}
	go n.run()
	return n
}

func (n *nursery) run() {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if syscall.Gettid() == syscall.Getpid() {
		// The leader. Hold it until another goroutine has a thread for good.
		ready := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(ready)
			n.serve()
		}()
		<-ready
		runtime.UnlockOSThread()
		return
	}
	n.serve()
}

func (n *nursery) serve() {
	for b := range n.births {
		b.done <- n.start1(b.cmd)
	}
}

func (n *nursery) start1(cmd *exec.Cmd) error {
	if n.group == "" {
		return cmd.Start()
	}
	if err := write(n.group, "0"); err != nil { // 0 is the writing thread
		return err
	}
	err := cmd.Start()
	if back := write(n.home, "0"); back != nil {
		if err == nil {
			err = errors.Join(cmd.Process.Kill(), cmd.Wait())
		}
		return fmt.Errorf("the forking thread cannot leave the group: %w", errors.Join(back, err))
	}
	return err
}

// start starts cmd from the nursery's thread.
func (n *nursery) start(cmd *exec.Cmd) error {
	done := make(chan error)
	n.births <- birth{cmd, done}
	return <-done
}

// close ends the thread. Children that are still alive die with it.
func (n *nursery) close() { close(n.births) }
