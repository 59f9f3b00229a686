// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"
	"unsafe"

	"github.com/memguard/memguard-go/scavenge/cgroup"
	"github.com/memguard/memguard-go/scavenge/smaps"
)

// Survey takes a sample with everything in it: the classified address space
// and the processes of the cgroup. The kernel walks the process's page tables
// for it, 15-30 ms per GiB of RSS under the lock that its page faults take
// too: for a person who asks, not for a timer. The error is ErrGone; that the pid
// is a kernel thread, which has no memory of its own; or that another process
// may not be looked into (errors.Is fs.ErrPermission).
func (s *Source) Survey(dst *Sample) error {
	if s.eye != nil && s.layout.Load() == nil {
		s.look(new(Sample)) // the mappings are told apart by it
	}
	maps, err := s.maps()
	if err := s.refuses(err); err != nil {
		return err
	}
	s.readAt = time.Time{} // all of the cgroup's files, at the same moment
	if err := s.Read(dst); err != nil {
		return err
	}
	dst.Process.Maps = maps
	if err != nil {
		dst.Blind = append(dst.Blind, Blind{"smaps", err.Error()})
	}
	s.members(dst)
	if s.hasEnded() {
		return fmt.Errorf("memguard: pid %d: %w", s.pid, ErrGone)
	}
	return nil
}

// refuses returns the error with which looking at the process ends, if err of its
// smaps is one.
func (s *Source) refuses(err error) error {
	switch {
	case errors.Is(err, smaps.ErrExited):
		return fmt.Errorf("memguard: pid %d: %w", s.pid, ErrGone)
	case errors.Is(err, smaps.ErrKernelThread), s.runtime == nil && errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("memguard: pid %d: %w", s.pid, err)
	}
	return nil
}

// maps reads the classified address space. It touches nothing of s that a tick
// changes.
func (s *Source) maps() (*smaps.Process, error) {
	return smaps.Read(proc, s.pid, s.hints())
}

// hasEnded reports whether the process is gone, its pid perhaps given to
// another by now.
func (s *Source) hasEnded() bool {
	start, err := startTime(proc + "/" + strconv.Itoa(s.pid))
	return gone(err) || err == nil && start != s.start
}

// hints are what this source knows of the address space.
func (s *Source) hints() smaps.Hints {
	h := smaps.Hints{Go: s.process.Go, Exe: s.process.Exe}
	if s.runtime != nil {
		object := new([64]*byte) // with a pointer in it: not from the tiny allocator
		h.HeapAddrs = []uint64{uint64(uintptr(unsafe.Pointer(object)))}
		var r Runtime
		newRuntimeReader().read(&r) // s.runtime is the tick's
		h.MetadataBytes, _ = r.Metadata.Get()
	}
	if l := s.layout.Load(); l != nil {
		h.HeapRanges, h.MetadataBytes = l.heap, l.metadata
	}
	return h
}

// readCgroup fills dst.Cgroup: the usage now, the rest as of the last second.
func (s *Source) readCgroup(dst *Sample) {
	dst.Cgroup = Cgroup{}
	if s.group == nil {
		return // said at opening
	}
	every := cgroupEvery
	if s.cacheFills() {
		every = cgroupCache
	}
	if since := dst.Time.Sub(s.readAt); since >= every || since < 0 {
		s.readAt = dst.Time
		s.reading = s.fullCgroup()
		if cache, ok := plus(s.reading.ActiveFile, s.reading.InactiveFile).Get(); ok && !s.alone {
			s.glance.Store(&glance{group: s.group, cache: cache + s.reading.Reclaimable.v})
		}
	}
	dst.Cgroup = s.reading
	dst.Blind = append(dst.Blind, s.unread...) // as of the last second, like the rest
	c := &dst.Cgroup
	usage, err := s.group.Usage()
	if err != nil {
		c.Usage, c.WorkingSet = Bytes{}, Bytes{}
		dst.Blind = append(dst.Blind, Blind{"cgroup usage", err.Error()})
		s.reopen(err)
		return
	}
	c.Usage = Known(usage)
	c.WorkingSet = Bytes{}
	if n, ok := c.InactiveFile.Get(); ok {
		c.WorkingSet = Known(usage - min(usage, n))
	}
}

// cacheFills reports whether page cache is a good part of a cgroup that is nearly
// full. Then the kernel makes room by dropping it while the usage stands still,
// and growth shows in the full reading alone.
func (s *Source) cacheFills() bool {
	limit, ok := bounded(s.reading.Limit)
	cache, ok2 := plus(s.reading.ActiveFile, s.reading.InactiveFile).Get()
	return ok && ok2 && s.reading.Usage.v >= limit/10*8 && cache >= limit/10
}

// reopen looks for the cgroup again when its directory is gone: the process was
// moved, or the directory was made anew.
func (s *Source) reopen(err error) {
	if !errors.Is(err, cgroup.ErrGone) {
		return
	}
	g, err := cgroup.Open(proc, s.pid)
	if err != nil {
		return // stays blind, and is tried again at the next tick
	}
	s.group.Close()
	s.group, s.readAt = g, time.Time{}
}

