// SPDX-License-Identifier: Apache-2.0

package brink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Keeper is a process of ours that takes back what is set in cgroups when we are
// gone. The process is started when it is needed.
type Keeper struct {
	// Dir is a directory of ours, where what is set is noted: should we and the process
	// be killed at once, whoever comes next with the same directory takes it back.
	Dir string

	mu     sync.Mutex
	c      *client
	groups map[groupID]bool // that somebody holds
}

// The keeper is this program again, under this name.
const keeperName = "memguard-oom-keeper"

// What is said between us and the keeper, on a unix(7) socket that keeps messages
// apart: a byte and a number, and with take the group's directory.
const (
	sayReady = 'r' // keeper: it runs
	sayTake  = 't' // us: take back this group's setting when we are gone; the number is that of the lease, and the bound and the note's path follow
	sayTaken = 'k' // keeper: it will
	sayLeave = 'l' // us: the setting is taken back; keeper: it took it back, for we were late
)

const (
	messageLen = 9 // kind, lease, bound in ms
	maxNote    = 4096
)

func message(kind byte, lease uint32, bound time.Duration) []byte {
	b := make([]byte, messageLen)
	b[0] = kind
	binary.LittleEndian.PutUint32(b[1:], lease)
	binary.LittleEndian.PutUint32(b[5:], uint32(bound.Milliseconds()))
	return b
}

const (
	startWithin  = 5 * time.Second // of a loaded machine
	answerWithin = time.Second
)

// client is a keeper that runs, as we see it.
type client struct {
	conn  *os.File
	pid   int
	ended chan struct{} // closed when the keeper has

	mu     sync.Mutex
	next   uint32
	leases map[uint32]*lease
}

// lease is a group whose setting the keeper will take back.
type lease struct {
	c     *client
	id    uint32
	note  string        // file that has it
	taken chan struct{} // closed when the keeper has it
	lost  chan struct{} // closed when the keeper took the setting back, or has gone
	once  sync.Once
}

func (l *lease) lose() { l.once.Do(func() { close(l.lost) }) }

// start starts the keeper's process if none runs.
func (k *Keeper) start() (err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.Dir, err = filepath.Abs(k.Dir); err != nil { // the process has another working directory
		return err
	}
	if err := os.MkdirAll(k.Dir, 0o700); err != nil {
		return err
	}
	_, err = k.client()
	return err
}

// client is the keeper that runs. The caller holds mu.
func (k *Keeper) client() (*client, error) {
	if k.c != nil {
		select {
		case <-k.c.ended:
		default:
			return k.c, nil
		}
	}
	if os.Getpid() == 1 {
		return nil, errors.New("brink: process 1 cannot have a keeper: when it ends, the kernel ends all others of its PID namespace with it (pid_namespaces(7))")
	}
	c, err := startKeeper()
	if err != nil {
		return nil, fmt.Errorf("brink: keeper: %w", err)
	}
	k.c = c
	return c, nil
}

func startKeeper() (*client, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fds[0], true); err != nil { // the runtime waits for it
		return nil, errors.Join(err, unix.Close(fds[0]), unix.Close(fds[1]))
	}
	conn, theirs := os.NewFile(uintptr(fds[0]), "keeper"), os.NewFile(uintptr(fds[1]), "keeper")
	defer theirs.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{keeperName}
	cmd.Dir, cmd.Env = "/", []string{"GOMAXPROCS=1"}
	cmd.Stdin, cmd.Stderr = theirs, os.Stderr
	// A session of its own: what ends our terminal or process group does not end it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, err
	}
	c := &client{conn: conn, pid: cmd.Process.Pid, ended: make(chan struct{}), leases: map[uint32]*lease{}}
	b := make([]byte, messageLen)
	_ = conn.SetReadDeadline(time.Now().Add(startWithin))
	if n, err := conn.Read(b); n != messageLen || b[0] != sayReady {
		conn.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, errors.Join(errors.New("this program does not run as its own keeper"), err)
	}
	_ = conn.SetReadDeadline(time.Time{})
	go c.listen(cmd)
	return c, nil
}

// listen hears the keeper until it ends.
func (c *client) listen(cmd *exec.Cmd) {
	b := make([]byte, messageLen)
	for {
		n, err := c.conn.Read(b)
		if n == 0 || err != nil {
			break
		}
		if n != messageLen {
			continue
		}
		c.mu.Lock()
		l := c.leases[binary.LittleEndian.Uint32(b[1:])]
		c.mu.Unlock()
		switch {
		case l == nil:
		case b[0] == sayTaken:
			close(l.taken)
		case b[0] == sayLeave:
			l.lose()
		}
	}
	close(c.ended)
	c.mu.Lock()
	for _, l := range c.leases {
		l.lose()
	}
	c.mu.Unlock()
	c.conn.Close()
	_ = cmd.Wait()
}

// take notes a group and gives it to the keeper, and returns when it has it.
func (k *Keeper) take(g *group, bound time.Duration) (_ *lease, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, err := k.client()
	if err != nil {
		return nil, err
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	note := k.note(g.id)
	if err := os.WriteFile(note, []byte(boot+g.dir.Name()+"\n"+g.Path()+"\n"), 0o600); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(note)
		}
	}()
	l := &lease{note: note, c: c, taken: make(chan struct{}), lost: make(chan struct{})}
	c.mu.Lock()
	c.next++
	l.id = c.next
	c.leases[l.id] = l
	c.mu.Unlock()
	if err := send(c.conn, append(message(sayTake, l.id, bound), note...), unix.UnixRights(int(g.dir.Fd()))); err != nil {
		l.leave()
		return nil, fmt.Errorf("brink: keeper: %w", err)
	}
	select {
	case <-l.taken:
		return l, nil
	case <-l.lost:
		return nil, errors.New("brink: the keeper has ended")
	case <-time.After(answerWithin):
		l.leave()
		return nil, errors.New("brink: the keeper does not answer")
	}
}

// leave tells the keeper, and whoever comes next, that there is nothing to take back
// any more.
func (l *lease) leave() {
	_ = os.Remove(l.note)
	_ = send(l.c.conn, message(sayLeave, l.id, 0), nil) // else it has gone
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	delete(l.c.leases, l.id)
}

// send waits for a keeper that stands still, but not for ever.
func send(f *os.File, b, rights []byte) error {
	c, err := f.SyscallConn()
	if err = errors.Join(err, f.SetWriteDeadline(time.Now().Add(answerWithin))); err != nil {
		return err
	}
	err2 := c.Write(func(fd uintptr) bool {
		err = unix.Sendmsg(int(fd), b, rights, nil, unix.MSG_NOSIGNAL)
		return !errors.Is(err, unix.EAGAIN)
	})
	return errors.Join(err, err2)
}

// own notes that somebody holds a group; there can be one only.
func (k *Keeper) own(id groupID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.groups[id] {
		return false
	}
	if k.groups == nil {
		k.groups = map[groupID]bool{}
	}
	k.groups[id] = true
	return true
}

func (k *Keeper) disown(id groupID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.groups, id)
}

// Close ends the keeper's process.
func (k *Keeper) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.c != nil {
		_ = k.c.conn.Close() // which it hears
		<-k.c.ended
		k.c = nil
	}
}
