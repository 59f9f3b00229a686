// SPDX-License-Identifier: Apache-2.0

package stderr

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/memguard/memguard-go/pacer/gctrace"
	"golang.org/x/sys/unix"
)

const (
	pipeSize = 1 << 20 // room for 256 packets: a line about a collection is forty
	maxBatch = 32 << 10
	maxQueue = 1 << 20               // bytes that the service may be ahead of who reads its standard error
	doubt    = 20 * time.Millisecond // for which "gc " alone is held back
	idle     = 5 * time.Second       // without progress, after which the rest of a service that has ended is given up
)

// Pump stands between a service and its standard error. It takes out the lines that
// the Go runtime prints about collections and passes on everything else, byte for
// byte and at once.
//
// The pipe is always drained before anything is done with what came. When the real
// standard error takes no more, the service may be maxQueue bytes and the pipe ahead
// of it, and lines about collections do not count; then its writers wait, as they
// would have without a Pump. Then the collector waits, too, which it would not have:
// what the runtime prints goes the same way, and no way was found to let one through
// and not the other. When the real standard error is closed, the pipe is, and the
// service gets the EPIPE that it would have got.
type Pump struct {
	in, wake int // read end; a pipe to wake the reader with
	waker    int
	service  *os.File
	packets  bool // each read is one write

	out    int
	batch  []byte // the service's, not in the queue yet
	queue  queue
	split  splitter
	parser parser
	rec    atomic.Pointer[Record]

	read, written atomic.Uint64 // bytes; of the service's own
	mu            sync.Mutex
	counts        Counts
	sum           gctrace.Summary

	over    atomic.Bool // the service has ended
	drained chan struct{}
	flushed chan struct{}
}

// NewPump returns a Pump to the file descriptor out. keep leaves the lines about
// collections in the stream, for those who asked for them themselves.
func NewPump(out int, keep bool) (*Pump, error) {
	var p, w [2]int
	flags := unix.O_CLOEXEC | unix.O_DIRECT
	err := unix.Pipe2(p[:], flags)
	packets := err == nil
	if err != nil { // gVisor has no packets
		if err = unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return nil, fmt.Errorf("stderr: pipe: %w", err)
		}
	}
	if err := unix.Pipe2(w[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		unix.Close(p[0])
		unix.Close(p[1])
		return nil, fmt.Errorf("stderr: pipe: %w", err)
	}
	return newPump(p[0], os.NewFile(uintptr(p[1]), "|stderr"), w, out, keep, packets)
}

// Resume returns a Pump that goes on with a pipe from another one's Source.
func Resume(source, out int) (*Pump, error) {
	var w [2]int
	if err := unix.Pipe2(w[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("stderr: pipe: %w", err)
	}
	return newPump(source, nil, w, out, false, true)
}

func newPump(in int, service *os.File, wake [2]int, out int, keep, packets bool) (*Pump, error) {
	p := &Pump{in: in, wake: wake[0], waker: wake[1], service: service, out: out, packets: packets,
		drained: make(chan struct{}), flushed: make(chan struct{})}
	if err := unix.SetNonblock(in, true); err != nil {
		return nil, fmt.Errorf("stderr: pipe: %w", err)
	}
	_, _ = unix.FcntlInt(uintptr(in), unix.F_SETPIPE_SZ, pipeSize) // a user may have 64 MiB in all of them (pipe(7))
	p.queue.init()
	p.split = splitter{keep: keep || !packets, pass: p.pass, cycle: p.cycle}
	return p, nil
}

// Packets reports whether lines about collections can be told from the rest.
func (p *Pump) Packets() bool { return p.packets }

// Service is what the service gets as its standard error. Close it as soon as the
// service has it: the stream ends when nobody has.
func (p *Pump) Service() *os.File { return p.service }

// Source is the other end, for who is to go on if we are killed.
func (p *Pump) Source() uintptr { return uintptr(p.in) }

// Record writes what comes from now on to r, too.
func (p *Pump) Record(r *Record) { p.rec.Store(r) }

// Run pumps until nobody has the stream open any more, or after Drain.
func (p *Pump) Run() error {
	go p.drain()
	err := p.flush()
	<-p.drained
	return err
}

// Drain is called when the service has ended: what it printed is in the pipe by then.
// Children of its may keep the stream open, and are not waited for. It returns when
// everything is taken out of the pipe and recorded, or that takes longer than a second
// because nobody reads the real standard error.
func (p *Pump) Drain() {
	p.over.Store(true)
	_, _ = unix.Write(p.waker, []byte{0})
	select {
	case <-p.drained:
	case <-time.After(time.Second):
	}
}

// Flush waits, after Drain, until all is passed on, or nothing of it was for five
// seconds. It reports whether the stream has ended, so that nobody needs it any more.
func (p *Pump) Flush() (ended bool) {
	last, since := p.written.Load(), time.Now()
	for {
		select {
		case <-p.flushed:
			<-p.drained
			return p.queue.eof
		case <-time.After(50 * time.Millisecond):
			if n := p.written.Load(); n != last {
				last, since = n, time.Now()
			} else if time.Since(since) > idle {
				return false
			}
		}
	}
}

// Counts says how much there was.
func (p *Pump) Counts() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.counts
	c.Bytes = p.read.Load()
	return c
}

// WriteSummary writes what the collections add up to, for people.
func (p *Pump) WriteSummary(w io.Writer, width int, color bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sum.WriteText(w, width, color)
}

