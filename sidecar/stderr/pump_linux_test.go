// SPDX-License-Identifier: Apache-2.0

package stderr

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/memguard/memguard-go/sidecar/target"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pump starts one to a pipe, whose other end it returns.
func pump(t testing.TB, keep bool) (p *Pump, out *os.File, done chan error) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { r.Close(); w.Close() })
	p, err = NewPump(int(w.Fd()), keep) // blocking, as Fd makes it
	require.NoError(t, err)
	if !p.Packets() {
		t.Skip("this kernel has no pipes in packet mode")
	}
	t.Cleanup(func() { p.Service().Close() })
	done = make(chan error, 1)
	go func() {
		err := p.Run()
		w.Close()
		done <- err
	}()
	return p, r, done
}

func write(t testing.TB, p *Pump, packets ...string) {
	t.Helper()
	for _, b := range packets {
		_, err := p.Service().WriteString(b)
		require.NoError(t, err)
	}
}

func TestPumpIsByteExact(t *testing.T) {
	t.Parallel()
	const size = 64 << 20
	in := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(in)
	p, out, done := pump(t, false)
	go func() {
		rnd := rand.New(rand.NewPCG(1, 1))
		for b := in; len(b) > 0; {
			n := min(1+rnd.IntN(3*4096), len(b))
			if _, err := p.Service().Write(b[:n]); err != nil {
				break
			}
			b = b[n:]
		}
		p.Service().Close()
	}()
	got, err := io.ReadAll(out)
	require.NoError(t, err)
	require.NoError(t, <-done)
	assert.True(t, bytes.Equal(in, got), "%d bytes of %d", len(got), size)
	assert.Equal(t, Counts{Bytes: size}, p.Counts())
}

// What is no line yet is not kept back.
func TestPumpDoesNotWait(t *testing.T) {
	t.Parallel()
	p, out, _ := pump(t, false)
	buf := make([]byte, 100)
	for _, text := range []string{"password: ", "g", "gc", "\x00", "gc ", "gc 1 @0.1s"} {
		write(t, p, text)
		n, err := out.Read(buf) // would wait for ever
		require.NoError(t, err)
		assert.Equal(t, text, string(buf[:n]))
	}
}

// While nobody reads the real standard error, collections do not wait, and who logs
// does only behind a megabyte; nothing is lost.
func TestPumpSlowConsumer(t *testing.T) {
	t.Parallel()
	p, out, done := pump(t, false)
	pieces := writes(printed["go1.26"])
	line := strings.Repeat("x", 1023) + "\n"
	for range 1000 {
		write(t, p, line)
		write(t, p, pieces...)
	}
	for range 1000 { // nothing of these stays
		write(t, p, pieces...)
	}
	require.Eventually(t, func() bool { return p.Counts().Cycles == 2000 }, time.Minute, time.Millisecond)
	flood := make(chan struct{})
	go func() {
		defer close(flood)
		for range 3 << 10 {
			if _, err := p.Service().WriteString(line); err != nil {
				return
			}
		}
		p.Service().Close()
	}()
	require.Eventually(t, func() bool { return p.Counts().Bytes > maxQueue }, time.Minute, time.Millisecond)
	select {
	case <-flood:
		t.Error("four megabytes went where nobody reads")
	case <-time.After(300 * time.Millisecond):
	}
	got, err := io.ReadAll(out)
	require.NoError(t, err)
	require.NoError(t, <-done)
	assert.True(t, strings.Repeat(line, 1000+(3<<10)) == string(got), "%d bytes", len(got))
}

// When the real standard error is closed, the service learns it as it would have.
func TestPumpBrokenPipe(t *testing.T) {
	t.Parallel()
	p, out, done := pump(t, false)
	write(t, p, "x")
	_, err := out.Read(make([]byte, 1))
	require.NoError(t, err)
	require.NoError(t, out.Close())
	write(t, p, "y")
	require.ErrorIs(t, <-done, syscall.EPIPE)
	_, err = p.Service().WriteString("z")
	assert.ErrorIs(t, err, syscall.EPIPE)
}

// A child of the service may keep the stream open for ever.
func TestPumpEnds(t *testing.T) {
	t.Parallel()
	p, out, done := pump(t, false)
	write(t, p, "last words", "gc ", "1")
	p.Drain()
	assert.False(t, p.Flush(), "somebody else has it open")
	got, err := io.ReadAll(out)
	require.NoError(t, err)
	require.NoError(t, <-done)
	assert.Equal(t, "last wordsgc 1", string(got))

	p, out, done = pump(t, false)
	write(t, p, "last words")
	require.NoError(t, p.Service().Close())
	p.Drain()
	assert.True(t, p.Flush())
	require.NoError(t, <-done)
	got, err = io.ReadAll(out)
	require.NoError(t, err)
	assert.Equal(t, "last words", string(got))
}

