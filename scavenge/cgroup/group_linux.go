// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Group is the memory cgroup of one process, with its files kept open: they
// outlive the process, so that after a kill the group can still be read. Its
// methods may be called from several goroutines.
//
// A Group stays with the group it found. A process that is moved to another
// one must be opened anew.
type Group struct {
	version int
	path    string
	dir     string
	host    bool // the group is the real root of version 2

	mu     sync.Mutex // guards what follows, and the descriptors against Close
	closed bool
	root   *os.Root // dir, held open: /proc/PID/root ends with the process
	files  [numFiles]file
	levels []level
	psi    PSI     // Host, filled in when opened
	absent []error // files that could not be opened
	buf    []byte
}

// level has the files of the group or of an ancestor.
type level struct {
	dir                string
	usage, limit, high file
}

// One file of a group each. Which it is depends on the version: see fileNames.
const (
	fileUsage = iota
	filePeak
	fileStat
	fileEvents
	fileLocalEvents
	fileFailcnt
	fileFailcntSwap
	fileKernel
	fileSwap
	fileSwapLimit
	filePSI
	numFiles
)

var fileNames = [3][numFiles]string{
	1: {
		fileUsage:       "memory.usage_in_bytes",
		filePeak:        "memory.max_usage_in_bytes",
		fileStat:        "memory.stat",
		fileEvents:      "memory.oom_control",
		fileFailcnt:     "memory.failcnt",
		fileFailcntSwap: "memory.memsw.failcnt",
		fileKernel:      "memory.kmem.usage_in_bytes",
		fileSwapLimit:   "memory.memsw.limit_in_bytes",
	},
	2: {
		fileUsage:       "memory.current",
		filePeak:        "memory.peak", // Linux 5.19
		fileStat:        "memory.stat",
		fileEvents:      "memory.events",
		fileLocalEvents: "memory.events.local", // Linux 5.2
		fileSwap:        "memory.swap.current",
		fileSwapLimit:   "memory.swap.max",
		filePSI:         "memory.pressure", // Linux 4.20
	},
}

var levelNames = [3]struct{ usage, limit, high string }{
	1: {"memory.usage_in_bytes", "memory.limit_in_bytes", ""},
	2: {"memory.current", "memory.max", "memory.high"},
}

// Open finds the memory cgroup of pid and opens its files. proc is where
// procfs is mounted, normally "/proc"; pid 0 is the calling process.
//
// Another process's group is looked up in that process's own mount namespace,
// so that a sidecar sees the container of its target and not its own. This
// needs the same rights as ptrace(2); without them our own mounts are used,
// where they show the group.
//
// Errors wrap ErrNoProcess, ErrNoController or ErrGone where one of these is
// the reason.
func Open(proc string, pid int) (*Group, error) {
	p, err := locate(proc, pid)
	if err != nil {
		return nil, fmt.Errorf("cgroup: open pid %d: %w", pid, err)
	}
	g, err := open(p, filepath.Join(proc, "pressure/memory"))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) { // removed since locate saw it
			err = fmt.Errorf("%w: %w", ErrGone, err)
		}
		return nil, fmt.Errorf("cgroup: open pid %d: %w", pid, err)
	}
	return g, nil
}

// OpenDir opens the memory cgroup with the directory dir, for a group that is
// known by its place and not by a process. Its ancestors are looked for above
// dir. Errors are those of Open.
func OpenDir(dir string) (*Group, error) {
	p, err := placeOf(dir)
	var g *Group
	if err == nil {
		g, err = open(p, "/proc/pressure/memory")
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", ErrGone, err)
	}
	if err != nil {
		return nil, fmt.Errorf("cgroup: open %s: %w", dir, err)
	}
	return g, nil
}

func open(p place, hostPSI string) (*Group, error) {
	root, err := os.OpenRoot(p.dir)
	if err != nil {
		return nil, err
	}
	g := &Group{version: p.version, path: p.path, dir: p.dir, root: root, buf: make([]byte, 8<<10)}
	g.host = p.version == 2 && isRealRoot(p.dir)
	for i, name := range fileNames[p.version] {
		g.files[i] = file{fd: -1}
		if name != "" {
			g.files[i] = g.open(filepath.Join(p.dir, name))
		}
	}
	g.openPSI(p.psi, hostPSI)
	if !g.host && g.files[fileUsage].fd < 0 {
		err := errors.Join(g.absent...)
		g.Close()
		return nil, err
	}
	g.openLevels(p.top)
	g.absent = slices.Clip(g.absent)
	return g, nil
}

func (g *Group) open(path string) file {
	f, err := openFile(path)
	if err != nil {
		g.absent = append(g.absent, err)
	}
	return f
}

// openPSI finds the closest pressure file: the group's, on version 1 that of
// its twin in version 2, and at last the machine's.
func (g *Group) openPSI(twin, host string) {
	g.psi.Host = g.host
	if g.version == 2 {
		return
	}
	if twin != "" {
		if f, err := openFile(twin); err == nil {
			g.files[filePSI] = f
			return
		}
	}
	g.psi.Host = true
	g.files[filePSI] = g.open(host)
}