// drain reads the pipe.
func (p *Pump) drain() {
	defer close(p.drained)
	defer p.queue.close()
	defer p.ship()
	defer p.split.give()
	buf := make([]byte, 64<<10)
	for !p.queue.broken() {
		n, err := unix.Read(p.in, buf)
		switch {
		case n > 0:
			p.split.packet(buf[:n])
			if len(p.batch) >= maxBatch {
				p.ship()
			}
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			p.ship() // at once, since nothing else is there
			if p.over.Load() {
				return
			}
			p.wait()
		default: // 0 is that nobody has it open
			p.queue.eof = true
			return
		}
	}
}

// wait waits until there is something to read.
func (p *Pump) wait() {
	timeout := -1
	if p.split.unsure {
		timeout = int(doubt / time.Millisecond)
	}
	fds := []unix.PollFd{{Fd: int32(p.in), Events: unix.POLLIN}, {Fd: int32(p.wake), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, timeout); n == 0 && err == nil {
		p.split.give()
	}
}

// pass gets the service's own bytes.
func (p *Pump) pass(b []byte) { p.batch = append(p.batch, b...) }

// ship sends off what pass got.
func (p *Pump) ship() {
	if len(p.batch) == 0 {
		return
	}
	p.read.Add(uint64(len(p.batch)))
	if r := p.rec.Load(); r != nil {
		r.printed(p.batch)
	}
	p.queue.put(p.batch)
	p.batch = p.batch[:0]
}

// cycle gets a line about a collection.
func (p *Pump) cycle(line []byte) {
	rec := p.parser.parse(line)
	if rec == nil {
		return
	}
	p.mu.Lock()
	if _, ok := rec.(*gctrace.Cycle); ok {
		p.counts.Cycles++
	} else {
		p.counts.Torn++
	}
	p.sum.Add(rec)
	p.mu.Unlock()
	if r := p.rec.Load(); r != nil {
		r.collected(line)
	}
}

// flush writes what is the service's.
func (p *Pump) flush() error {
	defer close(p.flushed)
	var spare []byte
	for {
		b := p.queue.take(spare)
		if b == nil {
			return nil
		}
		spare = b[:0]
		for len(b) > 0 {
			n, err := writeSome(p.out, b[:lineEnd(b)])
			p.written.Add(uint64(n))
			b = b[n:]
			switch {
			case err == unix.EPIPE:
				p.queue.fail()
				_, _ = unix.Write(p.waker, []byte{0})
				<-p.drained
				unix.Close(p.in)
				return fmt.Errorf("stderr: %w", err)
			case err != nil: // a full disk, a terminal that is gone: the service would have lost it, too
				n = lineEnd(b)
				p.mu.Lock()
				p.counts.Dropped += uint64(n)
				p.mu.Unlock()
				b = b[n:]
			}
		}
	}
}

// lineEnd cuts off what is written at once: whole lines, where they are not longer
// than what the kernel writes to a pipe in one piece (pipe(7), PIPE_BUF). So others
// that write to the same pipe, such as the service's standard output, do not get in
// between.
func lineEnd(b []byte) int {
	const pipeBuf = 4096
	if len(b) <= pipeBuf {
		return len(b)
	}
	if i := bytes.LastIndexByte(b[:pipeBuf], '\n'); i >= 0 {
		return i + 1
	}
	return pipeBuf
}

// writeSome writes, and waits for room where the file descriptor does not.
func writeSome(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Write(fd, b)
		switch err {
		case nil:
			return n, nil
		case unix.EINTR:
		case unix.EAGAIN:
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 1000)
		default:
			return 0, err
		}
	}
}

// queue is what is on its way from the pipe to the real standard error.
type queue struct {
	mu   sync.Mutex
	more sync.Cond // something came, or went
	buf  []byte
	done bool // nothing will come
	gone bool // nothing can be written
	eof  bool // the stream itself has ended; written before done
}

func (q *queue) init() { q.more.L = &q.mu }

// put waits for room.
func (q *queue) put(b []byte) {
	q.mu.Lock()
	for len(q.buf) > 0 && len(q.buf)+len(b) > maxQueue && !q.gone {
		q.more.Wait()
	}
	if !q.gone {
		q.buf = append(q.buf, b...)
	}
	q.mu.Unlock()
	q.more.Broadcast()
}

// take waits for something and returns all of it; nil is the end.
func (q *queue) take(spare []byte) []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.buf) == 0 && !q.done {
		q.more.Wait()
	}
	if len(q.buf) == 0 {
		return nil
	}
	b := q.buf
	if cap(spare) > 64<<10 && len(b) <= 64<<10 { // a flood is over
		spare = nil
	}
	q.buf = spare
	q.more.Broadcast()
	return b
}

func (q *queue) close()       { q.set(&q.done) }
func (q *queue) fail()        { q.set(&q.gone) }
func (q *queue) broken() bool { q.mu.Lock(); defer q.mu.Unlock(); return q.gone }

func (q *queue) set(flag *bool) {
	q.mu.Lock()
	*flag = true
	q.mu.Unlock()
	q.more.Broadcast()
}

// parser reads single lines with a gctrace.Reader, which keeps its memory.
type parser struct {
	r    *gctrace.Reader
	line bytes.Reader
}

func (p *parser) parse(line []byte) gctrace.Record {
	p.line.Reset(line)
	if p.r == nil {
		p.r = gctrace.NewReader(&p.line)
	}
	if !p.r.Scan() { // not the runtime's; the reader has seen the end of its input
		p.r = nil
		return nil
	}
	return p.r.Record()
}
