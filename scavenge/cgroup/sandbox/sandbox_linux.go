// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/memguard/memguard-go/scavenge/cgroup"
)

// Sandbox is a memory cgroup with a limit. Its methods may be called from
// several goroutines.
type Sandbox struct {
	group  *cgroup.Group
	parent parent

	mu      sync.Mutex // guards what follows
	closed  bool
	nursery *nursery
}

var made atomic.Uint64 // sandboxes of this process, for their names

// New makes a memory cgroup with a limit in bytes, which the kernel rounds down to
// whole pages, and without swap: what goes over it is killed. name is for
// people who find the directory.
//
// The group is made at the top of the hierarchy where that may be written (as
// root), else as close to the caller as possible: on version 2 a part of the
// tree delegated to the user will do (systemd-run --user --scope). Limits of
// the place where it ends up hold as well.
//
// If it may be made nowhere the error wraps ErrUnsupported.
func New(name string, limit uint64) (*Sandbox, error) {
	if err := checkName(name); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	if err := checkLimit(limit); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	home, parents, err := places()
	if err != nil {
		return nil, fmt.Errorf("sandbox: %w: %w", ErrUnsupported, err)
	}
	base := dirName(name, os.Getpid(), made.Add(1))
	failed := fmt.Errorf("sandbox: %w", ErrUnsupported)
	sep := ":"
	for _, dir := range parents {
		s, err := newIn(dir, base, home)
		if err != nil {
			failed = fmt.Errorf("%w%s %w", failed, sep, err) // one line for a person
			sep = ";"
			continue
		}
		if err := s.SetLimit(limit); err != nil {
			return nil, errors.Join(err, s.Close())
		}
		return s, nil
	}
	return nil, failed
}

// newIn makes the group base in the group dir. home is the caller's own group.
func newIn(dir, base, home string) (_ *Sandbox, err error) {
	unlock, err := lock(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	p, err := openParent(dir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, base)
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, errors.Join(err, p.restore())
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, syscall.Rmdir(path), p.restore())
		}
	}()
	// Without the controller's files this was not a cgroup file system that
	// we can use, whatever mkdir says.
	g, err := cgroup.OpenDir(path)
	if err != nil {
		return nil, err
	}
	if g.Dir() != path {
		return nil, errors.Join(fmt.Errorf("%s has no memory controller", path), g.Close())
	}
	s := &Sandbox{group: g, parent: p}
	if err := s.noSwap(); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	if g.Version() == 1 {
		s.nursery = newNursery(filepath.Join(home, "tasks"), filepath.Join(path, "tasks"))
	} else {
		s.nursery = newNursery("", "")
	}
	return s, nil
}

// noSwap keeps the processes from swapping, which would hide the limit. On
// version 1 SetLimit does the rest.
func (s *Sandbox) noSwap() error {
	name := "memory.swappiness"
	if s.Version() == 2 {
		name = "memory.swap.max"
	}
	err := write(filepath.Join(s.Dir(), name), "0")
	if errors.Is(err, fs.ErrNotExist) { // a kernel without swap
		return nil
	}
	return err
}

// Dir returns the directory of the group.
func (s *Sandbox) Dir() string { return s.group.Dir() }

// Version returns the version of its hierarchy, 1 or 2.
func (s *Sandbox) Version() int { return s.group.Version() }

// Start starts cmd inside the group: all memory of its program is charged to
// it from the first instruction. Pid and exit status are the command's own. It
// gets SIGKILL when the calling process dies or Close is called; what it
// starts itself lives on until Close or Sweep.
func (s *Sandbox) Start(cmd *exec.Cmd) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("sandbox: start in %s: %w", s.Dir(), fs.ErrClosed)
	}
	var attr syscall.SysProcAttr
	if cmd.SysProcAttr != nil {
		attr = *cmd.SysProcAttr
	}
	if attr.Pdeathsig == 0 {
		attr.Pdeathsig = syscall.SIGKILL
	}
	if s.Version() == 2 {
		dir, err := os.Open(s.Dir())
		if err != nil {
			return fmt.Errorf("sandbox: start: %w", err)
		}
		defer dir.Close()
		attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd()) // CLONE_INTO_CGROUP, Linux 5.7
	}
	cmd.SysProcAttr = &attr
	if err := s.nursery.start(cmd); err != nil {
		return fmt.Errorf("sandbox: start in %s: %w", s.Dir(), err)
	}
	return nil
}

