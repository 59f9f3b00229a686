// SPDX-License-Identifier: Apache-2.0

package brink

import (
	"encoding/binary"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// KeepIfAsked is the keeper, if this process was started as one; it does not return
// then. A program that holds kills calls it before anything else.
func KeepIfAsked() {
	if len(os.Args) != 1 || os.Args[0] != keeperName {
		return
	}
	// It ends when its socket does, and by nothing that is meant for the sidecar.
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE, unix.SIGTSTP)
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0) // where that is allowed
	keep(0)
	os.Exit(0)
}

// kept is a group as the keeper has it.
type kept struct {
	dir   int
	bound time.Duration
	note  string
	full  time.Time // since when nobody can get memory; zero: it is not so
}

// The keeper looks at its groups this often, and gives the sidecar this long beyond
// its own bound.
const (
	keeperLook = 100 * time.Millisecond
	keeperSlow = 500 * time.Millisecond
)

// keep is the keeper's life, at its end of the socket.
func keep(conn int) {
	groups := map[uint32]*kept{}
	_ = unix.Sendmsg(conn, message(sayReady, 0, 0), nil, nil, unix.MSG_NOSIGNAL)
	for {
		wait := -1
		if len(groups) > 0 {
			wait = int(keeperLook.Milliseconds())
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(conn), Events: unix.POLLIN}}, wait)
		if err != nil && err != unix.EINTR {
			break
		}
		if n > 0 && !obey(conn, groups) {
			break
		}
		for id, g := range groups {
			if g.late(time.Now()) {
				// Whoever should let the kill go hangs: a service must not.
				_ = restore(g.dir)
				_ = unix.Sendmsg(conn, message(sayLeave, id, 0), nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
			}
		}
	}
	for _, g := range groups {
		if restore(g.dir) == nil {
			_ = os.Remove(g.note)
		}
	}
}

// obey does what one message says. It is false when there will be no other.
func obey(conn int, groups map[uint32]*kept) bool {
	b, oob := make([]byte, messageLen+maxNote), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(conn, b, oob, unix.MSG_CMSG_CLOEXEC)
	switch {
	case err == unix.EINTR || err == unix.EAGAIN:
		return true
	case err != nil || n == 0:
		return false
	case n < messageLen:
		return true
	}
	id := binary.LittleEndian.Uint32(b[1:])
	switch b[0] {
	case sayTake:
		dir, ok := received(oob[:oobn])
		if !ok {
			return true // unanswered, so that nothing is set
		}
		groups[id] = &kept{dir: dir, bound: time.Duration(binary.LittleEndian.Uint32(b[5:])) * time.Millisecond, note: string(b[messageLen:n])}
		_ = unix.Sendmsg(conn, message(sayTaken, id, 0), nil, nil, unix.MSG_NOSIGNAL)
	case sayLeave:
		if g := groups[id]; g != nil {
			unix.Close(g.dir)
			delete(groups, id)
		}
	}
	return true
}

// received is the descriptor that came with a message.
func received(oob []byte) (fd int, ok bool) {
	ms, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(ms) != 1 {
		return 0, false
	}
	fds, err := unix.ParseUnixRights(&ms[0])
	if err != nil || len(fds) != 1 {
		return 0, false
	}
	return fds[0], true
}

// late reports whether the group has stood still for longer than the sidecar may
// have it do.
func (g *kept) late(now time.Time) bool {
	_, full, err := oomState(g.dir)
	if err != nil || !full {
		g.full = time.Time{}
		return false
	}
	if g.full.IsZero() {
		g.full = now
	}
	if now.Sub(g.full) < g.bound+keeperSlow {
		return false
	}
	g.full = time.Time{}
	return true
}
