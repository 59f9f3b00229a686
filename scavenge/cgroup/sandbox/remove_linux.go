// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/memguard/memguard-go/scavenge/cgroup"
)

// patience bounds how long a removal waits for killed processes to be gone. A
// process that is dumping core or waiting for a disk takes its time.
const patience = 10 * time.Second

// remove kills the processes of a group and its descendants and removes them
// all. The kernel refuses with EBUSY as long as a process is in one.
func remove(g *cgroup.Group) error {
	deadline := time.Now().Add(patience)
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		err := errors.Join(kill(g), removeDirs(g.Dir()))
		if _, gone := os.Stat(g.Dir()); errors.Is(gone, fs.ErrNotExist) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not removed within %v: %w", patience, err)
		}
		time.Sleep(wait)
	}
}

// kill sends SIGKILL to everything inside once; what was forked meanwhile is
// for the next round.
func kill(g *cgroup.Group) error {
	err := write(filepath.Join(g.Dir(), "cgroup.kill"), "1") // version 2, Linux 5.14: all at once
	if err == nil {
		return nil
	}
	pids, err := g.Pids()
	if errors.Is(err, cgroup.ErrGone) {
		return nil
	}
	errs := []error{err}
	for _, pid := range pids {
		if pid == os.Getpid() { // never, whoever moved us here
			errs = append(errs, errors.New("the calling process is inside"))
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
			errs = append(errs, fmt.Errorf("kill %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

// removeDirs removes the directory of a group, its descendants first. Control
// files go with their directory.
func removeDirs(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil // what vanished meanwhile needs no removing
	})
	for _, d := range slices.Backward(dirs) {
		if rmerr := syscall.Rmdir(d); rmerr != nil && rmerr != syscall.ENOENT {
			err = errors.Join(err, &fs.PathError{Op: "rmdir", Path: d, Err: rmerr})
		}
	}
	return err
}

// Sweep removes the sandboxes whose creator is dead, with the processes that
// are left in them, from the places where New makes them. It returns how many
// it removed; the error tells what could not be. Groups with processes of
// another PID namespace are left alone: the creator's pid means nothing here.
func Sweep() (removed int, err error) {
	_, parents, err := places()
	if errors.Is(err, cgroup.ErrNoController) {
		return 0, nil // nowhere to make one, nothing to sweep
	}
	if err != nil {
		return 0, fmt.Errorf("sandbox: sweep: %w", err)
	}
	var errs []error
	for _, p := range parents {
		names, err := children(p)
		errs = append(errs, err)
		for _, name := range names {
			pid, ok := creator(name)
			if !ok || alive(pid) {
				continue
			}
			ok, err := sweep(filepath.Join(p, name))
			errs = append(errs, err)
			if ok {
				removed++
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return removed, fmt.Errorf("sandbox: sweep: %w", err)
	}
	return removed, nil
}

func sweep(dir string) (bool, error) {
	if foreign(dir) {
		return false, nil
	}
	g, err := cgroup.OpenDir(dir)
	if err != nil {
		if errors.Is(err, cgroup.ErrGone) { // somebody else was faster
			err = nil
		}
		return false, err
	}
	defer g.Close()
	if err := remove(g); err != nil {
		return false, fmt.Errorf("%s: %w", dir, err)
	}
	return true, nil
}

// foreign reports whether a process of another PID namespace is in the group:
// the kernel shows it as pid 0.
func foreign(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	return err == nil && hasWord(text, "0")
}

// alive reports whether a process with this pid runs, also one that we may not
// signal. A zombie, whose parent has not yet asked for its status, does not.
func alive(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return false
	}
	// The state follows the name, which may hold anything but ends at the last ")".
	i := bytes.LastIndexByte(stat, ')')
	return i < 0 || !bytes.HasPrefix(stat[i:], []byte(") Z"))
}
