// SPDX-License-Identifier: Apache-2.0

package target

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of what a process may say of itself.
const (
	maxCommand = 256
	maxPath    = 4096 // PATH_MAX
)

// What a process can make hang: a file system of its own (FUSE), and so the page in
// which its arguments stand, if that is mapped from a file of such a one. Such a read is given up after a while; the thread
// that hangs stays, up to a number.
const patient = time.Second

var (
	hangs   = make(chan struct{}, 16)
	errSlow = errors.New("the kernel does not answer: the process or its file system holds it up")
)

// within runs what may hang.
func within[T any](do func() (T, error)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	var none T
	select {
	case hangs <- struct{}{}:
	default:
		return none, errSlow
	}
	done := make(chan answer, 1)
	go func() {
		defer func() { <-hangs }()
		v, err := do()
		done <- answer{v, err}
	}()
	t := time.NewTimer(patient)
	defer t.Stop()
	select {
	case a := <-done:
		return a.v, a.err
	case <-t.C:
		return none, errSlow
	}
}

func procPath(pid int, file string) string { return "/proc/" + strconv.Itoa(pid) + "/" + file }

// readSmall reads the start of a file into buf.
func readSmall(name string, buf []byte) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	n := 0
	for n < len(buf) {
		k, err := unix.Read(fd, buf[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: name, Err: err}
		}
		if k <= 0 {
			break
		}
		n += k
	}
	return buf[:n], nil
}

// stat is what matters here of /proc/PID/stat (proc_pid_stat(5)).
type stat struct {
	state byte
	flags uint64
	start uint64
}

func (s *stat) ended() bool  { return s.state == 'Z' || s.state == 'X' || s.state == 'x' }
func (s *stat) kernel() bool { return s.flags&0x00200000 != 0 } // PF_KTHREAD (include/linux/sched.h)

func readStat(pid int) (stat, error) {
	var buf [1024]byte
	b, err := readSmall(procPath(pid, "stat"), buf[:])
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}

// parseStat reads fields 3, 9 and 22. The name in field 2 may hold anything, a ) too.
func parseStat(b []byte) (s stat, err error) {
	b = b[bytes.LastIndexByte(b, ')')+1:]
	for field := 3; len(b) > 0; field++ {
		b = bytes.TrimLeft(b, " ")
		i := bytes.IndexByte(b, ' ')
		if i < 0 {
			break
		}
		switch field {
		case 3:
			s.state = b[0]
		case 9:
			s.flags, err = strconv.ParseUint(string(b[:i]), 10, 64)
		case 22:
			s.start, err = strconv.ParseUint(string(b[:i]), 10, 64)
			if err == nil && s.state != 0 {
				return s, nil
			}
		}
		if err != nil {
			return stat{}, fmt.Errorf("stat, field %d: %w", field, err)
		}
		b = b[i:]
	}
	return stat{}, errors.New("stat: too short")
}

// ticks is a start time as a duration: USER_HZ is 100 on every platform that Go has.
func ticks(n uint64) time.Duration { return time.Duration(n) * (time.Second / 100) }

// sinceBoot is the clock of start times.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// Lived is how long ago the process began, by the clock of start times, which nobody
// sets (proc_pid_stat(5), starttime); 0 is unknown.
func (id Identity) Lived() time.Duration { return max(sinceBoot()-ticks(id.Start), 0) }

// facts are what rules ask of a process, each read once.
type facts struct {
	pid             int
	cmd, prog, path fact
}

type fact struct {
	read bool
	text string
	err  error
}

func (f *fact) get(read func() (string, error)) (string, error) {
	if !f.read {
		f.read = true
		f.text, f.err = read()
	}
	return f.text, f.err
}

// command is the base name of argv[0].
func (k *facts) command() (string, error) {
	return k.cmd.get(func() (string, error) {
		return within(func() (string, error) {
			var buf [maxPath]byte
			b, err := readSmall(procPath(k.pid, "cmdline"), buf[:])
			if err != nil {
				return "", err
			}
			b, _, _ = bytes.Cut(b, []byte{0})
			if len(b) == 0 {
				return "", nil
			}
			return bound(path.Base(string(b)), maxCommand), nil
		})
	})
}

// exe is the path of the executable, as the process sees it.
func (k *facts) exe() (string, error) {
	return k.prog.get(func() (string, error) {
		name := procPath(k.pid, "exe")
		link, err := os.Readlink(name)
		if err != nil {
			return "", err
		}
		if cut, ok := strings.CutSuffix(link, " (deleted)"); ok {
			if called, _ := within(func() (bool, error) { return sameFile(name, procPath(k.pid, "root")+link) }); !called {
				link = cut
			}
		}
		return bound(link, maxPath), nil
	})
}

// sameFile reports whether two paths lead to one file.
func sameFile(a, b string) (bool, error) {
	x, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y), err
}

// cgroup is the path of the cgroup that accounts its memory: that of version 1's
// memory controller where there is one, else that of version 2 (cgroups(7)).
func (k *facts) cgroup() (string, error) {
	return k.path.get(func() (string, error) {
		buf := make([]byte, 16<<10)
		b, err := readSmall(procPath(k.pid, "cgroup"), buf)
		if err != nil {
			return "", err
		}
		v2, found := "", false
		for line := range strings.Lines(string(b)) {
			parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
			if len(parts) != 3 {
				continue
			}
			for c := range strings.SplitSeq(parts[1], ",") {
				if c == "memory" {
					return bound(parts[2], maxPath), nil
				}
			}
			if parts[0] == "0" && parts[1] == "" {
				v2, found = parts[2], true
			}
		}
		if !found {
			return "", errors.New("no cgroup accounts its memory")
		}
		return bound(v2, maxPath), nil
	})
}

// realUID is that of the process, not of its directory, which is root's when the
// process may not be dumped.
func realUID(pid int) (int, error) {
	var buf [4096]byte
	b, err := readSmall(procPath(pid, "status"), buf[:])
	if err != nil {
		return 0, err
	}
	_, b, _ = bytes.Cut(b, []byte("\nUid:\t"))
	b, _, _ = bytes.Cut(b, []byte("\t"))
	return strconv.Atoi(string(b))
}

// bystander reports whether nobody means this process who asks for a whole cgroup.
func bystander(pid int, k *facts) bool {
	if pid == os.Getpid() {
		return true
	}
	exe, _ := k.exe()
	return exe == "/pause" || path.Base(exe) == "memguard"
}

func glob(pattern, name string) bool {
	ok, _ := path.Match(pattern, name)
	return ok
}

// gone reports whether an error is only that the process has ended.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// reason is an error without the path, which names a process.
func reason(err error) string {
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		err = pe.Err
	}
	if errors.Is(err, fs.ErrPermission) {
		return err.Error() + ": the sidecar must run as the user of the process, or with the right to trace it"
	}
	return err.Error()
}
