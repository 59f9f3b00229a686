// SPDX-License-Identifier: Apache-2.0

package target

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"sort"
	"strconv"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"golang.org/x/sys/unix"
)

const (
	young   = 15 * time.Second // since its start: a process may still exec what it was started for
	settled = 15 * time.Second // until one that is older is judged again, and up to twice that
	recheck = 10 * time.Second // until one that matches is
	hung    = time.Minute      // until one is that made a read hang

	maxLives = 1 << 17 // processes remembered; kernel.pid_max is 4,194,304 at most
	maxProbe = 512     // new pids that are looked at one by one
	relist   = 30      // scans until all of /proc is listed again
)

// finder is what a Finder knows of the processes.
type finder struct {
	boot   time.Time // by the clock at the first scan: a start time must not change with it
	lives  map[int]*life
	pass   uint64 // number of scans
	cursor int    // pid that the kernel handed out last, at the scan before; 0 is unknown
	nets   map[string]*netns
	ownNet string // our own network namespace
	exes   exes
	pids   []int
	dents  []byte
}

// life is one process, as it was last judged.
type life struct {
	pid    int
	start  uint64
	pass   uint64    // scan that saw it last
	next   time.Time // when it is judged again
	rule   int       // that matches; -1: none
	link   string    // of the executable, as the kernel gives it
	proc   Process   // if a rule matches
	blind  []blind
	listen listening
}

// blind is that a rule's condition could not be looked at.
type blind struct {
	rule  int
	field string
	why   string
}

func (f *Finder) scan(ctx context.Context) ([]Found, []memguard.Blind) {
	f.pass++
	now := time.Now()
	if f.lives == nil {
		f.lives = map[int]*life{}
		f.boot = now.Add(-sinceBoot())
		f.ownNet, _ = os.Readlink("/proc/self/ns/net")
	}
	before, cursor := f.cursor, lastPID()
	listed := false
	if before == 0 || cursor < before || cursor-before > maxProbe || f.pass%relist == 0 || !f.probe(before, cursor) {
		if err := f.list(); err != nil {
			return nil, []memguard.Blind{{What: "processes", Why: err.Error()}}
		}
		listed = true
	}
	f.cursor = cursor
	var found []Found
	var out []memguard.Blind
	for _, pid := range f.pids {
		if ctx.Err() != nil {
			// Half a scan must not look as if the others had gone.
			f.cursor = 0
			return nil, []memguard.Blind{{What: "processes", Why: context.Cause(ctx).Error()}}
		}
		l := f.lives[pid]
		if l == nil {
			if len(f.lives) >= maxLives {
				continue
			}
			l = &life{pid: pid, rule: -1}
			f.lives[pid] = l
		}
		l.pass = f.pass
		switch {
		case l.start == 0, !now.Before(l.next), handedOut(pid, before, cursor), l.rule >= 0 && l.changed():
			f.judge(l, now)
		case l.listen.waits:
			f.judgePort(l)
		}
		if l.rule >= 0 {
			found = append(found, Found{f.rules[l.rule].Name, l.proc})
		}
	}
	if len(f.pids) > maxLives {
		out = append(out, memguard.Blind{What: "processes", Why: fmt.Sprintf("there are %d; %d are looked at", len(f.pids), maxLives)})
	}
	if listed {
		maps.DeleteFunc(f.lives, func(_ int, l *life) bool { return l.pass != f.pass })
	}
	maps.DeleteFunc(f.nets, func(_ string, n *netns) bool { return f.pass-n.used > 60 })
	return found, append(out, f.blind()...)
}

