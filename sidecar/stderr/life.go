// SPDX-License-Identifier: Apache-2.0

package stderr

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// What memguard exec leaves of one life of a service stands in the directory
// PID-START of its state directory, as plain files:
//
//	stderr, stderr.old    what was printed last, TailSize bytes at least together if there was as much
//	dump                  how the dump began that goes on in them: a line with the number of bytes between, then its text
//	gctrace, gctrace.old  the lines about collections, as the runtime prints them
//	exit.json             an [Exit], once it has ended
//
// A file that is full becomes .old in place of the one before.
const (
	tailFile  = "stderr"
	dumpFile  = "dump"
	traceFile = "gctrace"
	exitFile  = "exit.json"
	old       = ".old"

	maxTrace = 256 << 10 // bytes of a gctrace file: 1,500 collections or more
	maxExit  = 4 << 10
)

// life is the directory of one life.
type life struct{ dir string }

// OpenExec opens what memguard exec --state DIR keeps of one life; Run reads its
// collections, Tail and Exit look at once. The error is fs.ErrNotExist if that
// process was not started by it. Where memguard exec runs in a pid namespace of its
// own, the pid there is another one: then the start time alone must tell.
func OpenExec(dir string, pid int, start uint64) (*Stream, error) {
	of := func(pid string) string { return filepath.Join(dir, pid+"-"+strconv.FormatUint(start, 10)) }
	l := &life{of(strconv.Itoa(pid))}
	if st, err := os.Lstat(l.dir); err != nil || !st.IsDir() {
		names, _ := filepath.Glob(of("*"))
		if len(names) != 1 {
			return nil, fmt.Errorf("stderr: %s has %d lives of this start time, none of pid %d: %w", dir, len(names), pid, fs.ErrNotExist)
		}
		l.dir = names[0]
	}
	return &Stream{life: l, input: l.follow}, nil
}

// follow reads all collections that are kept, and those to come.
func (l *life) follow(ctx context.Context) (io.ReadCloser, error) {
	path := filepath.Join(l.dir, traceFile)
	w := &follower{ctx: ctx, path: path, end: -1}
	w.try(nil)
	first, err := openRegular(path + old)
	if err != nil {
		return w, nil
	}
	if w.f != nil {
		a, aerr := w.f.Stat()
		b, berr := first.Stat()
		if aerr == nil && berr == nil && os.SameFile(a, b) { // it became .old just now
			first.Close()
			return w, nil
		}
	}
	return &both{io.MultiReader(io.LimitReader(first, maxTrace), w), first, w}, nil
}

type both struct {
	io.Reader
	first, second io.Closer
}

func (b *both) Close() error { return errors.Join(b.first.Close(), b.second.Close()) }

func (l *life) tail() []byte {
	var r ring
	var d dump
	if text, missing, ok := parseDump(l.read(dumpFile, headSize+maxNumber)); ok {
		d.resume(text, missing)
	}
	for _, name := range []string{tailFile + old, tailFile} {
		b := l.read(name, TailSize)
		r.add(b)
		d.add(b)
	}
	return d.before(r.bytes())
}

// read reads the beginning of a file; one that cannot be read is empty.
func (l *life) read(name string, most int64) []byte {
	f, err := openRegular(filepath.Join(l.dir, name))
	if err != nil {
		return nil
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, most))
	return b
}

// maxNumber is how long the number in a dump file may be, with the end of its line.
const maxNumber = 17

// formatDump writes a dump file, and parseDump reads one.
func formatDump(text []byte, missing uint64) []byte {
	return append(fmt.Appendf(nil, "%d\n", missing), text...)
}

func parseDump(b []byte) (text []byte, missing uint64, ok bool) {
	number, text, ok := bytes.Cut(b, []byte("\n"))
	missing, err := strconv.ParseUint(string(number), 10, 64)
	if !ok || err != nil || len(number) >= maxNumber || len(text) == 0 || len(text) > headSize {
		return nil, 0, false
	}
	return text, missing, true
}

func (l *life) exit() (Exit, bool) {
	return parseExit(l.read(exitFile, maxExit))
}

// parseExit reads an exit.json. What no process can have ended with is none.
func parseExit(b []byte) (Exit, bool) {
	var e Exit
	d := json.NewDecoder(bytes.NewReader(b))
	if d.Decode(&e) != nil || e.PID <= 0 || e.Time.IsZero() {
		return Exit{}, false
	}
	if e.Code < 0 || e.Code > 255 || e.Signal < 0 || e.Signal > 127 || e.Code != 0 && e.Signal != 0 {
		return Exit{}, false
	}
	return e, true
}

// lifeOf reads the name of a life's directory.
func lifeOf(name string) (pid int, start uint64, ok bool) {
	p, s, found := strings.Cut(name, "-")
	pid, perr := strconv.Atoi(p)
	start, serr := strconv.ParseUint(s, 10, 64)
	return pid, start, found && perr == nil && serr == nil && pid > 0 && name == strconv.Itoa(pid)+"-"+strconv.FormatUint(start, 10)
}
