// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/memguard/memguard-go/scavenge/cgroup"
	"github.com/memguard/memguard-go/scavenge/smaps"
)

// proc is where the kernel's process files are.
const proc = "/proc"

// cgroupEvery is how often all of the cgroup's files are read; its usage is
// read at every tick.
const cgroupEvery = time.Second

// cgroupCache is the same while page cache hides what grows: see cacheFills.
const cgroupCache = 50 * time.Millisecond

// ErrGone is what looking at a process gives that does not exist, has ended, or
// whose pid belongs to another process by now.
var ErrGone = errors.New("no such process, or it has ended")

// Source reads Samples of one process. It keeps the files of a tick open. It is
// not safe for concurrent use.
type Source struct {
	pid     int
	start   uint64         // start time in clock ticks since boot; with the pid it names the process
	runtime *runtimeReader // nil for another process
	environ Runtime        // of another process: what its environment says of the runtime
	eye     Eye            // of another process: reads the runtime's own figures; nil if there is none
	layout  atomic.Pointer[layout]
	process Process // what does not change: executable, Go release
	statm   *os.File
	group   *cgroup.Group
	limit   uint64 // that the service states itself; 0 is none
	alone   bool   // what the process has resident is held against it: see state

	hadMemory bool   // it was seen to have an address space
	reading   Cgroup // last full reading of the cgroup
	readAt    time.Time
	swap      Bytes // as of swapAt
	swapAt    time.Time
	noSwap    string  // why swap is not known
	unread    []Blind // in that reading
	glance    atomic.Pointer[glance]
	blind     []Blind // found at opening
	buf       [256]byte
}

// Eye reads the runtime's own figures of another process from outside, and says
// where the arenas of its heap are.
type Eye func(*Runtime) (heap []smaps.Range, err error)

// layout is what an Eye saw last of the address space.
type layout struct {
	heap     []smaps.Range
	metadata uint64
}

// See lets s read the runtime's figures of another process through eye. Without
// it, or when it fails, they are what the environment says. It must be called
// before anything is read.
func (s *Source) See(eye Eye) {
	s.eye = eye
	s.blind = slices.DeleteFunc(s.blind, func(b Blind) bool { return b.What == blindRuntime })
}

// blindRuntime is what is not seen of another process without an Eye.
const blindRuntime = "runtime"

// Self returns the Source of the calling process. It sees the runtime's own
// figures, and on Linux the kernel's.
func Self() *Source {
	s := &Source{pid: os.Getpid(), runtime: newRuntimeReader()}
	s.open("self")
	s.process.Go = true
	return s
}

// Open returns the Source of another process: the kernel's view of it. It fails
// when nothing can be seen of the process: it is gone (errors.Is ErrGone), or
// this system has no /proc.
func Open(pid int) (*Source, error) {
	if pid == os.Getpid() {
		return Self(), nil
	}
	s := &Source{pid: pid}
	if pid <= 0 {
		return nil, fmt.Errorf("memguard: pid %d: not a process id", pid)
	}
	if _, err := os.Stat(proc + "/self"); err != nil {
		return nil, fmt.Errorf("memguard: pid %d: this system has no %s to look into", pid, proc)
	}
	if s.open(strconv.Itoa(pid)); s.statm == nil {
		s.Close()
		if _, err := os.Stat(proc + "/" + strconv.Itoa(pid)); errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("memguard: pid %d: %w", pid, ErrGone)
		}
		return nil, fmt.Errorf("memguard: pid %d: %s", pid, s.blind[0].Why)
	}
	return s, nil
}

// open opens what can be opened; what cannot is kept in s.blind.
func (s *Source) open(name string) {
	dir := proc + "/" + name
	var err error
	if s.statm, err = os.Open(dir + "/statm"); err != nil {
		s.cannot("process", err)
	}
	if s.start, err = startTime(dir); err != nil && s.statm != nil {
		s.cannot("start time", err)
	}
	if s.group, err = cgroup.Open(proc, s.pid); err != nil {
		s.cannot("cgroup", err)
	}
	s.identify(dir)
}

func (s *Source) cannot(what string, err error) {
	s.blind = append(s.blind, Blind{What: what, Why: err.Error()})
}