// Without packets nothing can be taken out, and nothing is.
func TestPumpWithoutPackets(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	var in, wake [2]int
	require.NoError(t, syscall.Pipe2(in[:], syscall.O_CLOEXEC))
	require.NoError(t, syscall.Pipe2(wake[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK))
	p, err := newPump(in[0], os.NewFile(uintptr(in[1]), ""), wake, int(w.Fd()), false, false)
	require.NoError(t, err)
	assert.False(t, p.Packets())
	write(t, p, append(writes(printed["go1.26"]), "rest")...)
	require.NoError(t, p.Service().Close())
	require.NoError(t, p.Run())
	w.Close()
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	assert.Equal(t, strings.ReplaceAll(printed["go1.26"], "|", "")+"rest", string(got))
}

// A full disk costs what is written, and nothing else.
func TestPumpFullDisk(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full here: ", err)
	}
	defer full.Close()
	p, err := NewPump(int(full.Fd()), false)
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- p.Run() }()
	write(t, p, strings.Repeat("x", 10_000))
	write(t, p, writes(printed["go1.26"])...)
	require.NoError(t, p.Service().Close())
	require.NoError(t, <-done)
	assert.Equal(t, Counts{Bytes: 10_000, Cycles: 1, Dropped: 10_000}, p.Counts())
}

func TestRecord(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	require.NoError(t, StateDir(dir))
	id := target.Identity{PID: os.Getpid(), Start: 77} // nobody's
	r, err := NewRecord(dir, id)
	require.NoError(t, err)
	p, out, done := pump(t, false)
	p.Record(r)
	var read sync.WaitGroup
	read.Go(func() { _, _ = io.Copy(io.Discard, out) })

	s, err := OpenExec(dir, id.PID, id.Start)
	run(t, s, err)
	other, err := OpenExec(dir, 1, id.Start)
	run(t, other, err) // of another pid namespace
	_, err = OpenExec(dir, id.PID, id.Start+1)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, exited := s.Exit()
	require.False(t, exited)

	const n = 4000 // more than a file holds
	for i := range n {
		write(t, p, writes(printed["go1.26"])...)
		write(t, p, strings.Repeat("x", 50), "\n")
		if i%1000 == 0 { // several rounds of writing
			require.Eventually(t, func() bool { return s.Counts().Cycles > uint64(i) }, time.Minute, time.Millisecond)
		}
	}
	write(t, p, "panic: the end\n")
	require.NoError(t, p.Service().Close())
	require.NoError(t, <-done)
	read.Wait()
	at := time.Now()
	require.NoError(t, r.Close(Exit{Signal: 9, Time: at, Counts: p.Counts()}))
	require.Eventually(t, func() bool { return s.Counts().Cycles == n }, time.Minute, time.Millisecond)
	want := strings.Repeat(strings.Repeat("x", 50)+"\n", n) + "panic: the end\n"
	assert.Equal(t, want[len(want)-TailSize:], string(s.Tail()))
	e, exited := other.Exit()
	require.True(t, exited)
	assert.True(t, at.Equal(e.Time))
	assert.Equal(t, Exit{PID: id.PID, Start: 77, Signal: 9, Time: e.Time, Counts: Counts{Bytes: uint64(len(want)), Cycles: n}}, e)
	for _, name := range []string{tailFile, tailFile + old, traceFile, traceFile + old} {
		st, err := os.Stat(filepath.Join(s.life.dir, name))
		require.NoError(t, err)
		assert.LessOrEqual(t, st.Size(), int64(maxTrace))
		assert.Equal(t, os.FileMode(0o600), st.Mode())
	}
}

