// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/memguard/memguard-go/sidecar/attach/internal/procmem"
)

// HoldExit waits for the target's end and reads the given parts of its state
// then, after the signal that killed it and before the kernel takes its memory.
// It holds the end up until the reading is done, for bound at most (0 is
// DefaultHold). The error is ErrHold when the exit cannot be held, or that of ctx;
// the target runs on then as if nothing had been.
//
// One thread of the target is traced, the runtime's monitor, which runs no code of
// the program and takes no signals in a Go program's normal life; the kernel stops
// it when it exits (ptrace(2), PTRACE_EVENT_EXIT), while its memory is still
// there. No other thread ever waits for it before the end. While it is held,
// other debuggers cannot trace that thread. When the reader dies, the kernel
// lets the target go by itself.
//
// The Target may be used meanwhile, but not closed.
func (t *Target) HoldExit(ctx context.Context, bound time.Duration, parts Parts) (*Death, error) {
	if bound <= 0 {
		bound = DefaultHold
	}
	look, err := t.fork(t.pid)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHold, err)
	}
	tid, err := look.monitor()
	look.mem.Close()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHold, err)
	}
	// The thread that runs main may have let go of the memory when another is held.
	dying, err := t.fork(tid)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHold, err)
	}
	type result struct {
		d   *Death
		err error
	}
	done := make(chan result, 1)
	h := &hold{tid: tid, bound: bound, parts: parts, target: dying}
	go func() {
		runtime.LockOSThread() // a tracer is a thread
		defer runtime.UnlockOSThread()
		d, err := h.run(ctx)
		done <- result{d, err}
	}()
	r := <-done
	return r.d, r.err
}

// maxMs bounds the list of the runtime's threads.
const maxMs = 1 << 14

// monitor finds the thread that the runtime started with sysmon.
func (t *Target) monitor() (int, error) {
	head, ok := t.globals["runtime.allm"]
	if !ok {
		return 0, errors.New("runtime.allm not found in the " + t.located)
	}
	word := func(addr uint64) (uint64, error) {
		var b [8]byte
		err := t.mem.Read(addr, b[:])
		return le.Uint64(b[:]), err
	}
	f := &t.layout.M
	m, err := word(head)
	for range maxMs {
		if err != nil || m == 0 {
			break
		}
		var fn, pc, tid uint64
		if fn, err = word(m + uint64(f.StartFn)); err != nil {
			break
		}
		if fn != 0 {
			// One that is just being made or freed may hold anything.
			if pc, err = word(fn); err == nil && t.name1(pc) == "runtime.sysmon" {
				if tid, err = word(m + uint64(f.ProcID)); err != nil {
					break
				}
				return t.threadID(int(tid))
			}
		}
		m, err = word(m + uint64(f.AllLink))
	}
	if err != nil {
		return 0, err
	}
	return 0, errors.New("the runtime has no monitor thread")
}

// threadID turns a thread id of the target's PID namespace into ours
// (proc_pid_status(5), NSpid).
func (t *Target) threadID(inner int) (int, error) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", t.pid))
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		_, rest, ok := bytes.Cut(b, []byte("\nNSpid:"))
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		ids := strings.Fields(string(line))
		if ok && len(ids) > 0 && ids[len(ids)-1] == strconv.Itoa(inner) {
			return strconv.Atoi(filepath.Base(filepath.Dir(name)))
		}
	}
	return 0, fmt.Errorf("no thread %d in process %d", inner, t.pid)
}

// fork is a Target that reads the same process through one of its threads, while
// t is in use. It has no files of its own but its memory's.
func (t *Target) fork(tid int) (*Target, error) {
	mem, err := procmem.Open(tid)
	return &Target{
		pid: t.pid, name: t.name, exe: t.exe, layout: t.layout, mem: mem, bias: t.bias, globals: t.globals,
		located: t.located, text: t.text, gofunc: t.gofunc, anchor: t.anchor, alive: t.alive,
	}, err
}

// hold is one traced thread.
type hold struct {
	tid    int
	bound  time.Duration
	parts  Parts
	target *Target
}

// Requests and events of ptrace(2) that have no wrapper.
const (
	ptraceSeize  = 0x4206
	ptraceListen = 0x4208
	// PTRACE_O_TRACEEXIT alone; without PTRACE_O_EXITKILL the target survives us.
	traceExit = 0x40
)

