// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/internal/ondisk"
	"github.com/memguard/memguard-go/sidecar/target"
)

// The journal is a file of JSON lines that says of every write what is about to
// be done, before it is, and how it went. A line is on disk when the call that
// writes it returns. What a kill cuts off is the last line: then nothing was done
// yet that only this line tells.
//
//	{"begin":{...}}                    a write, before its effect
//	{"end":{"id":..,"seq":..,...}}     its answer; seq is that of the guard's event
//	{"over":{"id":..,"why":..}}        an override that stands no longer
type line struct {
	Begin *write   `json:"begin,omitempty"`
	End   *outcome `json:"end,omitempty"`
	Over  *over    `json:"over,omitempty"`
}

// write is one write, as it was wanted.
type write struct {
	ID      string              `json:"id"` // that of its audit events
	Time    time.Time           `json:"time"`
	By      string              `json:"by"`
	Target  string              `json:"target"`
	Process target.Identity     `json:"process"`
	Boot    string              `json:"boot_id,omitempty"`   // of the machine: pid and start time are of this one
	Steady  time.Duration       `json:"steady_ns,omitempty"` // Time by the clock that nobody sets, since that boot; 0 is unknown
	Action  memguard.ActionName `json:"action"`
	Reason  string              `json:"reason"`

	Setting string    `json:"setting,omitempty"` // of an override; empty is an action that is done once
	From    *int64    `json:"from,omitempty"`    // nil: the guard did not tell
	To      int64     `json:"to,omitempty"`
	Until   time.Time `json:"until,omitzero"`
	Undoes  string    `json:"undoes,omitempty"` // id of the override that is taken back

	Key  string `json:"key,omitempty"`  // Idempotency-Key of the caller
	Hash string `json:"hash,omitempty"` // of the request that came with it
}

// resume makes the times of a write from a file of an earlier sidecar times of this
// process's clock, which nobody sets. How old it is says the steady clock if the machine
// still runs since then, else the wall clock, which may have been set: what seems to come
// from the future has just begun. So an override never has more than its TTL left.
func (w *write) resume(now time.Time, steady time.Duration, boot string) {
	age := now.Sub(w.Time)
	if w.Steady > 0 && steady >= w.Steady && boot != "" && w.Boot == boot {
		age = steady - w.Steady
	}
	ttl := min(max(w.Until.Sub(w.Time), 0), mostTTL)
	w.Time = now.Add(-max(age, 0))
	if !w.Until.IsZero() {
		w.Until = w.Time.Add(ttl)
	}
}

// outcome is how a write went.
type outcome struct {
	ID   string          `json:"id"`
	Seq  uint64          `json:"seq,omitempty"` // of the guard's event; 0: nothing was done
	Code int             `json:"code"`
	Body json.RawMessage `json:"body,omitempty"` // the answer
}

type over struct {
	ID  string `json:"id"`
	Why string `json:"why"`
}

// entry is what the journal knows of a write.
type entry struct {
	write
	ended *outcome // nil: under way, or cut off by a kill
	over  string   // why it stands no longer
	busy  bool     // its request is being answered
	n     uint64   // of its Begin in the file
}

// standing reports whether an override stands, as far as the journal knows.
func (e *entry) standing() bool {
	return e.Setting != "" && e.Undoes == "" && e.over == "" && (e.ended == nil || e.ended.Seq != 0)
}

// same reports whether two identities are of one process. The build id of one may
// not have been known yet.
func same(a, b target.Identity) bool { return a.PID == b.PID && a.Start == b.Start }

var errFull = errors.New("it has too many overrides of which it is not known whether they stand")

// Bounds of the journal. Beyond those of answers the oldest are forgotten.
const (
	mostLine      = 64 << 10 // bytes
	mostAnswer    = 16 << 10 // bytes of an answer that is kept
	mostKeys      = 1024     // answers kept for one caller
	mostEntries   = 4096
	answersKept   = 24 * time.Hour
	compactBeyond = 1 << 20 // bytes
)

// journal keeps the overrides and the answers to requests with an
// Idempotency-Key.
type journal struct {
	path string
	lock io.Closer

	disk    sync.Mutex // of the file; taken before mu
	file    *os.File
	size    int64
	compact int64 // the size from which on the file is written anew
	torn    bool  // the end of the file is not known to be whole
	live    bool  // what is taken in is of this process
	boot    string

	mu       sync.Mutex
	entries  map[string]*entry    // by id
	order    []string             // ids, the oldest first
	begun    uint64               // writes, so far
	underway map[[2]string]string // caller and key: hash
	skipped  int                  // lines of the file that could not be read
}

// openJournal reads the journal in a directory, or begins one. boot is the id of the
// machine's start, empty if that is unknown.
func openJournal(dir, boot string) (*journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := ondisk.Lock(filepath.Join(dir, "control.lock"))
	if lock != nil && err != nil {
		lock.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: another sidecar uses it: %w", dir, err)
	}
	j := &journal{path: filepath.Join(dir, "control.journal"), lock: lock, boot: boot, entries: map[string]*entry{}, underway: map[[2]string]string{}}
	if err := j.read(); err != nil {
		lock.Close()
		return nil, err
	}
	j.disk.Lock()
	defer j.disk.Unlock()
	if err := j.rewrite(); err != nil {
		lock.Close()
		return nil, err
	}
	j.live = true
	return j, nil
}

func (j *journal) close() error {
	j.disk.Lock()
	defer j.disk.Unlock()
	defer j.lock.Close()
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}