func (g *Group) openLevels(top string) {
	names := levelNames[g.version]
	for dir := g.dir; ; dir = filepath.Dir(dir) {
		limit, err := openFile(filepath.Join(dir, names.limit))
		switch {
		case errors.Is(err, fs.ErrNotExist): // the real root of version 2 has no limit
			return
		case err != nil:
			g.absent = append(g.absent, err)
		}
		l := level{dir: dir, usage: file{fd: -1}, limit: limit, high: file{fd: -1}}
		if dir != g.dir { // the group's own usage is open already
			l.usage = g.open(filepath.Join(dir, names.usage))
		}
		if names.high != "" {
			l.high = g.open(filepath.Join(dir, names.high))
		}
		g.levels = append(g.levels, l)
		if dir == top || len(dir) <= len(top) || g.version == 1 && !inherits(filepath.Dir(dir)) {
			return
		}
	}
}

// inherits reports whether the limit of the version 1 group dir binds its
// children: always since Linux 5.11, before only with memory.use_hierarchy.
func inherits(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, "memory.use_hierarchy"))
	return err != nil || string(bytes.TrimSpace(text)) != "0"
}

// Close closes the files. Calls after it return fs.ErrClosed.
func (g *Group) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	for i := range g.files {
		g.files[i].close()
	}
	for i := range g.levels {
		l := &g.levels[i]
		l.usage.close()
		l.limit.close()
		l.high.close()
	}
	return g.root.Close()
}

// Version returns the version of the hierarchy that has the memory controller,
// 1 or 2.
func (g *Group) Version() int { return g.version }

// Path returns the path of the process in the hierarchy, as /proc/PID/cgroup
// gives it: relative to our cgroup namespace. After OpenDir it is relative to
// the topmost group that can be seen.
func (g *Group) Path() string { return g.path }

// Dir returns the directory of the group that accounts the process's memory.
// On version 2 that is an ancestor of Path when the controller is not enabled
// further down.
func (g *Group) Dir() string { return g.dir }

// Usage returns the bytes charged to the group now. It costs one pread and
// allocates nothing. It fails with ErrGone after the group was removed.
func (g *Group) Usage() (uint64, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := &g.files[fileUsage]
	buf := g.buf[:32]
	n, err := f.pread(buf)
	if err != nil {
		return 0, g.fail(f, err)
	}
	v, ok := parseUint(buf[:n])
	if !ok {
		return 0, fmt.Errorf("cgroup: %s: not a number: %q", f.path, buf[:n])
	}
	return v, nil
}

// fail says which file failed, in words of this package.
func (g *Group) fail(f *file, err error) error {
	switch {
	case g.closed:
		err = fs.ErrClosed
	case errors.Is(err, syscall.ENODEV): // kernfs, once the directory is removed
		err = ErrGone
	case f.fd < 0:
		err = errors.New("the root of the hierarchy has no such file")
	}
	return fmt.Errorf("cgroup: %s: %w", f.path, err)
}

// Pids returns the processes of the group and its descendants, in ascending
// order. Those outside our PID namespace have no number here and are left out.
func (g *Group) Pids() ([]int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, fmt.Errorf("cgroup: pids of %s: %w", g.dir, fs.ErrClosed)
	}
	var pids []int
	err := fs.WalkDir(g.root.FS(), ".", func(dir string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			return nil
		}
		var text []byte
		if err == nil {
			text, err = g.root.ReadFile(filepath.Join(dir, "cgroup.procs"))
		}
		switch {
		case err == nil:
		case errors.Is(err, syscall.EOPNOTSUPP): // a threaded group: its domain lists the process
		case dir != "." && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV)): // removed meanwhile
			return fs.SkipDir
		default:
			return err
		}
		for line := range strings.Lines(string(text)) {
			if pid, ok := parseUint([]byte(line)); ok && pid != 0 && pid <= maxPid {
				pids = append(pids, int(pid))
			}
		}
		return nil
	})
	if errors.Is(err, syscall.ENODEV) || errors.Is(err, fs.ErrNotExist) {
		err = ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("cgroup: pids of %s: %w", g.dir, err)
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

const maxPid = 1 << 22 // PID_MAX_LIMIT, include/linux/threads.h

// file is a descriptor kept open. It is not an os.File, which would register
// with the poller: the kernel wakes pollers of memory.events at every event.
type file struct {
	fd   int // -1: not open
	path string
}

func openFile(path string) (file, error) {
	for {
		fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		switch err {
		case nil:
			return file{fd, path}, nil
		case syscall.EINTR:
		default:
			return file{-1, path}, &fs.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

func (f *file) pread(buf []byte) (int, error) {
	for {
		n, err := syscall.Pread(f.fd, buf, 0)
		if err != syscall.EINTR {
			return n, err
		}
	}
}

func (f *file) close() {
	if f.fd >= 0 {
		syscall.Close(f.fd)
		f.fd = -1
	}
}
