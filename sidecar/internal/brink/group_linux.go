// SPDX-License-Identifier: Apache-2.0

package brink

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/memguard/memguard-go/scavenge/cgroup"
	"golang.org/x/sys/unix"
)

const (
	oomControl   = "memory.oom_control"
	usageFile    = "memory.usage_in_bytes"
	eventControl = "cgroup.event_control"
)

// group is a memory cgroup of version 1, whose kills may be held.
type group struct {
	*cgroup.Group
	dir     *os.File // that may be written
	id      groupID
	control int // its memory.oom_control: there may be no descriptor left when it is needed
}

// groupID is a cgroup's directory.
type groupID struct{ dev, inode uint64 }

func (id groupID) String() string { return fmt.Sprintf("%d-%d", id.dev, id.inode) }

func idOf(dir *os.File) (groupID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return groupID{}, err
	}
	return groupID{uint64(st.Dev), st.Ino}, nil
}

// openGroup opens the group of a process, if its kills may be held.
func openGroup(pid int, k *Keeper) (_ *group, err error) {
	g, err := cgroup.Open("/proc", pid)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			g.Close()
		}
	}()
	if g.Version() != 1 {
		return nil, fmt.Errorf("%w: cgroup version 2 has no setting for it", ErrNot)
	}
	dir, err := writable(g)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNot, err)
	}
	o := &group{Group: g, dir: dir}
	if o.id, err = idOf(dir); err == nil {
		err = k.reclaim(o.id, dir)
	}
	if err == nil {
		err = o.check()
	}
	if err == nil {
		o.control, err = unix.Openat(int(dir.Fd()), oomControl, unix.O_RDWR|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("%w: %s: %w", ErrNot, dir.Name(), err)
	}
	return o, nil
}

func (g *group) close() { _ = errors.Join(unix.Close(g.control), g.dir.Close(), g.Close()) }

// left reports whether a process is seen to be in another group.
func (g *group) left(pid int) bool {
	now, err := cgroup.Open("/proc", pid)
	if err != nil {
		return false
	}
	defer now.Close()
	dir, err := os.Open(now.Dir())
	if err != nil {
		return false
	}
	defer dir.Close()
	id, err := idOf(dir)
	return err == nil && id != g.id
}

// full reports whether the group's processes wait for memory.
func (g *group) full() (bool, error) {
	var b [512]byte
	n, err := unix.Pread(g.control, b[:], 0)
	if err != nil {
		return false, fmt.Errorf("%s: %w", oomControl, err)
	}
	_, full := parseOOM(b[:n])
	return full, nil
}

// set writes what the kernel is to do when the group is full.
func (g *group) set(text string) error {
	if _, err := unix.Pwrite(g.control, []byte(text), 0); err != nil && err != unix.ENODEV { // it was removed
		return fmt.Errorf("%s: %w", oomControl, err)
	}
	return nil
}

// restore is [restore], and needs no descriptor for the group itself.
func (g *group) restore() error {
	return errors.Join(g.set("0"), restoreBelow(int(g.dir.Fd())))
}

// check says why the group's kills may not be held, if so.
func (g *group) check() error {
	r, err := g.Read()
	if err != nil {
		return err
	}
	switch _, bounded := r.Limit.Value(); {
	case !r.Limit.Known():
		return errors.New("its limit is unknown")
	case !bounded: // as the root has none
		return errors.New("it has no limit")
	case r.LimitFrom == "":
		return errors.New("its limit is that of a cgroup above it that cannot be seen")
	case r.LimitFrom != g.Dir():
		return fmt.Errorf("its limit is that of %s above it, whose other processes would stand still, too", r.LimitFrom)
	}
	// A group that is made while the setting stands inherits it (mm/memcontrol.c,
	// mem_cgroup_css_alloc), and what is in it would wait for its own.
	if below, err := children(int(g.dir.Fd())); err != nil {
		return err
	} else if len(below) > 0 {
		return fmt.Errorf("it has cgroups of its own below it, such as %s", below[0])
	}
	if within, err := holdsUs(g.dir); err != nil {
		return err
	} else if within {
		return errors.New("the sidecar itself is in it, and would stand still")
	}
	disabled, _, err := oomState(int(g.dir.Fd()))
	if err != nil {
		return err
	}
	if disabled {
		return fmt.Errorf("its %s is 1 already, by somebody else: it is left as it is", oomControl)
	}
	return nil
}

