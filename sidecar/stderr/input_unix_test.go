// SPDX-License-Identifier: Apache-2.0

//go:build unix

package stderr

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// gc is the runtime's line about collection n.
func gc(n int) string {
	return fmt.Sprintf("gc %d @%d.000s 2%%: 0.010+0.50+0.003 ms clock, 0.020+0.10/0.40/0.20+0.006 ms cpu, 4->4->1 MB, 5 MB goal, 0 MB stacks, 0 MB globals, 2 P\n", n, n)
}

// run reads a stream in the background until the test ends.
func run(t *testing.T, s *Stream, err error) *Stream {
	t.Helper()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done, "the end of the context is no error")
	})
	return s
}

// numbers waits until there are this many collections, and returns their numbers.
func numbers(t *testing.T, s *Stream, n int) (out []uint32) {
	t.Helper()
	require.Eventually(t, func() bool { return s.Counts().Cycles >= uint64(n) }, time.Minute, 5*time.Millisecond, "%+v", s.Counts())
	cycles, next := s.Cycles(0)
	assert.Equal(t, uint64(n), next)
	for _, c := range cycles {
		out = append(out, c.N)
	}
	return out
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	_, err = f.WriteString(text)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func TestFollow(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.log")
	s, err := Open(path)
	run(t, s, err) // it is not there yet, perhaps
	appendTo(t, path, "starting\n"+gc(1)+gc(2)[:30])
	assert.Equal(t, []uint32{1}, numbers(t, s, 1))
	appendTo(t, path, gc(2)[30:])
	assert.Equal(t, []uint32{1, 2}, numbers(t, s, 2), "a line in two parts")

	require.NoError(t, os.Rename(path, path+".1"))
	appendTo(t, path+".1", gc(3)) // by who has it open still
	assert.Equal(t, []uint32{1, 2, 3}, numbers(t, s, 3))
	appendTo(t, path+".1", gc(4))
	appendTo(t, path, gc(5))
	assert.Equal(t, []uint32{1, 2, 3, 4, 5}, numbers(t, s, 5), "rotated by name")

	require.NoError(t, os.Truncate(path, 0))
	appendTo(t, path, gc(6)) // as long as what stood there
	assert.Equal(t, []uint32{1, 2, 3, 4, 5, 6}, numbers(t, s, 6), "copied and truncated")
	require.NoError(t, os.Truncate(path, 0))
	appendTo(t, path, "longer\n"+gc(7))
	assert.Equal(t, []uint32{1, 2, 3, 4, 5, 6, 7}, numbers(t, s, 7), "truncated and grown again between two looks")

	require.NoError(t, os.Remove(path))
	appendTo(t, path, gc(8)+"panic: end\n")
	numbers(t, s, 8)
	require.Eventually(t, func() bool { return strings.HasSuffix(string(s.Tail()), "panic: end\n") }, time.Minute, time.Millisecond)
	cycles, next := s.Cycles(6)
	assert.Len(t, cycles, 2)
	assert.Equal(t, uint64(8), next)
	_, exited := s.Exit()
	assert.False(t, exited, "a file knows nothing of it")
}

// Who has not opened the file to append goes on where it was when that is truncated.
func TestFollowWithoutAppend(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.log")
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	const hole = 1 << 30
	_, err = f.Seek(hole, io.SeekStart)
	require.NoError(t, err)
	_, err = f.WriteString(gc(1))
	require.NoError(t, err)
	s, err := Open(path)
	run(t, s, err)
	assert.Len(t, numbers(t, s, 1), 1)
	for n := 2; n < 5; n++ {
		require.NoError(t, os.Truncate(path, 0))
		_, err = f.WriteString(gc(n))
		require.NoError(t, err)
		assert.Len(t, numbers(t, s, n), n)
	}
	assert.LessOrEqual(t, s.Counts().Bytes, uint64(2*TailSize), "no hole was read")
}

// Of a file that is there the last is read, not gigabytes.
func TestFollowOldFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.log")
	appendTo(t, path, gc(1)+strings.Repeat("x", TailSize)+"\n"+gc(2))
	s, err := Open(path)
	run(t, s, err)
	assert.Equal(t, []uint32{2}, numbers(t, s, 1))
	assert.Equal(t, uint64(TailSize), s.Counts().Bytes)
}

func TestCyclesAreBounded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.log")
	s, err := Open(path)
	run(t, s, err)
	var text bytes.Buffer
	for n := range maxCycles + 10 {
		text.WriteString(gc(n + 1))
	}
	appendTo(t, path, text.String()[:TailSize/2]) // read from its end otherwise
	require.Eventually(t, func() bool { return s.Counts().Bytes == TailSize/2 }, time.Minute, time.Millisecond)
	appendTo(t, path, text.String()[TailSize/2:])
	got := numbers(t, s, maxCycles+10)
	assert.Len(t, got, maxCycles)
	assert.Equal(t, uint32(11), got[0])
	assert.Equal(t, uint32(maxCycles+10), got[maxCycles-1])
	cycles, next := s.Cycles(maxCycles + 9)
	assert.Len(t, cycles, 1)
	cycles, _ = s.Cycles(next + 5)
	assert.Len(t, cycles, maxCycles, "a number that was never given out")
}

