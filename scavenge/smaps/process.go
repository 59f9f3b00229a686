// SPDX-License-Identifier: Apache-2.0

package smaps

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

var (
	// ErrExited: the process has ended, or ends now; what is left of it has no memory.
	// An error of a pid that is gone altogether is fs.ErrNotExist too.
	ErrExited = errors.New("process has exited")
	// ErrKernelThread: the pid is a kernel thread, which has no address space of its own.
	ErrKernelThread = errors.New("kernel thread: no address space")
	// ErrEmpty: the file has no mapping in it and nothing says why.
	ErrEmpty = errors.New("no mappings")
)

// Process is a classified address space. The kernel hands smaps out in pieces of
// a few mappings and the process runs on meanwhile, so this is not one instant.
type Process struct {
	Mappings []Mapping // in the order of the file, which is by address; each has its Kind

	// SyntaxErrors are the first lines that could not be read, BadLines is how many there were.
	SyntaxErrors []*SyntaxError
	BadLines     int
	// Overlaps counts the mappings that begin inside the one before, because the address
	// space changed between two pieces: the sums may count some memory twice. A mapping that
	// covers earlier ones whole (it grew, or they were merged) replaces them and is not counted.
	Overlaps int
}

// Total sums all mappings. A field is known if it is known in every mapping.
func (p *Process) Total() Fields {
	return p.sum(func(*Mapping) bool { return true })
}

// ByKind sums the mappings of kind k. A field is known if it is known in each of them;
// if there is no such mapping it is 0, provided that it is known in every mapping of the process.
func (p *Process) ByKind(k Kind) Fields {
	return p.sum(func(m *Mapping) bool { return m.Kind == k })
}

func (p *Process) sum(in func(*Mapping) bool) Fields {
	var total Fields
	if len(p.Mappings) == 0 {
		return total
	}
	all, some := ^uint32(0), false
	total.known = all
	for i := range p.Mappings {
		m := &p.Mappings[i]
		all &= m.known
		if in(m) {
			some = true
			total.add(&m.Fields)
		}
	}
	if !some {
		total.known = all
	}
	return total
}

// maxLast bounds the room that is made for as many mappings as the process before had.
const maxLast = 4096

// readers keeps buffers and learnt layouts between calls.
var readers = sync.Pool{New: func() any { return NewReader(nil) }}

// Parse reads the text of smaps (or maps, whose mappings have no fields) and classifies
// every mapping. If reading fails it returns what came before, and the error.
func Parse(src io.Reader, h Hints) (*Process, error) {
	r := readers.Get().(*Reader)
	defer func() {
		r.Reset(nil)
		readers.Put(r)
	}()
	r.Reset(src)
	p := &Process{Mappings: make([]Mapping, 0, r.last)}
	for r.Scan() {
		p.append(r.Mapping())
	}
	r.last = min(len(p.Mappings), maxLast)
	p.SyntaxErrors, p.BadLines = r.SyntaxErrors()
	classify(p.Mappings, &h)
	return p, r.Err()
}

func (p *Process) append(m *Mapping) {
	n := len(p.Mappings)
	for n > 0 && m.Start <= p.Mappings[n-1].Start && p.Mappings[n-1].End <= m.End {
		n--
	}
	p.Mappings = append(p.Mappings[:n], *m)
	if n > 0 && m.Start < p.Mappings[n-1].End {
		p.Overlaps++
	}
}

// Read parses and classifies smaps of a process. proc is where procfs is mounted,
// normally "/proc". If h.Exe is empty, Read fills it in from the exe link where it may.
//
// The kernel walks the page tables for it, with the lock held that the process needs to map memory, and
// the time grows with what is resident (BenchmarkSelf): read on demand, not on a timer. A pid that is not
// there is fs.ErrNotExist, missing rights are fs.ErrPermission; see also ErrExited,
// ErrKernelThread and ErrEmpty.
func Read(proc string, pid int, h Hints) (*Process, error) {
	dir := filepath.Join(proc, strconv.Itoa(pid))
	if h.Exe == "" {
		h.Exe, _ = os.Readlink(filepath.Join(dir, "exe")) // classify does without it, too
	}
	var p *Process
	err := read(dir, "smaps", func(f io.Reader) (empty bool, err error) {
		p, err = Parse(f, h)
		if err == nil && len(p.Mappings) == 0 && p.BadLines > 0 {
			err = p.SyntaxErrors[0]
		}
		return len(p.Mappings) == 0, err
	})
	if err != nil {
		return nil, err
	}
	if some(p.Mappings, maybeTmpfs) {
		if b, err := os.ReadFile(filepath.Join(dir, "mountinfo")); err == nil {
			markDevices(p.Mappings, tmpfs(b))
		}
	}
	return p, nil
}

// maybeTmpfs reports whether a mapped file may be memory: its device is no block device. That holds for
// overlayfs too, where the libraries of a container are; they are not worth the look at its mounts.
func maybeTmpfs(m *Mapping) bool {
	return m.Kind == File && m.DevMajor == 0 && m.Inode != 0 && !library(m.Path)
}