// Close closes the files that are kept open.
func (s *Source) Close() error {
	var errs []error
	if s.statm != nil {
		errs = append(errs, s.statm.Close())
	}
	if s.group != nil {
		errs = append(errs, s.group.Close())
	}
	return errors.Join(errs...)
}

// Read takes the sample of a tick: one batch of runtime metrics, RSS, and the
// cgroup's usage; once a second the rest of the cgroup. It allocates nothing
// between those seconds and stops nothing. What could not be read is unknown
// and in dst.Blind. The error is [ErrGone] when the process has ended; nothing
// else ends a loop.
func (s *Source) Read(dst *Sample) error {
	dst.Time, dst.PID = time.Now(), s.pid
	dst.Blind = append(dst.Blind[:0], s.blind...)
	dst.Process = s.process
	s.readCgroup(dst)
	switch {
	case s.runtime != nil:
		s.runtime.read(&dst.Runtime)
		if err := s.runtime.readClasses(&dst.Runtime, dst.Time); err != nil {
			dst.Blind = append(dst.Blind, Blind{"size classes", err.Error()})
		}
	case s.eye != nil:
		s.look(dst)
	default:
		dst.Runtime = s.environ
	}
	err := s.readRSS(dst)
	s.readSwap(dst)
	s.state(dst)
	return err
}

// look reads the runtime's figures through the eye.
func (s *Source) look(dst *Sample) {
	heap, err := s.eye(&dst.Runtime)
	if err != nil {
		dst.Runtime = s.environ
		dst.Blind = append(dst.Blind, Blind{blindRuntime, err.Error()})
		return
	}
	metadata, _ := dst.Runtime.Metadata.Get()
	s.layout.Store(&layout{heap, metadata})
}

// glance is what it takes to read the usage between two samples.
type glance struct {
	group *cgroup.Group
	cache uint64   // page cache as of the last full reading
	statm *os.File // instead of these: what is resident counts
}

// usageNow reads what is charged to the cgroup and cannot be dropped. It may be
// called from any goroutine at any time.
func (s *Source) usageNow() (uint64, bool) {
	g := s.glance.Load()
	if g == nil {
		return 0, false
	}
	if g.statm != nil {
		return g.residentNow()
	}
	n, err := g.group.Usage()
	return n - min(n, g.cache), err == nil
}

// readRSS reads statm last of a tick's figures, so that a process that ended
// during the tick is noticed.
func (s *Source) readRSS(dst *Sample) error {
	if s.statm == nil {
		return nil // said at opening
	}
	n, err := readAt(s.statm, s.buf[:])
	if n == 0 && gone(err) {
		return fmt.Errorf("memguard: pid %d: %w", s.pid, ErrGone)
	}
	size, rss, shared, ok := parseStatm(s.buf[:n])
	switch {
	case n == 0 && err != nil:
		dst.Blind = append(dst.Blind, Blind{"RSS", err.Error()})
	case !ok:
		dst.Blind = append(dst.Blind, Blind{"RSS", fmt.Sprintf("%s: not three numbers: %q", s.statm.Name(), s.buf[:n])})
	case size == 0 && s.hadMemory: // a zombie: it has ended, and nobody has asked how
		return fmt.Errorf("memguard: pid %d: %w", s.pid, ErrGone)
	case size == 0:
		dst.Blind = append(dst.Blind, Blind{"RSS", "it has no memory of its own: a kernel thread, or it has ended"})
	default:
		s.hadMemory = true
		page := uint64(pageSize)
		dst.Process.RSS, dst.Process.Shared = Known(rss*page), Known(shared*page)
	}
	return nil
}

// pageSize is the unit of statm.
var pageSize = os.Getpagesize()

// parseStatm reads the first three fields of proc_pid_statm(5), in pages.
func parseStatm(b []byte) (size, resident, shared uint64, ok bool) {
	var f [3]uint64
	i := 0
	for k := range f {
		start := i
		for i < len(b) && '0' <= b[i] && b[i] <= '9' {
			d := uint64(b[i] - '0')
			if f[k] > (1<<46-d)/10 { // bytes must fit too, with pages of 64 KiB
				return 0, 0, 0, false
			}
			f[k] = f[k]*10 + d
			i++
		}
		if i == start || i == len(b) || b[i] != ' ' {
			return 0, 0, 0, false
		}
		i++
	}
	return f[0], f[1], f[2], true
}