func TestFIFO(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	s, err := Open(path)
	run(t, s, err)
	for n := range 3 { // its writers come and go
		appendTo(t, path, gc(n+1)+"log\n")
	}
	assert.Equal(t, []uint32{1, 2, 3}, numbers(t, s, 3))
	assert.Equal(t, gc(1)+"log\n"+gc(2)+"log\n"+gc(3)+"log\n", string(s.Tail()))
}

func TestSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "d", "stderr.sock")
	s, err := Open("unix:" + path)
	run(t, s, err)
	var a, b net.Conn
	require.Eventually(t, func() bool {
		a, err = net.Dial("unix", path)
		return err == nil
	}, time.Minute, time.Millisecond)
	b, err = net.Dial("unix", path)
	require.NoError(t, err)
	_, err = a.Write([]byte(gc(1)[:20]))
	require.NoError(t, err)
	_, err = b.Write([]byte(gc(1)))
	require.NoError(t, err)
	numbers(t, s, 1)
	_, err = a.Write([]byte(gc(2)[20:]))
	require.NoError(t, err)
	numbers(t, s, 2)
	assert.Zero(t, s.Counts().Torn, "whole lines of each")
	require.NoError(t, a.Close())
	_, err = b.Write([]byte("panic: without an end"))
	require.NoError(t, err)
	require.NoError(t, b.Close())
	require.Eventually(t, func() bool { return strings.HasSuffix(string(s.Tail()), "without an end") }, time.Minute, time.Millisecond)

	second, err := Open("unix:" + path)
	require.NoError(t, err)
	assert.ErrorContains(t, second.Run(t.Context()), "somebody listens at "+path+" already")
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for where, says := range map[string]string{
		"":      "no file, FIFO or unix:PATH is named",
		"unix:": "the path of the socket is missing",
		dir:     dir + " is neither a regular file nor a FIFO",
	} {
		_, err := Open(where)
		assert.ErrorContains(t, err, "stderr: ")
		assert.ErrorContains(t, err, says)
	}
	_, err := OpenExec(dir, 7, 8)
	assert.ErrorIs(t, err, fs.ErrNotExist)
}

func FuzzExit(f *testing.F) {
	b, err := json.Marshal(Exit{PID: 1, Start: 2, Code: 3, Time: time.Unix(1e9, 0).UTC()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"pid":1,"code":1,"signal":9,"time":"2026-11-22T03:00:00Z"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, ok := parseExit(b)
		switch {
		case !ok:
			if e != (Exit{}) {
				t.Errorf("%+v beside not ok", e)
			}
		case e.PID <= 0, e.Time.IsZero(), e.Code < 0, e.Code > 255, e.Signal < 0, e.Signal > 127, e.Code != 0 && e.Signal != 0:
			t.Errorf("nobody ends like %+v", e)
		}
	})
}

// What a life's directory holds is of the service's own user: anything.
func FuzzLife(f *testing.F) {
	f.Add([]byte("panic: x\n"), []byte(gc(1)), []byte(gc(2)), []byte("{}"), []byte(""))
	f.Add([]byte("\ngoroutine 7 [select]:\n"), []byte(nil), []byte(nil), []byte(nil), []byte("9999\npanic: x\n\ngoroutine 1 [running]:\n"))
	f.Add([]byte("rest"), []byte(nil), []byte(nil), []byte(nil), []byte("18446744073709551615\npanic: x\n"))
	f.Add([]byte("rest"), []byte(nil), []byte(nil), []byte(nil), []byte("-1\npanic: x\n"))
	f.Fuzz(func(t *testing.T, tail, older, trace, exit, begins []byte) {
		dir := t.TempDir()
		for name, b := range map[string][]byte{tailFile: tail, traceFile + old: older, traceFile: trace, exitFile: exit, dumpFile: begins} {
			if err := os.MkdirAll(filepath.Join(dir, "7-8"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "7-8", name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := OpenExec(dir, 7, 8)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // reads what is there
		if err := s.Run(ctx); err != nil {
			t.Fatal(err)
		}
		// A part of the tail, and what the dump file says before it.
		got := s.Tail()
		if n := len(got); n > headSize+gapSize+TailSize {
			t.Errorf("a tail of %d bytes", n)
		}
		end := tail[:min(len(tail), TailSize)]
		if n := min(len(got), max(len(end)-foreign, 0)); !bytes.HasSuffix(end, got[len(got)-n:]) {
			t.Errorf("%q ends as nobody printed", got)
		}
		if text, _, ok := parseDump(begins); !ok && len(got) != len(end) || ok && len(got) > len(text)+gapSize+len(end) {
			t.Errorf("%d bytes of %d, with a dump file %q", len(got), len(end), begins)
		}
		if n := s.Counts(); n.Bytes != uint64(len(older)+len(trace)) {
			t.Errorf("read %d of %d bytes", n.Bytes, len(older)+len(trace))
		}
		s.Exit()
	})
}
