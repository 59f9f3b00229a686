// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/memguard/memguard-go/scavenge/cgroup"
)

// places returns the caller's own memory cgroup and the groups in which a new
// one may be made, best first: the top of the hierarchy, then from our own
// group upwards.
func places() (home string, parents []string, err error) {
	g, err := cgroup.Open("/proc", 0)
	if err != nil {
		return "", nil, err
	}
	home = g.Dir()
	return home, chain(home), g.Close()
}

// chain returns the groups from home up, with the topmost moved to the front.
func chain(home string) []string {
	dirs := []string{home}
	for dir := filepath.Dir(home); dir != home; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
			break
		}
		dirs = append(dirs, dir)
	}
	top := len(dirs) - 1
	return append([]string{dirs[top]}, dirs[:top]...)
}

// lock holds the group dir against other sandboxes that are being made or
// removed in it, of any process: otherwise one could switch the controller off
// between the moment where another finds it on and its mkdir.
func lock(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(&fs.PathError{Op: "flock", Path: dir, Err: err}, f.Close())
	}
	return func() { f.Close() }, nil // closing unlocks
}

// parent is the group in which a sandbox is made.
type parent struct {
	dir     string
	enabled bool     // version 2: we switched the controller on for its children
	before  []string // the children it had then
}

// openParent makes sure that a new child of the group dir has the memory
// controller, and that a process may be born into it.
//
// Version 2 hands a controller to children only where cgroup.subtree_control
// says so, and lets it be switched on only where no process is in the group
// itself, the real root excepted: EBUSY (cgroup-v2.rst, "No Internal Process
// Constraint"). A process may enter only from below a group whose
// cgroup.procs the caller may write ("Delegation Containment").
func openParent(dir string) (parent, error) {
	p := parent{dir: dir}
	controllers, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil // version 1
	}
	if err != nil {
		return p, err
	}
	if !hasWord(controllers, "memory") {
		return p, fmt.Errorf("%s has no memory controller to hand down", dir)
	}
	procs := filepath.Join(dir, "cgroup.procs")
	const writable = 2 // W_OK
	if err := syscall.Access(procs, writable); err != nil {
		return p, &fs.PathError{Op: "write", Path: procs, Err: err}
	}
	control := filepath.Join(dir, "cgroup.subtree_control")
	on, err := os.ReadFile(control)
	if err != nil {
		return p, err
	}
	if hasWord(on, "memory") {
		before, ok := switched.Load(dir)
		if p.enabled = ok; ok {
			p.before = before.([]string)
		}
		return p, nil
	}
	if p.before, err = children(dir); err != nil {
		return p, err
	}
	if err := write(control, "+memory"); err != nil {
		return p, err
	}
	p.enabled = true
	switched.Store(dir, p.before)
	return p, nil
}

// switched has the groups where this process switched the controller on, with
// the children ([]string) that they had then: of several sandboxes there the
// last one to go switches it off.
var switched sync.Map

// restore switches the controller off again if openParent switched it on and
// nobody has made a group there since, who would lose it. The caller holds the
// lock, as for openParent.
func (p parent) restore() error {
	if !p.enabled {
		return nil
	}
	now, err := children(p.dir)
	if err != nil {
		return err
	}
	for _, c := range now {
		if !slices.Contains(p.before, c) {
			return nil
		}
	}
	err = write(filepath.Join(p.dir, "cgroup.subtree_control"), "-memory")
	if err == nil {
		switched.Delete(p.dir)
	}
	return err
}

func children(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

func hasWord(text []byte, word string) bool {
	return slices.Contains(strings.Fields(string(text)), word)
}
