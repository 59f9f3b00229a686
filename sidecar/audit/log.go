// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"cmp"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// LogConfig says where the records go and how many are kept.
type LogConfig struct {
	Path       string        // of the file that is appended to; older ones lie beside it
	MaxSize    int64         // bytes of a file before the next one is begun; 0 is 100 MiB
	MaxAge     time.Duration // of a file before the next one is begun, and of older ones before they are removed; 0 is no limit
	MaxBackups int           // older files that are kept; 0 is 10
	MaxEvent   int           // bytes of one record; 0 is 100 KiB
}

const (
	minEvent = 8 << 10 // bytes: what a record cannot be cut below
	maxEvent = 1 << 20 //

	// Records that wait for the disk. What comes on top is refused: a disk that does not
	// keep up must not become memory.
	maxWaiting = 4 << 20 // bytes
)

// Log is the audit log. Use [OpenLog]. It is safe for concurrent use: who waits for the
// disk at the same time shares one fsync. It is a prometheus.Collector of
// memguard_audit_event_total, memguard_audit_error_total{plugin} and
// memguard_audit_level_total{level}.
type Log struct {
	config LogConfig

	events prometheus.Counter
	errs   *prometheus.CounterVec
	levels *prometheus.CounterVec

	mu      sync.Mutex
	queue   []*waiter
	waiting int // bytes in queue
	busy    bool
	closed  bool
	idle    sync.Cond // no commit is under way

	file *file // of who has the turn
	torn int64
}

// waiter is a record that is not on the disk yet.
type waiter struct {
	line []byte
	done chan bool // true: it is this one's turn to write for all; false: err holds
	err  error
}

// errClosed is what an Append after Close gets.
var errClosed = errors.New("audit: log: closed")

// OpenLog opens the log, or creates it, for its owner alone (0600). What a kill or a full
// disk left of a record at its end is set aside, so that every line stays a record. A log
// has one writer: OpenLog fails where another process holds it (on Linux).
func OpenLog(c LogConfig) (*Log, error) {
	c.MaxSize = cmp.Or(c.MaxSize, 100<<20)
	c.MaxBackups = cmp.Or(c.MaxBackups, 10)
	c.MaxEvent = cmp.Or(c.MaxEvent, 100<<10)
	switch {
	case c.Path == "":
		return nil, errors.New("audit: log: no path")
	case c.MaxSize < 0 || c.MaxBackups < 0 || c.MaxAge < 0:
		return nil, errors.New("audit: log: a limit is negative")
	case c.MaxEvent < minEvent || c.MaxEvent > maxEvent:
		return nil, fmt.Errorf("audit: log: MaxEvent %d is not in [%d, %d] bytes", c.MaxEvent, minEvent, maxEvent)
	}
	l := &Log{
		config: c,
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "memguard_audit_event_total", Help: "Audit records on the disk.",
		}),
		errs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "memguard_audit_error_total", Help: "Audit records that could not be written (log), and older files that could not be begun or removed (rotate).",
		}, []string{"plugin"}),
		levels: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "memguard_audit_level_total", Help: "Audit records on the disk by their level.",
		}, []string{"level"}),
	}
	l.idle.L = &l.mu
	l.errs.WithLabelValues("log")
	l.errs.WithLabelValues("rotate")
	for _, level := range levels[1:] {
		l.levels.WithLabelValues(string(level))
	}
	var err error
	if l.file, err = openFile(c); err != nil {
		return nil, fmt.Errorf("audit: log: %w", err)
	}
	l.torn = l.file.torn
	return l, nil
}

// Torn returns how many bytes of an unfinished record OpenLog found at the end of the log
// and set aside in PATH.torn. The call that it was of was never answered.
func (l *Log) Torn() int64 { return l.torn }

// Append writes a record and returns when it is on the disk (fsync(2)). On an error it
// does not count as written, and what it announces must not be done. A record that is
// too large loses its objects, then the ends of its texts.
func (l *Log) Append(e Event) error {
	err := l.append(e)
	if err != nil {
		l.errs.WithLabelValues("log").Inc()
		return err
	}
	l.events.Inc()
	l.levels.WithLabelValues(string(levels[rank(e.Level)])).Inc()
	return nil
}

func (l *Log) append(e Event) error {
	line, err := encode(e, l.config.MaxEvent)
	if err != nil {
		return fmt.Errorf("audit: log: %w", err)
	}
	w := &waiter{line: line, done: make(chan bool, 1)}
	l.mu.Lock()
	switch {
	case l.closed:
		l.mu.Unlock()
		return errClosed
	case l.waiting+len(line) > maxWaiting:
		l.mu.Unlock()
		return errors.New("audit: log: the disk does not keep up: too many records wait for it")
	}
	l.queue = append(l.queue, w)
	l.waiting += len(line)
	if l.busy {
		l.mu.Unlock()
		if myTurn := <-w.done; !myTurn {
			return w.err
		}
		l.mu.Lock()
	}
	l.commitLocked()
	l.mu.Unlock()
	return w.err
}

// commitLocked writes all that wait, the caller's record among them, then gives the turn to
// who came meanwhile: nobody writes for others for ever. l.mu is held, but not over the disk.
func (l *Log) commitLocked() {
	batch := l.queue
	l.queue, l.waiting, l.busy = nil, 0, true
	l.mu.Unlock()

	var all []byte
	for _, w := range batch {
		all = append(all, w.line...)
	}
	err, rotation := l.file.append(all)
	if rotation != nil {
		l.errs.WithLabelValues("rotate").Inc()
	}
	if err != nil {
		err = fmt.Errorf("audit: log: %w", err)
	}

	l.mu.Lock()
	for _, w := range batch {
		w.err = err
		w.done <- false
	}
	if len(l.queue) > 0 {
		l.queue[0].done <- true
		return
	}
	l.busy = false
	l.idle.Broadcast()
}

// Close closes the log after what is being written.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	for l.busy {
		l.idle.Wait()
	}
	return l.file.close()
}

// Describe implements prometheus.Collector.
func (l *Log) Describe(ch chan<- *prometheus.Desc) {
	l.events.Describe(ch)
	l.errs.Describe(ch)
	l.levels.Describe(ch)
}

// Collect implements prometheus.Collector.
func (l *Log) Collect(ch chan<- prometheus.Metric) {
	l.events.Collect(ch)
	l.errs.Collect(ch)
	l.levels.Collect(ch)
}
