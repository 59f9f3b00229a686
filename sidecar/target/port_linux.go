// SPDX-License-Identifier: Apache-2.0

package target

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// netns is who listens in a network namespace.
type netns struct {
	pass, used uint64           // scan that read it last; that asked for it
	sockets    map[int][]uint64 // inodes of those that listen, by port
	seen       map[int]uint64   // how often the list of a port has changed
	err        error
}

// listening is what is known of a process's sockets.
type listening struct {
	waits bool // some rule matches but for its port
	net   string
	seen  map[int]uint64 // state of the ports when they were last compared with its files
}

var native = binary.NativeEndian

const (
	tcpListen    = 10 // TCP_LISTEN (net/tcp_states.h)
	maxListeners = 64 << 10
	maxFiles     = 1 << 20 // open files of one process; fs.nr_open's default
	foreign      = 5       // scans between two looks at another network namespace
)

// news reports whether the list of who listens at the port has changed since this
// process's files were compared with it.
func (f *Finder) news(l *life, port int) bool {
	n := f.network(l)
	return n != nil && l.listen.seen[port] != n.seen[port]
}

// network is the process's network namespace, read once in a scan. Nil: it is not
// known which that is.
func (f *Finder) network(l *life) *netns {
	if l.listen.net == "" {
		return nil
	}
	n := f.nets[l.listen.net]
	if n == nil {
		n = &netns{seen: map[int]uint64{}}
		if f.nets == nil {
			f.nets = map[string]*netns{}
		}
		f.nets[l.listen.net] = n
	}
	n.used = f.pass
	own := l.listen.net == f.ownNet
	if n.pass == f.pass || !own && n.pass != 0 && f.pass-n.pass < foreign {
		return n
	}
	n.pass = f.pass
	was := n.sockets
	n.sockets = map[int][]uint64{}
	if n.err = nil; !own || n.dump() != nil {
		n.sockets = map[int][]uint64{}
		n.err = errors.Join(n.read(l.pid, "net/tcp"), n.read(l.pid, "net/tcp6"))
	}
	for _, r := range f.rules {
		if r.Port == 0 {
			continue
		}
		slices.Sort(n.sockets[r.Port])
		if n.seen[r.Port] == 0 || !slices.Equal(was[r.Port], n.sockets[r.Port]) {
			n.seen[r.Port]++
		}
	}
	return n
}

// listens reports whether the process itself holds a socket that listens at the port.
func (f *Finder) listens(l *life, port int) (bool, error) {
	ns, err := os.Readlink(procPath(l.pid, "ns/net"))
	if err != nil {
		return false, err
	}
	if ns != l.listen.net {
		l.listen.net, l.listen.seen = ns, map[int]uint64{}
	}
	n := f.network(l)
	if n.err != nil && !gone(n.err) {
		return false, n.err
	}
	l.listen.seen[port] = n.seen[port]
	if len(n.sockets[port]) == 0 {
		return false, nil
	}
	return holds(l.pid, n.sockets[port])
}

// holds reports whether one of the process's files is one of these sockets.
func holds(pid int, sockets []uint64) (bool, error) {
	dir, err := os.Open(procPath(pid, "fd"))
	if err != nil {
		return false, err
	}
	defer dir.Close()
	var link [64]byte
	for looked := 0; looked < maxFiles; {
		names, err := dir.Readdirnames(256)
		for _, name := range names {
			n, err := unix.Readlinkat(int(dir.Fd()), name, link[:])
			if err != nil {
				continue // closed meanwhile
			}
			if b, ok := bytes.CutPrefix(link[:n], []byte("socket:[")); ok {
				inode, err := strconv.ParseUint(string(bytes.TrimSuffix(b, []byte("]"))), 10, 64)
				if err == nil && slices.Contains(sockets, inode) {
					return true, nil
				}
			}
		}
		looked += len(names)
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

// dump asks the kernel who listens in our own namespace (sock_diag(7)).
func (n *netns) dump() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
	buf := make([]byte, 32<<10)
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		// struct nlmsghdr, then struct inet_diag_req_v2 (linux/inet_diag.h): family,
		// protocol, extensions, padding, states; the address is zero, for all.
		req := make([]byte, 16+56)
		native.PutUint32(req, uint32(len(req)))
		native.PutUint16(req[4:], unix.SOCK_DIAG_BY_FAMILY)
		native.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
		req[16], req[17] = family, unix.IPPROTO_TCP
		native.PutUint32(req[20:], 1<<tcpListen)
		if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		for done := false; !done; {
			k, _, err := unix.Recvfrom(fd, buf, 0)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return err
			}
			if done, err = n.answers(buf[:k]); err != nil {
				return err
			}
		}
	}
	return nil
}

// answers takes messages of struct nlmsghdr and struct inet_diag_msg: family, state,
// timer, retransmits, then the source port in network byte order; the inode is the
// last of its 72 bytes.
func (n *netns) answers(b []byte) (done bool, err error) {
	for len(b) >= 16 {
		size, kind := int(native.Uint32(b)), native.Uint16(b[4:])
		if size < 16 || size > len(b) {
			break
		}
		switch {
		case kind == unix.NLMSG_DONE:
			return true, nil
		case kind == unix.NLMSG_ERROR:
			return true, errors.New("sock_diag: refused")
		case size >= 16+72 && b[17] == tcpListen:
			port := int(b[20])<<8 | int(b[21])
			if s := n.sockets[port]; len(s) < maxListeners {
				n.sockets[port] = append(s, uint64(native.Uint32(b[16+68:])))
			}
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return false, nil
}

// read adds who listens by one table, for a namespace that is not ours. The kernel
// lists those that listen first (net/ipv4/tcp_ipv4.c, tcp_get_idx), so that the
// connections of a busy host are not read.
func (n *netns) read(pid int, table string) error {
	f, err := os.Open(procPath(pid, table))
	if err != nil {
		if table == "net/tcp6" && gone(err) {
			return nil // no IPv6
		}
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(make([]byte, 4096), 4096)
	for i := 0; s.Scan() && i < maxListeners; i++ {
		port, inode, listens, ok := parseSocket(s.Bytes())
		switch {
		case !ok: // the heading
		case !listens:
			return nil
		default:
			n.sockets[port] = append(n.sockets[port], inode)
		}
	}
	return s.Err()
}

// parseSocket reads a line of /proc/net/tcp (proc_pid_net(5)): number, local
// address:port, remote, state, queues, timer, retransmits, uid, timeout, inode.
func parseSocket(line []byte) (port int, inode uint64, listens, ok bool) {
	var field [10][]byte
	n := 0
	for f := range bytes.FieldsSeq(line) {
		if n == len(field) {
			break
		}
		field[n] = f
		n++
	}
	if n < len(field) {
		return 0, 0, false, false
	}
	_, hexPort, _ := bytes.Cut(field[1], []byte(":"))
	var b [2]byte
	if len(hexPort) != 4 {
		return 0, 0, false, false
	}
	if _, err := hex.Decode(b[:], hexPort); err != nil {
		return 0, 0, false, false
	}
	inode, err := strconv.ParseUint(string(field[9]), 10, 64)
	if err != nil {
		return 0, 0, false, false
	}
	return int(b[0])<<8 | int(b[1]), inode, string(field[3]) == "0A", true // TCP_LISTEN
}
