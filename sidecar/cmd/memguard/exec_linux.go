// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
	"unsafe"

	"github.com/memguard/memguard-go/sidecar/stderr"
	"github.com/memguard/memguard-go/sidecar/target"
	"golang.org/x/sys/unix"
)

// A service must neither die nor freeze when its wrapper is killed, and a pipe does
// both to a Go program: without a reader a write to standard error is its death by
// SIGPIPE, and with one that stands still the next collection stops it. So a second
// process, the keeper, holds the read end, too. It sleeps until the wrapper is gone,
// however that came, and then does the wrapper's reading. What does not do:
//   - a file that the wrapper follows: once that is dead, the file grows without end,
//     and nothing comes to who reads the real standard error;
//   - a datagram socket pair, whose writers get ECONNREFUSED and live: writes of more
//     than its buffer fail, and /dev/stderr cannot be opened (ENXIO);
//   - a FIFO open for reading in the service itself: it freezes when it is full;
//   - a pseudo-terminal: EIO for the service, another isatty(2), no packets.
// Only who kills both at once, as the kernel does with a whole cgroup, kills the
// service by its next write.

// Whether whoever started us ignored these, as nohup and shells do for what runs in
// the background; asked for before anything catches them. Of other signals Go's
// runtime forgets it (runtime/signal_unix.go, sigInstallGoHandler).
var (
	ignoresHangup    = signal.Ignored(unix.SIGHUP)
	ignoresInterrupt = signal.Ignored(unix.SIGINT)
)

// passedOn are the signals that go on to the service. The others are our own
// business: of our children (CHLD), faults and broken pipes of ours, of the
// terminal when we are in its background (TTIN, TTOU), and those that Go's runtime
// and the C libraries use among their threads (URG, PROF, 32 to 34).
func passedOn() (signals []os.Signal) {
	for s := unix.Signal(1); s <= 64; s++ {
		switch s {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGPIPE, unix.SIGTTIN, unix.SIGTTOU,
			unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGURG, unix.SIGPROF, 32, 33, 34:
			continue
		case unix.SIGHUP:
			if ignoresHangup {
				continue
			}
		case unix.SIGINT:
			if ignoresInterrupt {
				continue
			}
		}
		signals = append(signals, s)
	}
	return signals
}

// supervisor is exec at work.
type supervisor struct {
	pump     *stderr.Pump
	child    int // the service; it leads a process group of its own
	keeper   int // 0: none
	restarts int // of the keeper that are left
	lifeline *os.File
	tty      int // controlling terminal, -1: none
	say      func(err error)
}

func (x *execution) run(out io.Writer) error {
	say := func(err error) { say(out, fmt.Errorf("exec: %w", err)) }
	path, err := exec.LookPath(x.args[0])
	if err != nil {
		code := exitNotFound
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, exec.ErrDot) {
			code = exitNotRunnable
		}
		return &status{code, fmt.Errorf("exec: %w", err)}
	}
	if x.state != "" {
		if err := stderr.StateDir(x.state); err != nil {
			return cannotLook(fmt.Errorf("exec: %w", err))
		}
	}
	for s, ignored := range map[os.Signal]bool{unix.SIGHUP: ignoresHangup, unix.SIGINT: ignoresInterrupt} {
		if ignored {
			signal.Ignore(s)
		}
	}
	signals := make(chan os.Signal, 128)
	signal.Notify(signals, append(passedOn(), unix.SIGCHLD)...)

	env, theirs := traced(os.Environ())
	s := &supervisor{tty: -1, restarts: 8, say: say}
	if s.pump, err = stderr.NewPump(2, theirs); err != nil {
		return cannotLook(fmt.Errorf("exec: %w", err))
	}
	if !s.pump.Packets() && !theirs {
		env = os.Environ() // the lines could not be taken out again
	}
	if os.Getpid() != 1 { // with process 1 the kernel kills its whole namespace
		s.keep()
	}
	if err := s.start(path, x.args, env); err != nil {
		s.dismiss()
		code := exitNotRunnable
		if errors.Is(err, fs.ErrNotExist) {
			code = exitNotFound
		}
		return &status{code, fmt.Errorf("exec: %s: %w", path, err)}
	}
	record := s.record(x.state)
	closed := make(chan struct{})
	go func() {
		if s.pump.Run() != nil {
			close(closed)
		}
	}()
	ws := s.wait(signals, closed)
	if s.tty >= 0 {
		s.terminal(s.child, unix.Getpgrp())
	}
	s.pump.Drain()
	if record != nil {
		e := stderr.Exit{Time: time.Now(), Counts: s.pump.Counts()}
		if ws.Signaled() {
			e.Signal = int(ws.Signal())
		} else {
			e.Code = ws.ExitStatus()
		}
		if err := record.Close(e); err != nil {
			say(err)
		}
	}
	if s.pump.Flush() {
		s.dismiss()
	}
	if x.summary {
		width, color := terminal(out)
		_ = s.pump.WriteSummary(out, width, color)
	}
	if ws.Signaled() {
		s.dieOf(ws.Signal())
		return &status{died(int(ws.Signal())), nil}
	}
	return &status{ws.ExitStatus(), nil}
}