// SetLimit changes the limit, in bytes. Version 2 kills what does not fit
// under a lower one; version 1 fails with EBUSY when it cannot reclaim enough.
func (s *Sandbox) SetLimit(limit uint64) error {
	err := checkLimit(limit)
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	if s.Version() == 2 {
		err = write(filepath.Join(s.Dir(), "memory.max"), strconv.FormatUint(limit, 10))
	} else {
		err = setLimitV1(s.Dir(), limit)
	}
	if err != nil {
		return fmt.Errorf("sandbox: set limit to %d: %w", limit, err)
	}
	return nil
}

// setLimitV1 sets the limit of memory, and that of memory plus swap one page
// above: so much may be swapped. With none the second would be hit instead of
// the first, and recent kernels do not count its hits (memory.failcnt).
//
// The kernel keeps the first at or below the second, so the order depends on
// the direction: when it refuses with EINVAL, the other comes first.
func setLimitV1(dir string, limit uint64) error {
	memory := filepath.Join(dir, "memory.limit_in_bytes")
	both := filepath.Join(dir, "memory.memsw.limit_in_bytes")
	limitText := strconv.FormatUint(limit, 10)
	bothText := strconv.FormatUint(limit+uint64(os.Getpagesize()), 10)
	err := write(memory, limitText)
	if errors.Is(err, syscall.EINVAL) {
		return errors.Join(write(both, bothText), write(memory, limitText))
	}
	if err != nil {
		return err
	}
	if err = write(both, bothText); errors.Is(err, fs.ErrNotExist) { // swap is not accounted
		return nil
	}
	return err
}

// Kills returns how many processes of the group the kernel killed for lack of
// memory. It works until Close.
func (s *Sandbox) Kills() (uint64, error) {
	r, err := s.group.Read()
	return s.counter(r.Events.OOMKill, "oom_kill", r.Errs, err)
}

// Peak returns the most memory ever charged, in bytes, page cache included. It
// works until Close; on version 2 it needs Linux 5.19.
func (s *Sandbox) Peak() (uint64, error) {
	r, err := s.group.Read()
	return s.counter(r.Peak, "peak", r.Errs, err)
}

func (s *Sandbox) counter(v cgroup.Value, name string, errs []error, err error) (uint64, error) {
	if err != nil {
		return 0, fmt.Errorf("sandbox: %s: %w", name, err)
	}
	n, ok := v.Value()
	if !ok {
		return 0, fmt.Errorf("sandbox: the kernel gives no %s: %w", name, errors.Join(errs...))
	}
	return n, nil
}

// Close kills everything inside, removes the group and whatever groups were
// made in it, and undoes what New switched on above it, unless somebody else
// relies on it by now. It may be called again, also after it failed.
func (s *Sandbox) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if err := remove(s.group); err != nil {
		return fmt.Errorf("sandbox: close %s: %w", s.Dir(), err)
	}
	s.closed = true
	s.nursery.close()
	err := s.group.Close()
	if unlock, lockErr := lock(s.parent.dir); lockErr != nil {
		err = errors.Join(err, lockErr)
	} else {
		err = errors.Join(err, s.parent.restore())
		unlock()
	}
	if err != nil {
		return fmt.Errorf("sandbox: close %s: %w", s.Dir(), err)
	}
	return nil
}

// write writes a control file in one call. It never makes a file: on anything
// but a cgroup file system that would hide the mistake.
func write(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