// blind sums up what the judged could not show.
func (f *Finder) blind() (out []memguard.Blind) {
	count := map[blind]int{}
	for _, l := range f.lives {
		for _, b := range l.blind {
			count[b]++
		}
	}
	blinds := slices.Collect(maps.Keys(count))
	sort.Slice(blinds, func(i, j int) bool {
		a, b := &blinds[i], &blinds[j]
		return cmp.Or(a.rule-b.rule, cmp.Compare(a.field, b.field), cmp.Compare(a.why, b.why)) < 0
	})
	for _, b := range blinds {
		of := "1 process"
		if n := count[b]; n > 1 {
			of = strconv.Itoa(n) + " processes"
		}
		out = append(out, memguard.Blind{What: fmt.Sprintf("rule %s: %s of %s", f.rules[b.rule].Name, b.field, of), Why: b.why})
	}
	return out
}

// probe adds the processes among the pids that were handed out since the scan
// before. To list /proc costs some 5 µs for each process there is, because the kernel
// makes an inode for each (fs/proc/base.c, proc_fill_cache). It reports whether it
// could tell.
func (f *Finder) probe(before, cursor int) bool {
	for pid := before + 1; pid <= cursor; pid++ {
		fd, err := unix.PidfdOpen(pid, 0) // of processes alone; /proc has threads, too
		switch err {
		case nil:
			unix.Close(fd)
			if at, found := slices.BinarySearch(f.pids, pid); !found {
				f.pids = slices.Insert(f.pids, at, pid)
			}
		case unix.ESRCH, unix.EINVAL, unix.ENOENT:
		default: // no such system call, or not for us
			return false
		}
	}
	return true
}

// list reads the pids, in rising order, as the kernel has them.
func (f *Finder) list() error {
	dir, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/proc", Err: err}
	}
	defer unix.Close(dir)
	if f.dents == nil {
		f.dents = make([]byte, 32<<10)
	}
	f.pids = f.pids[:0]
	for {
		n, err := unix.Getdents(dir, f.dents)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "getdents", Path: "/proc", Err: err}
		}
		if n <= 0 {
			return nil
		}
		for b := f.dents[:n]; len(b) > 19; { // getdents64(2): inode, offset, length of the record, type, name
			size := int(b[16]) | int(b[17])<<8
			if size < 19 || size > len(b) {
				break
			}
			name, _, _ := bytes.Cut(b[19:size], []byte{0})
			if pid, ok := number(name); ok {
				f.pids = append(f.pids, pid)
			}
			b = b[size:]
		}
	}
}

// number reads a pid without leaving garbage.
func number(b []byte) (n int, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' || n > 1<<30 {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, n > 0
}

// lastPID is the pid that the kernel handed out last in our namespace, 0 if that
// cannot be told: the last number in /proc/loadavg (fs/proc/loadavg.c).
func lastPID() int {
	var buf [128]byte
	if n, err := unix.Readlink("/proc/self", buf[:]); err != nil || string(buf[:n]) != strconv.Itoa(os.Getpid()) {
		return 0 // a /proc of another namespace
	}
	b, err := readSmall("/proc/loadavg", buf[:])
	if err != nil {
		return 0
	}
	b = bytes.TrimSpace(b)
	n, _ := number(b[bytes.LastIndexByte(b, ' ')+1:])
	return n
}

// handedOut reports whether the pid may have been given to a new process between
// the two values of the kernel's cursor, which only goes up and then round
// (kernel/pid.c, alloc_pid with idr_alloc_cyclic). So the start time of all others
// need not be read to know that they are who they were. More than pid_max new
// processes between two scans are caught when a life is judged again.
func handedOut(pid, before, cursor int) bool {
	switch {
	case before == 0 || cursor == 0:
		return true
	case before <= cursor:
		return before < pid && pid <= cursor
	}
	return pid > before || pid <= cursor
}

// changed reports whether a process that matches is another one now, or runs
// another program.
func (l *life) changed() bool {
	s, err := readStat(l.pid)
	if err != nil || s.start != l.start || s.ended() {
		return true
	}
	link, _ := os.Readlink(procPath(l.pid, "exe"))
	return link != l.link
}