// start starts the service, in the foreground of the terminal if we are.
func (s *supervisor) start(path string, args, env []string) error {
	attr := &syscall.ProcAttr{
		Env:   env,
		Files: []uintptr{0, 1, s.pump.Service().Fd()},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	}
	if fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0); err == nil {
		s.tty = fd
		attr.Sys.Foreground = foreground(fd) == unix.Getpgrp()
		attr.Sys.Ctty = fd
	}
	pid, err := syscall.ForkExec(path, args, attr)
	s.pump.Service().Close()
	if err != nil {
		return err
	}
	s.child = pid
	if s.tty >= 0 {
		signal.Ignore(unix.SIGTTOU) // so that we may take the terminal back; after the fork: this is inherited
	}
	return nil
}

func (s *supervisor) record(dir string) *stderr.Record {
	if dir == "" {
		return nil
	}
	start, err := target.StartTicks(s.child)
	if err != nil {
		s.say(err)
		return nil
	}
	r, err := stderr.NewRecord(dir, target.Identity{PID: s.child, Start: start})
	if err != nil {
		s.say(err)
		return nil
	}
	s.pump.Record(r)
	return r
}

// wait passes signals on until the service has ended. Nobody else waits for
// children, so the pid stays the service's as long as it gets signals.
func (s *supervisor) wait(signals <-chan os.Signal, closed <-chan struct{}) unix.WaitStatus {
	for {
		select {
		case <-closed: // the real standard error: the pipe must have no reader either
			closed = nil
			s.restarts = 0
			s.dismiss()
		case sig := <-signals:
			if sig == unix.SIGCHLD {
				if ws, ended := s.reap(); ended {
					return ws
				}
				continue
			}
			to := s.child
			if sig == unix.SIGCONT && s.tty >= 0 {
				s.terminal(unix.Getpgrp(), s.child)
				to = -s.child // Ctrl-Z stopped all of them
			}
			_ = unix.Kill(to, sig.(syscall.Signal))
		}
	}
}

// reap takes note of children that ended or stopped, orphans among them.
func (s *supervisor) reap() (ws unix.WaitStatus, ended bool) {
	for {
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG|unix.WUNTRACED, nil)
		switch {
		case err == unix.EINTR:
		case err != nil || pid == 0:
			return 0, false
		case pid == s.child && ws.Stopped():
			// Only what the terminal does: whom SIGSTOP stopped gets a SIGCONT of its
			// own, and we must be there to read its standard error then.
			if sig := ws.StopSignal(); s.tty >= 0 && (sig == unix.SIGTSTP || sig == unix.SIGTTIN || sig == unix.SIGTTOU) {
				s.terminal(s.child, unix.Getpgrp())
				_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
			}
		case pid == s.child:
			return ws, true
		case pid == s.keeper && !ws.Stopped():
			s.keeper = 0
			s.lifeline.Close()
			if s.restarts > 0 {
				s.restarts--
				s.keep()
			}
		}
	}
}

// keep starts the keeper: it holds the pipe's read end and goes on reading when we
// are gone, however that came. It has a session of its own, so that what ends the
// terminal or our process group does not end it.
func (s *supervisor) keep() {
	r, w, err := os.Pipe()
	if err != nil {
		s.say(err)
		return
	}
	defer r.Close()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"memguard", "exec", "--keeper"}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"GOMAXPROCS=1"},
		Files: []uintptr{r.Fd(), uintptr(2), 2, s.pump.Source()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		w.Close()
		s.say(fmt.Errorf("no keeper, so the service ends with us if we are killed: %w", err))
		return
	}
	s.keeper, s.lifeline = pid, w
}

// dismiss ends the keeper, whose pid is its own until we wait for it.
func (s *supervisor) dismiss() {
	if s.keeper != 0 {
		_ = unix.Kill(s.keeper, unix.SIGKILL)
	}
}

// keep is the keeper. Its standard input ends when exec is gone.
func (x *execution) keep() error {
	signal.Ignore(append(passedOn(), unix.SIGTTIN, unix.SIGTTOU, unix.SIGPIPE)...)
	var b [1]byte
	for {
		if n, err := unix.Read(0, b[:]); n == 0 || err != nil && err != unix.EINTR {
			break
		}
	}
	p, err := stderr.Resume(3, 2)
	if err != nil {
		return cannotLook(err)
	}
	_ = p.Run()
	return nil
}

// foreground is the process group that has the terminal, 0 if that is unknown.
func foreground(tty int) int {
	pgrp, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	if err != nil {
		return 0
	}
	return pgrp
}

// terminal hands the terminal over, if who is to lose it has it.
func (s *supervisor) terminal(from, to int) {
	if foreground(s.tty) == from {
		_ = unix.IoctlSetPointerInt(s.tty, unix.TIOCSPGRP, to)
	}
}

// dieOf ends us as the service was ended, so that whoever waits for us sees it. It
// returns if that does not work, as for process 1.
func (s *supervisor) dieOf(sig syscall.Signal) {
	if os.Getpid() == 1 {
		return
	}
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) // the service has dumped its own
	var sigaction [4]uint64                              // SIG_DFL, no flags, no mask (rt_sigaction(2))
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&sigaction)), 0, 8, 0, 0)
	to := os.Getpid()
	if s.tty >= 0 && (sig == unix.SIGINT || sig == unix.SIGQUIT) {
		to = 0 // Ctrl-C is for all that a script runs: without us, its shell would have got it, too
	}
	_ = unix.Kill(to, sig)
	time.Sleep(time.Second)
}