// read takes in the file. A line that cannot be read is counted and left out.
func (j *journal) read() error {
	f, err := os.Open(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	j.skipped, err = readLines(f, j.take)
	return err
}

// readLines calls take for each line that can be read, and counts the others.
func readLines(r io.Reader, take func(line)) (skipped int, err error) {
	b := bufio.NewReaderSize(r, mostLine)
	for {
		text, err := b.ReadSlice('\n')
		whole := err == nil
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = b.ReadSlice('\n')
		}
		if whole {
			if l, ok := parseLine(text); ok {
				take(l)
			} else {
				skipped++
			}
		} else if len(text) > 0 {
			skipped++ // torn by a kill, or too long
		}
		if errors.Is(err, io.EOF) {
			return skipped, nil
		}
		if err != nil {
			return skipped, err
		}
	}
}

func parseLine(text []byte) (line, bool) {
	var l line
	if json.Unmarshal(text, &l) != nil {
		return l, false
	}
	switch {
	case l.Begin != nil && l.End == nil && l.Over == nil:
		w := l.Begin
		return l, w.ID != "" && !w.Time.IsZero() && (w.Setting == "" || w.Undoes != "" || !w.Until.IsZero() && settingOf(w.Setting) != nil)
	case l.End != nil && l.Begin == nil && l.Over == nil:
		return l, l.End.ID != ""
	case l.Over != nil && l.Begin == nil && l.End == nil:
		return l, l.Over.ID != ""
	}
	return l, false
}

// take applies a line to what is known.
func (j *journal) take(l line) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case l.Begin != nil:
		if j.entries[l.Begin.ID] == nil {
			j.begun++
			e := &entry{write: *l.Begin, busy: j.live, n: j.begun}
			if !j.live {
				e.resume(time.Now(), steady(), j.boot)
			}
			j.order = append(j.order, l.Begin.ID)
			j.entries[l.Begin.ID] = e
		}
		if len(j.order)%256 == 0 {
			j.tidy()
		}
	case l.End != nil:
		e := j.entries[l.End.ID]
		if e == nil || e.ended != nil {
			return
		}
		e.ended = l.End
		if e.ended.Seq == 0 {
			return
		}
		for _, old := range j.entries { // an override takes the place of the one before
			replaced := e.Setting != "" && e.Undoes == "" && old.ID != e.ID && old.Setting == e.Setting &&
				same(old.Process, e.Process) && old.n < e.n && old.standing()
			if replaced || old.ID == e.Undoes {
				old.over = "by " + e.ID
			}
		}
	case l.Over != nil:
		if e := j.entries[l.Over.ID]; e != nil {
			e.over = l.Over.Why
		}
	}
}

// tidy forgets what is of no use any more, and the oldest answers beyond the
// bounds.
func (j *journal) tidy() {
	now := time.Now()
	keys := map[string]int{}
	for _, id := range j.order {
		if e := j.entries[id]; e.Key != "" {
			keys[e.By]++
		}
	}
	kept := j.order[:0]
	spare := len(j.order) - mostEntries
	for _, id := range j.order {
		e := j.entries[id]
		settled := !e.busy
		answer := e.Key != "" && now.Sub(e.Time) < answersKept && keys[e.By] <= mostKeys && spare <= 0
		if settled && !e.standing() && !answer {
			delete(j.entries, id)
			keys[e.By]--
			spare--
			continue
		}
		kept = append(kept, id)
	}
	j.order = kept
}

// append writes a line, and returns when it is on disk.
func (j *journal) append(l line) error {
	text, err := encodeLine(l)
	if err != nil {
		return err
	}
	j.disk.Lock()
	defer j.disk.Unlock()
	if j.file == nil {
		return fs.ErrClosed
	}
	if j.torn || j.size+int64(len(text)) > j.compact {
		if err := j.rewrite(); err != nil {
			return err
		}
	}
	j.torn = true // until it is known better: after a failed fsync nobody knows what is on disk (fsync(2))
	if _, err := j.file.Write(text); err != nil {
		return errors.Join(err, j.file.Truncate(j.size))
	}
	if err := j.file.Sync(); err != nil {
		return errors.Join(err, j.file.Truncate(j.size))
	}
	j.torn = false
	j.size += int64(len(text))
	j.take(l)
	return nil
}

func encodeLine(l line) ([]byte, error) {
	if l.End != nil && len(l.End.Body) > mostAnswer {
		return nil, fmt.Errorf("an answer of %d bytes: at most %d are kept", len(l.End.Body), mostAnswer)
	}
	text, err := json.Marshal(l)
	if err == nil && len(text) >= mostLine {
		err = fmt.Errorf("a line of %d bytes: at most %d", len(text), mostLine)
	}
	return append(text, '\n'), err
}

// rewrite writes the file anew, with what is still of use. The caller holds disk.
func (j *journal) rewrite() error {
	var b bytes.Buffer
	j.mu.Lock()
	j.tidy()
	for _, id := range j.order {
		e := j.entries[id]
		ls := []line{{Begin: &e.write}}
		if e.ended != nil {
			ls = append(ls, line{End: e.ended})
		}
		if e.over != "" {
			ls = append(ls, line{Over: &over{id, e.over}})
		}
		for _, l := range ls {
			if text, err := encodeLine(l); err == nil {
				b.Write(text)
			}
		}
	}
	j.mu.Unlock()
	next := j.path + ".new"
	f, err := os.OpenFile(next, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(b.Bytes()); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(next, j.path)
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(next))
	}
	if j.file != nil {
		j.file.Close()
	}
	j.file, j.size, j.torn = f, int64(b.Len()), false
	j.compact = max(compactBeyond, 2*j.size)
	return ondisk.SyncDir(filepath.Dir(j.path))
}