// fullCgroup reads all of the cgroup's files. What it cannot read is in s.unread.
func (s *Source) fullCgroup() Cgroup {
	s.unread = s.unread[:0]
	c := Cgroup{Path: s.group.Path(), Version: s.group.Version()}
	r, err := s.group.Read()
	if err != nil {
		s.unread = append(s.unread, Blind{"cgroup", err.Error()})
		s.reopen(err)
		return c
	}
	for _, err := range r.Errs {
		s.unread = append(s.unread, Blind{"cgroup", err.Error()})
	}
	c.LimitFrom, c.Above = r.LimitFrom, above(&r)
	c.Limit, c.High = fromLimit(r.Limit), fromLimit(r.High)
	c.Swap = fromValue(r.Swap)
	c.OOMKills = fromValue(r.Events.OOMKill)
	stat := func(k cgroup.Field) Bytes {
		if n, ok := r.Stat.Bytes(k); ok {
			return Known(n)
		}
		return Bytes{}
	}
	c.Anon, c.Mapped, c.Shmem = stat(cgroup.Anon), stat(cgroup.Anon), stat(cgroup.Shmem)
	c.ActiveFile, c.InactiveFile = stat(cgroup.ActiveFile), stat(cgroup.InactiveFile)
	c.Unevictable = stat(cgroup.Unevictable)
	cache := stat(cgroup.File)
	if swapped, ok := stat(cgroup.SwapCached).Get(); ok { // counted in the file line too
		cache = less(cache, Known(swapped))
	}
	c.File = less(cache, c.Shmem)
	if c.Version == 1 && isRoot(s.group.Dir()) {
		return c // the root's usage is page cache and mapped anonymous memory alone (mem_cgroup_usage)
	}
	// The anon line counts what is mapped. A huge page that was given back in
	// part stays charged as a whole until the kernel splits it (mm/huge_memory.c,
	// deferred_split_folio), and on a reclaim list. So what is charged is what is
	// on the lists and is not page cache.
	lists := plus(stat(cgroup.ActiveAnon), stat(cgroup.InactiveAnon), c.ActiveFile, c.InactiveFile, c.Unevictable)
	if listed, ok := less(lists, cache).Get(); ok {
		if mapped, ok := c.Anon.Get(); ok {
			c.Anon = Known(max(mapped, listed))
		}
	}
	// Version 2 keeps socket buffers apart from its kernel line, and has that
	// line since Linux 5.18 only.
	if c.Kernel = stat(cgroup.Kernel); c.Version == 2 {
		if c.Kernel == (Bytes{}) {
			c.Kernel = plus(stat(cgroup.Slab), stat(cgroup.KernelStack), stat(cgroup.PageTables), stat(cgroup.Percpu))
		}
		c.Kernel = plus(c.Kernel, stat(cgroup.Sock))
		c.Reclaimable = stat(cgroup.SlabReclaimable)
	}
	if p, ok := r.PSI.Some(); ok && !r.PSI.Host {
		c.Pressure = Known(p.Avg10)
	}
	return c
}

// above is the ancestor that leaves the least room, if that is less than the
// group's own limit does.
func above(r *cgroup.Reading) Above {
	_, dir, ok := r.Room()
	if !ok {
		return Above{}
	}
	for i, l := range r.Levels {
		if i > 0 && l.Dir == dir {
			return Above{Dir: dir, Usage: fromValue(l.Usage), Limit: fromLimit(l.Limit)}
		}
	}
	return Above{}
}

// less is a-b, or 0 where counters that were not read at one instant make it
// negative.
func less(a, b Bytes) Bytes {
	n, ok := minus(a, b).Get()
	if !ok {
		return Bytes{}
	}
	return Known(uint64(max(n, 0)))
}

// isRoot reports whether dir is the real root of a hierarchy of version 1, which
// alone has this file.
func isRoot(dir string) bool {
	_, err := os.Stat(dir + "/release_agent")
	return err == nil
}

func fromValue(v cgroup.Value) Bytes {
	if n, ok := v.Value(); ok {
		return Known(n)
	}
	return Bytes{}
}

func fromLimit(l cgroup.Limit) Bytes {
	if n, ok := l.Value(); ok {
		return Known(n)
	}
	if l.Unlimited() {
		return Known[uint64](Unlimited)
	}
	return Bytes{}
}

// members reads the anonymous memory of every process in the cgroup that has any.
func (s *Source) members(dst *Sample) {
	if s.group == nil {
		return
	}
	pids, err := s.group.Pids()
	if err != nil {
		dst.Blind = append(dst.Blind, Blind{"cgroup members", err.Error()})
		return
	}
	dst.Cgroup.Members = make([]Member, 0, len(pids))
	for _, pid := range pids {
		b, err := readSome(proc+"/"+strconv.Itoa(pid)+"/status", 1<<14)
		switch anon := statusBytes(b, "RssAnon"); {
		case gone(err):
			// It left meanwhile, and its memory with it.
		case err != nil:
			dst.Cgroup.Members = append(dst.Cgroup.Members, Member{PID: pid, Why: err.Error()})
		case anon != Bytes{}:
			dst.Cgroup.Members = append(dst.Cgroup.Members, Member{PID: pid, Anon: anon})
		case bytes.Contains(b, []byte("\nVmRSS:")):
			dst.Cgroup.Members = append(dst.Cgroup.Members, Member{PID: pid, Why: "no RssAnon in its status (a kernel before 4.5)"})
		default:
			// A kernel thread or a zombie: it has no memory of its own.
		}
	}
}

// statusBytes reads a line of proc_pid_status(5), in kB there.
func statusBytes(status []byte, field string) Bytes {
	_, rest, ok := bytes.Cut(status, []byte("\n"+field+":"))
	if !ok {
		return Bytes{}
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	num, ok := bytes.CutSuffix(bytes.TrimSpace(line), []byte(" kB"))
	if !ok {
		return Bytes{}
	}
	n, err := strconv.ParseUint(string(bytes.TrimSpace(num)), 10, 53)
	if err != nil {
		return Bytes{}
	}
	return Known(n << 10)
}