// judge looks at all conditions that may matter.
func (f *Finder) judge(l *life, now time.Time) {
	s, err := readStat(l.pid)
	if err != nil || s.ended() || s.kernel() {
		// Gone before we looked, or it has no program. A zombie keeps its pid, and
		// a kernel thread stays one.
		*l = life{pid: l.pid, start: s.start, pass: l.pass, rule: -1, next: now.Add(settled)}
		return
	}
	if s.start != l.start {
		*l = life{pid: l.pid, start: s.start, pass: l.pass, rule: -1}
	}
	age := sinceBoot() - ticks(s.start)
	l.next = now.Add(settled + settled*time.Duration(l.pid%1024)/1024) // not all at once
	if age < young {
		l.next = now
	}
	was := l.rule
	l.rule, l.blind, l.listen.waits = -1, nil, false
	k := facts{pid: l.pid}
	l.link, _ = os.Readlink(procPath(l.pid, "exe"))
	for i := range f.rules {
		if f.matches(l, i, was == i, &k) {
			l.rule, l.blind, l.listen.waits = i, nil, false
			l.next = now.Add(recheck)
			l.proc = f.process(l, &k)
			break
		}
	}
	if slices.ContainsFunc(l.blind, func(b blind) bool { return b.why == errSlow.Error() }) {
		l.next = now.Add(hung)
	}
}

// matches judges one rule. What cannot be read is blind only if nothing else says
// that the rule does not match.
func (f *Finder) matches(l *life, i int, before bool, k *facts) bool {
	r := &f.rules[i]
	var unseen []blind
	holds := func(field string, ok bool, err error) bool {
		switch {
		case err == nil:
			return ok
		case gone(err):
			return false
		}
		unseen = append(unseen, blind{i, field, reason(err)})
		return true
	}
	if r.PID != 0 && r.PID != l.pid {
		return false
	}
	if r.Command != "" {
		name, err := k.command()
		if !holds("command", glob(r.Command, name), err) {
			return false
		}
	}
	if r.Exe != "" {
		name, err := k.exe()
		if !holds("exe", glob(r.Exe, name), err) {
			return false
		}
	}
	if r.PID == 0 && r.Command == "" && r.Exe == "" && bystander(l.pid, k) {
		return false
	}
	if r.Cgroup != "" {
		name, err := k.cgroup()
		if !holds("cgroup", glob(r.Cgroup, name), err) {
			return false
		}
	}
	if r.Labels != nil {
		ok, err := hasLabels(l.pid, r.Labels)
		if !holds("labels", ok, err) {
			return false
		}
	}
	if r.Port != 0 && !before {
		ok, err := f.listens(l, r.Port)
		if err == nil && !ok && unseen == nil {
			l.listen.waits = true
		}
		if !holds("port", ok, err) {
			return false
		}
	}
	l.blind = append(l.blind, unseen...)
	return unseen == nil
}

// judgePort judges a process that matches but for the port, if who listens has changed.
func (f *Finder) judgePort(l *life) {
	for _, r := range f.rules {
		if r.Port != 0 && f.news(l, r.Port) {
			f.judge(l, time.Now())
			return
		}
	}
}

// process describes one that matches.
func (f *Finder) process(l *life, k *facts) Process {
	p := Process{Identity: Identity{PID: l.pid, Start: l.start}, Started: f.boot.Add(ticks(l.start)), UID: -1}
	p.Command, _ = k.command()
	p.Exe, _ = k.exe()
	p.Cgroup, _ = k.cgroup()
	if uid, err := realUID(l.pid); err == nil {
		p.UID = uid
	}
	b, err := f.exes.read(l.pid)
	p.Build, p.Go = b.buildID, b.goVersion
	if err != nil && !gone(err) {
		l.blind = append(l.blind, blind{l.rule, "build info", reason(err)})
	}
	return p
}

func (id Identity) alive() bool {
	s, err := readStat(id.PID)
	return err == nil && s.start == id.Start && !s.ended()
}

func start(pid int) (uint64, error) {
	s, err := readStat(pid)
	if err != nil {
		return 0, fmt.Errorf("target: %w", err)
	}
	return s.start, nil
}