// holdsUs reports whether we are charged to the group, or to one below it.
func holdsUs(dir *os.File) (bool, error) {
	own, err := cgroup.Open("/proc", 0)
	if err != nil {
		return false, fmt.Errorf("our own cgroup: %w", err)
	}
	defer own.Close()
	r, err := own.Read()
	if err != nil {
		return false, fmt.Errorf("our own cgroup: %w", err)
	}
	st, err := dir.Stat()
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(r.Levels, func(l cgroup.Level) bool {
		at, err := os.Stat(l.Dir)
		return err == nil && os.SameFile(st, at)
	}), nil
}

// writable opens the group's directory where it may be written: as its process sees
// it, else as we do. A container has it read-only, as a rule, and a node agent has
// all of it.
func writable(g *cgroup.Group) (*os.File, error) {
	dir, err := os.Open(g.Dir())
	if err != nil {
		return nil, err
	}
	refused := mayWrite(dir)
	if refused == nil {
		return dir, nil
	}
	defer dir.Close()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for _, name := range cgroup.Places(mounts, g.Path()) {
		d, err := os.Open(name)
		if err != nil {
			continue
		}
		a, err := dir.Stat()
		b, err2 := d.Stat()
		if err == nil && err2 == nil && os.SameFile(a, b) && mayWrite(d) == nil {
			return d, nil
		}
		d.Close()
	}
	return nil, refused
}

// mayWrite says why a group's settings may not be written.
func mayWrite(dir *os.File) error {
	for _, name := range []string{oomControl, eventControl} {
		fd, err := unix.Openat(int(dir.Fd()), name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &fs.PathError{Op: "write", Path: filepath.Join(dir.Name(), name), Err: err}
		}
		unix.Close(fd)
	}
	return nil
}

// oomState reads what the group does when it is full, and whether it is.
func oomState(dir int) (disabled, full bool, err error) {
	b, err := readAt(dir, oomControl)
	if err != nil {
		return false, false, err
	}
	disabled, full = parseOOM(b)
	return disabled, full, nil
}

func parseOOM(b []byte) (disabled, full bool) {
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch name {
		case "oom_kill_disable":
			disabled = value != "0"
		case "under_oom":
			full = value != "0"
		}
	}
	return disabled, full
}

// restore lets the kernel kill again, in the group and in those that were made below
// it meanwhile.
func restore(dir int) error {
	return errors.Join(writeAt(dir, oomControl, "0"), restoreBelow(dir))
}

func restoreBelow(dir int) error {
	below, err := children(dir)
	errs := []error{err}
	for _, name := range below {
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err == unix.ENOENT || err == unix.ENODEV {
			continue // it has gone
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		errs = append(errs, restore(fd))
		unix.Close(fd)
	}
	return errors.Join(errs...)
}

// children are the names of the groups below one.
func children(dir int) (names []string, err error) {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "cgroup")
	defer f.Close()
	entries, err := f.ReadDir(-1)
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	if errors.Is(err, unix.ENODEV) || errors.Is(err, fs.ErrNotExist) {
		err = nil // the group was removed
	}
	return names, err
}

func readAt(dir int, name string) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer unix.Close(fd)
	var b [512]byte
	n, err := unix.Read(fd, b[:])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b[:n], nil
}

func writeAt(dir int, name, text string) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV): // the group was removed
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(text)); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// hear has an eventfd(2) told of the group: of the file's events, or of where it
// passes a number.
func (g *group) hear(events int, name, args string) error {
	fd, err := unix.Openat(int(g.dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer unix.Close(fd)
	return writeAt(int(g.dir.Fd()), eventControl, strings.TrimSpace(strconv.Itoa(events)+" "+strconv.Itoa(fd)+" "+args))
}
