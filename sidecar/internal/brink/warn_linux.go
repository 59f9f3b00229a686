// SPDX-License-Identifier: Apache-2.0

package brink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/memguard/memguard-go/scavenge/cgroup"
	"golang.org/x/sys/unix"
)

// Warn calls read each time that the memory cgroup with the limit of a process (version
// 2) has run into it and little is left that could be dropped, until ctx ends. The
// kernel tells it from the charge that does not fit, before it looks for what it can
// take back (mm/memcontrol.c, try_charge_memcg), a hundred times a second at most. The
// error is that the group cannot be heard, or has gone.
func Warn(ctx context.Context, pid int, read func(context.Context)) error {
	g, err := limited(pid)
	if err != nil {
		return err
	}
	defer g.Close()
	dir := g.Dir()
	fd, err := unix.Open(dir+"/memory.events", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir + "/memory.events", Err: err}
	}
	defer unix.Close(fd)
	// The runtime's poller does not wait for what the file tells (POLLPRI,
	// cgroup-v2.rst), but it waits for an epoll(7) that does.
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if err := errors.Join(unix.SetNonblock(ep, true), unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLPRI})); err != nil {
		unix.Close(ep)
		return fmt.Errorf("brink: %s: %w", dir, err)
	}
	f := os.NewFile(uintptr(ep), "epoll")
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(aLongTimeAgo) })
	defer stop()
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	last, err := readEvents(fd)
	if err != nil {
		return fmt.Errorf("brink: %s: %w", dir, err)
	}
	for {
		err := conn.Read(func(ep uintptr) bool {
			var e [1]unix.EpollEvent
			n, err := unix.EpollWait(int(ep), e[:], 0)
			return n > 0 || err != nil && err != unix.EINTR
		})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("brink: %s: %w", dir, err)
		}
		now, err := readEvents(fd) // which has the kernel tell the next one
		if err != nil {
			return fmt.Errorf("brink: %s: %w", dir, err)
		}
		if now != last && full(g) {
			read(ctx)
		}
		last = now
	}
}

// limited opens the group whose limit binds a process.
func limited(pid int) (*cgroup.Group, error) {
	g, err := cgroup.Open("/proc", pid)
	if err != nil {
		return nil, err
	}
	if g.Version() != 2 {
		g.Close()
		return nil, errors.New("brink: cgroup version 1 tells nothing in time")
	}
	r, err := g.Read()
	if err != nil || r.LimitFrom == "" || r.LimitFrom == g.Dir() {
		return g, nil
	}
	defer g.Close()
	return cgroup.OpenDir(r.LimitFrom)
}

// full reports whether what cannot be dropped is near the limit.
func full(g *cgroup.Group) bool {
	r, err := g.Read()
	limit, ok := r.Limit.Value()
	return err == nil && ok && undroppable(&r) >= limit-limit/8
}

// limitEvents are the lines of memory.events that tell of the limit.
type limitEvents [3]string

func readEvents(fd int) (e limitEvents, err error) {
	var b [1024]byte
	n, err := unix.Pread(fd, b[:], 0)
	if err != nil {
		return e, os.NewSyscallError("pread", err)
	}
	for line := range bytes.Lines(b[:n]) {
		for i, name := range []string{"high ", "max ", "oom "} {
			if bytes.HasPrefix(line, []byte(name)) {
				e[i] = string(line)
			}
		}
	}
	return e, nil
}

var aLongTimeAgo = time.Unix(1, 0)