// What is read back of a life is what a Stream would have kept, however fast it came:
// the beginning of a dump of any size, and how much is missing.
func TestRecordDump(t *testing.T) {
	t.Parallel()
	logs := strings.Repeat(strings.Repeat("x", 99)+"\n", 3000)
	for name, stream := range map[string]string{
		"on disk whole":     logs + "panic: boom\n" + running + stacks(2, 200),
		"almost":            logs + "panic: boom\n" + running + stacks(2, 550),
		"megabytes":         logs + "panic: boom\n" + running + stacks(2, 20000),
		"then more":         "panic: boom\n" + running + stacks(2, 2000) + logs[:20_000],
		"then a lot":        "panic: boom\n" + running + stacks(2, 2000) + logs,
		"another after one": "panic: boom\n" + running + stacks(2, 2000) + logs + "fatal error: again\n" + running + stacks(2, 2000),
	} {
		for _, piece := range []int{40_000, 1 << 30} { // of which each is written by itself, and all at once
			t.Run(fmt.Sprint(name, " in ", piece), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				id := target.Identity{PID: 4194999, Start: 1}
				r, err := NewRecord(dir, id)
				require.NoError(t, err)
				s, err := OpenExec(dir, id.PID, id.Start)
				require.NoError(t, err)
				for rest := stream; len(rest) > 0; {
					n := min(piece, len(rest))
					r.printed([]byte(rest[:n]))
					rest = rest[n:]
					if len(rest) < 1<<20 {
						require.Eventually(t, func() bool {
							r.mu.Lock()
							defer r.mu.Unlock()
							return len(r.last.buf) == 0
						}, time.Minute, time.Millisecond)
					}
				}
				require.NoError(t, r.Close(Exit{Time: time.Now()}))
				want := kept(stream, 4096)
				got := string(s.Tail())
				h1, n1 := begins(want)
				h2, n2 := begins(got)
				assert.Equal(t, n1, n2)
				assert.Equal(t, h1, h2)
				assert.True(t, want == got, "%d bytes, not %d", len(got), len(want))
				if name == "then a lot" {
					assert.NoFileExists(t, filepath.Join(s.life.dir, dumpFile), "it is over")
				}
				files, err := filepath.Glob(filepath.Join(s.life.dir, "*"))
				require.NoError(t, err)
				sum := int64(0)
				for _, f := range files {
					st, err := os.Stat(f)
					require.NoError(t, err)
					assert.Equal(t, os.FileMode(0o600), st.Mode())
					sum += st.Size()
				}
				assert.LessOrEqual(t, sum, int64(2*TailSize+headSize+maxNumber+maxExit))
			})
		}
	}
}

func TestStateDir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	assert.ErrorContains(t, StateDir(dir), "has mode 0755: others may look")
	assert.NoError(t, StateDir(filepath.Join(dir, "a", "b")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o600))
	assert.Error(t, StateDir(filepath.Join(dir, "f")))
}

// Old lives go, those that still run stay, and so does what is not ours.
func TestForget(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	start, err := target.StartTicks(os.Getpid())
	require.NoError(t, err)
	alive := target.Identity{PID: os.Getpid(), Start: start}
	r, err := NewRecord(dir, alive)
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "notes"), 0o700))
	for i := range 3 * maxLives {
		r, err := NewRecord(dir, target.Identity{PID: 4194999, Start: uint64(i)})
		require.NoError(t, err)
		require.NoError(t, r.Close(Exit{Time: time.Now()}))
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, maxLives+2)
	require.NoError(t, r.Close(Exit{Time: time.Now()}))
	_, err = OpenExec(dir, 4194999, 3*maxLives-1)
	assert.NoError(t, err, "the last one is there")
}

// discard reads a pipe as fast as it can.
func discard(b *testing.B) *os.File {
	r, w, err := os.Pipe()
	require.NoError(b, err)
	go func() {
		_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, 64<<10))
	}()
	b.Cleanup(func() { w.Close() })
	return w
}

// A service's writes of one log line, with us in between and without, in turn.
func BenchmarkPump(b *testing.B) {
	for name, size := range map[string]int{"line": 100, "4KiB": 4096, "64KiB": 64 << 10} {
		b.Run(name, func(b *testing.B) {
			packet := append(bytes.Repeat([]byte("x"), size-1), '\n')
			direct := discard(b)
			p, err := NewPump(int(discard(b).Fd()), false)
			require.NoError(b, err)
			go func() { _ = p.Run() }()
			const turn = 200
			var with, without time.Duration
			b.SetBytes(int64(size * turn))
			b.ReportAllocs()
			for b.Loop() {
				t := time.Now()
				for range turn {
					_, err = direct.Write(packet)
				}
				without += time.Since(t)
				t = time.Now()
				for range turn {
					if _, e := p.Service().Write(packet); e != nil {
						err = errors.Join(err, e)
					}
				}
				with += time.Since(t)
			}
			require.NoError(b, err)
			b.StopTimer()
			p.Service().Close()
			b.ReportMetric(with.Seconds()/without.Seconds(), "times-direct")
			b.ReportMetric(float64(size)*turn*float64(b.N)/with.Seconds()/1e6, "MB/s-through")
		})
	}
}