// tmpfs returns the devices of file systems in memory, from proc_pid_mountinfo(5):
//
//	36 35 0:26 / /tmp rw,nosuid - tmpfs tmpfs rw
//	      ^ device                 ^ type
func tmpfs(mountinfo []byte) (devs []device) {
	for line := range strings.Lines(string(mountinfo)) {
		mount, fs, _ := strings.Cut(line, " - ")
		f := strings.SplitN(mount, " ", 4)
		if len(f) < 4 {
			continue
		}
		major, minor, _ := strings.Cut(f[2], ":")
		maj, err1 := strconv.ParseUint(major, 10, 32)
		mnr, err2 := strconv.ParseUint(minor, 10, 32)
		if err1 != nil || err2 != nil {
			continue
		}
		switch typ, _, _ := strings.Cut(fs, " "); typ {
		case "tmpfs", "devtmpfs", "ramfs", "hugetlbfs":
			devs = append(devs, device{uint32(maj), uint32(mnr)})
		}
	}
	return devs
}

// ReadRollup reads the sums that the kernel makes itself (smaps_rollup, Linux 4.14+). It walks the same
// page tables for them as for smaps. The errors are those of Read.
func ReadRollup(proc string, pid int) (Mapping, error) {
	var m Mapping
	err := read(filepath.Join(proc, strconv.Itoa(pid)), "smaps_rollup", func(f io.Reader) (empty bool, err error) {
		m, err = ParseRollup(f)
		return errors.Is(err, ErrEmpty), err
	})
	return m, err
}

// ParseRollup reads the text of smaps_rollup: one mapping with the path "[rollup]" that
// spans all others. Bad lines do not end it: it returns what it could read, and the first
// *SyntaxError.
func ParseRollup(src io.Reader) (Mapping, error) {
	r := readers.Get().(*Reader)
	defer func() {
		r.Reset(nil)
		readers.Put(r)
	}()
	r.Reset(src)
	var m Mapping
	if r.Scan() {
		m = *r.Mapping()
		if r.Scan() && r.Err() == nil {
			return m, fmt.Errorf("smaps: rollup has a second mapping at %#x: is this smaps?", r.Mapping().Start)
		}
	}
	if err := r.Err(); err != nil {
		return m, err
	}
	if errs, _ := r.SyntaxErrors(); len(errs) > 0 {
		return m, errs[0]
	}
	if m.End == 0 {
		return m, fmt.Errorf("smaps: rollup: %w", ErrEmpty)
	}
	return m, nil
}

// read opens a file of dir, has it parsed, and says what an empty one means.
func read(dir, name string, parse func(io.Reader) (empty bool, err error)) error {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		// A PathError: it names the file. smaps_rollup says ESRCH here, smaps when it is read.
		return diagnose(dir, name, false, fmt.Errorf("smaps: %w", err))
	}
	defer f.Close()
	empty, err := parse(pieces{f})
	return diagnose(dir, name, empty, err)
}

// pieceSize is less than the kernel has room for. It collects mappings, 700 bytes and the path each, in one
// page until the read is satisfied or one does not fit, which it throws away and makes anew for the next read
// (seq_read_iter in fs/seq_file.c): whoever asks for more has every sixth mapping walked twice.
const pieceSize = 3 << 10

// pieces fills a buffer by pieceSize: kernel and parser evict each other's caches, so take turns rarely.
type pieces struct{ io.Reader }

func (p pieces) Read(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = p.Reader.Read(b[n:min(n+pieceSize, len(b))])
		n += m
	}
	return n, err
}

// diagnose says what became of reading the file name in dir.
func diagnose(dir, name string, empty bool, err error) error {
	switch {
	case errors.Is(err, syscall.ESRCH):
		return fmt.Errorf("%w: %w", err, whyEmpty(dir, ErrExited))
	case empty && (err == nil || errors.Is(err, ErrEmpty)):
		return fmt.Errorf("smaps: read %s: %w", filepath.Join(dir, name), whyEmpty(dir, ErrEmpty))
	}
	if _, ok := errors.AsType[*SyntaxError](err); ok {
		return fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
	}
	return err
}

// whyEmpty asks proc_pid_stat(5) why a process has no mappings; unknown is what to say if that does not tell.
func whyEmpty(dir string, unknown error) error {
	const (
		pfExiting = 0x00000004 // include/linux/sched.h
		pfKthread = 0x00200000
	)
	b, err := os.ReadFile(filepath.Join(dir, "stat"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("%w (%w)", ErrExited, fs.ErrNotExist)
	}
	// The name in field 2 may hold anything, ")" too: count from the last one.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // field 3 is f[0]
	if err != nil || len(f) < 7 {
		return unknown
	}
	flags, _ := strconv.ParseUint(f[6], 10, 64)
	switch {
	case flags&pfKthread != 0:
		return ErrKernelThread
	case strings.Contains("ZXx", f[0]) || flags&pfExiting != 0:
		return ErrExited
	}
	return unknown
}