func ptrace(request, tid, data int) error {
	_, _, errno := syscall.Syscall6(syscall.SYS_PTRACE, uintptr(request), uintptr(tid), 0, uintptr(data), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// lostAfter is how often it is looked whether the thread has stopped, should the
// signal that tells it get lost.
const lostAfter = 5 * time.Second

// run traces the thread, on one thread of ours.
func (h *hold) run(ctx context.Context) (*Death, error) {
	defer h.target.mem.Close()
	// The kernel tells a tracer of a stop as it tells a parent of its child's end.
	wake := make(chan os.Signal, 1)
	signal.Notify(wake, syscall.SIGCHLD)
	defer signal.Stop(wake)
	if err := ptrace(ptraceSeize, h.tid, traceExit); err != nil {
		return nil, fmt.Errorf("%w: thread %d: %w", ErrHold, h.tid, err)
	}
	for {
		var status unix.WaitStatus
		n, err := unix.Wait4(h.tid, &status, unix.WNOHANG|unix.WALL, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, ErrGone
		case n == 0:
			select {
			case <-wake:
			case <-time.After(lostAfter - time.Duration(time.Now().UnixNano())%lostAfter): // all holds at once
			case <-ctx.Done():
				h.release()
				return nil, ctx.Err()
			}
			continue
		case status.Exited() || status.Signaled():
			return nil, ErrGone // it did not stop on its way
		case !status.Stopped():
			continue
		}
		event := int(status) >> 16
		switch event {
		case unix.PTRACE_EVENT_EXIT:
			if h.execs() {
				// Another thread turns the process into another program, and waits for
				// this one to leave.
				h.detach(0)
				return nil, fmt.Errorf("%w: it runs another program", ErrGone)
			}
			return h.last(ctx), nil
		case unix.PTRACE_EVENT_STOP:
			if sig := status.StopSignal(); sig == unix.SIGSTOP || sig == unix.SIGTSTP || sig == unix.SIGTTIN || sig == unix.SIGTTOU {
				_ = ptrace(ptraceListen, h.tid, 0) // stopped by job control: it stays so
				continue
			}
			h.cont(0)
		default:
			h.cont(int(status.StopSignal())) // a signal for the thread: it gets it
		}
	}
}

// cont lets the thread run on, with a signal or without.
func (h *hold) cont(sig int) { _ = unix.PtraceCont(h.tid, sig) }

// detach lets go of the thread, which stands still: nobody has to wait for it
// then, so that the process's parent learns of its end.
func (h *hold) detach(sig int) { _ = ptrace(unix.PTRACE_DETACH, h.tid, sig) }

// release lets go of the thread, which runs and has to stand still for that.
func (h *hold) release() {
	if unix.PtraceInterrupt(h.tid) != nil {
		return
	}
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(h.tid, &status, unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || !status.Stopped() {
			return
		}
		sig := 0
		if event := int(status) >> 16; event == 0 {
			sig = int(status.StopSignal())
		}
		h.detach(sig)
		return
	}
}

// execs reports whether a thread of the process is in execve(2) or execveat(2).
func (h *hold) execs() bool {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", h.target.pid))
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		n, _, _ := strings.Cut(string(b), " ")
		if n == strconv.Itoa(unix.SYS_EXECVE) || n == strconv.Itoa(unix.SYS_EXECVEAT) {
			return true
		}
	}
	return false
}

// last reads the target while its thread is held, and lets it go.
func (h *hold) last(ctx context.Context) *Death {
	d := &Death{Time: time.Now()}
	if msg, err := unix.PtraceGetEventMsg(h.tid); err == nil {
		// As wait(2) will have it.
		d.Signal, d.Code = int(msg&0x7f), int(msg>>8&0xff)
	}
	limited, cancel := context.WithTimeout(ctx, h.bound)
	defer cancel()
	type result struct {
		s   *Snapshot
		err error
	}
	read := make(chan result, 1)
	go func() {
		s, err := h.target.Snapshot(limited, h.parts)
		if s != nil {
			s.How.Way = ExitHold
		}
		read <- result{s, err}
	}()
	select {
	case r := <-read:
		d.Snapshot, d.Why = r.s, r.err
		h.detach(0)
		d.Held = time.Since(d.Time)
	case <-limited.Done():
		h.detach(0) // whatever the reading does: the bound is a promise
		d.Held = time.Since(d.Time)
		r := <-read
		d.Snapshot, d.Why = r.s, r.err
	}
	return d
}
