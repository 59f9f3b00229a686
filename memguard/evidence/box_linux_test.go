// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The test binary runs itself again as a process that writes a box until it is
// killed. jobEnv is the directory, and with a number of bytes after a colon it
// also fills its memory, a MiB for each record.
const jobEnv = "MEMGUARD_TEST_BOX"

func init() {
	job := os.Getenv(jobEnv)
	if job == "" {
		return
	}
	dir, grow, _ := strings.Cut(job, ":")
	b, err := OpenBox(BoxConfig{Dir: dir, Service: "orders", Layout: 7})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	var held [][]byte
	for n := uint64(1); ; n++ {
		if err := b.Record(time.Now(), 1, number(n)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if grow != "" {
			os.Stdout.WriteString(strconv.FormatUint(n, 10) + "\n") // it is written by now
			p := make([]byte, 1<<20)
			for i := 0; i < len(p); i += 4096 {
				p[i] = 1
			}
			held = append(held, p)
			runtime.KeepAlive(held)
		} else if n%1000 == 0 {
			os.Stdout.WriteString(strconv.FormatUint(n, 10) + "\n")
		}
	}
}

func number(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

func writer(t *testing.T, job string) (*exec.Cmd, *bufio.Scanner) {
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), jobEnv+"="+job)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	t.Cleanup(func() {
		if cmd.Process != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd, bufio.NewScanner(out)
}

func open(t *testing.T, cfg BoxConfig) *Box {
	b, err := OpenBox(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

// die is what the end of a process without Close does.
func (b *Box) die() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unmap()
	b.file.Close()
	b.err = errClosed
}

func read(t *testing.T, path string) *Recording {
	r, err := ReadBox(path)
	require.NoError(t, err)
	return r
}

func TestBoxTellsWhatWasWritten(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "deep")
	begin := time.Now()
	b := open(t, BoxConfig{Dir: dir, Service: "my/ör ders", Build: "v1.2.3", Layout: 7})
	at := time.Unix(1700000000, 123456789)
	require.NoError(t, b.Record(at, 1, []byte("one")))
	require.NoError(t, b.Note(at.Add(time.Second), 200, nil))
	require.NoError(t, b.Record(at.Add(-time.Hour), 3, make([]byte, PayloadSize)))
	require.Error(t, b.Record(at, 3, make([]byte, PayloadSize+1)), "too long")
	require.NoError(t, b.Check())

	r := read(t, b.Path())
	assert.Equal(t, Running, r.State)
	assert.Equal(t, "my__r_ders", r.Service)
	assert.Equal(t, "v1.2.3", r.Build)
	assert.Equal(t, os.Getpid(), r.PID)
	assert.EqualValues(t, 7, r.Layout)
	assert.Len(t, r.Boot, 36)
	assert.WithinRange(t, r.Start, begin, time.Now())
	assert.Zero(t, r.Torn)
	assert.Zero(t, r.Missing)
	require.Len(t, r.Records, 3)
	for i, want := range []BoxRecord{
		{1, at, 1, []byte("one")},
		{2, at.Add(time.Second), 200, []byte{}},
		{3, at.Add(-time.Hour), 3, make([]byte, PayloadSize)},
	} {
		assert.Equal(t, want, r.Records[i])
	}

	st, err := os.Stat(b.Path())
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o600), st.Mode())
	assert.LessOrEqual(t, st.Size(), int64(1<<20))
	assert.GreaterOrEqual(t, st.Sys().(*syscall.Stat_t).Blocks*512, st.Size(), "its space is allocated")

	require.NoError(t, b.Close())
	require.NoError(t, b.Close())
	require.Error(t, b.Record(at, 1, nil))
	require.Error(t, b.Note(at, 1, nil))
	require.Error(t, b.Check())
	r = read(t, b.Path())
	assert.Equal(t, Closed, r.State)
	assert.WithinRange(t, r.End, r.Start, time.Now())
	assert.Len(t, r.Records, 3)
}

func TestBoxKeepsTheLastAndTheNotes(t *testing.T) {
	t.Parallel()
	b := open(t, BoxConfig{Dir: t.TempDir(), Service: "orders"})
	slots := uint64(b.at.records)
	var at time.Time
	require.NoError(t, b.Note(at, 2, []byte("first words")))
	total := 3*slots + 17
	for n := range total {
		require.NoError(t, b.Record(at, 1, number(n)))
		if n == 2*slots {
			require.NoError(t, b.Note(at, 2, []byte("later")))
		}
	}
	r := read(t, b.Path())
	require.Len(t, r.Records, int(slots)+2)
	assert.Zero(t, r.Torn)
	assert.Zero(t, r.Missing)
	assert.Equal(t, "first words", string(r.Records[0].Payload), "not crowded out")
	n := total - slots
	for i, rec := range r.Records {
		if i > 0 {
			require.Greater(t, rec.Seq, r.Records[i-1].Seq)
		}
		if rec.Kind == 1 {
			require.Equal(t, number(n), rec.Payload)
			n++
		}
	}
	assert.Equal(t, total, n)

	// Notes crowd each other out, and nothing else.
	for range 2 * b.at.notes {
		require.NoError(t, b.Note(at, 2, nil))
	}
	r = read(t, b.Path())
	assert.Len(t, r.Records, b.at.records+b.at.notes)
	assert.Zero(t, r.Missing)
}

func TestBoxConfigurations(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]BoxConfig{
		"no directory": {},
		"too small":    {Dir: t.TempDir(), Bytes: 4096},
		"too large":    {Dir: t.TempDir(), Bytes: 1 << 30},
		"below a file": {Dir: "/proc/self/exe/x"},
	} {
		_, err := OpenBox(cfg)
		require.Error(t, err, name)
	}
	b := open(t, BoxConfig{Dir: t.TempDir(), Bytes: 64<<10 + 77})
	assert.Less(t, b.at.size(), int64(64<<10+77))
	assert.NotEmpty(t, read(t, b.Path()).Service, "the executable's name")
	assert.Contains(t, read(t, b.Path()).Build, "go1.")
}

func TestBoxAllocatesNothing(t *testing.T) {
	b := open(t, BoxConfig{Dir: t.TempDir()})
	payload, at := make([]byte, PayloadSize), time.Now()
	assert.Zero(t, testing.AllocsPerRun(1000, func() { _ = b.Record(at, 1, payload) }))
	assert.Zero(t, testing.AllocsPerRun(1000, func() { _ = b.Note(at, 1, payload) }))
}

func TestBoxManyWriters(t *testing.T) {
	t.Parallel()
	b := open(t, BoxConfig{Dir: t.TempDir()})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for n := range uint64(2000) {
				assert.NoError(t, b.Record(time.Now(), 1, number(n)))
				assert.NoError(t, b.Note(time.Now(), 2, nil))
			}
		})
	}
	all.Go(func() {
		for range 20 {
			r, err := ReadBox(b.Path()) // at work: torn ones are possible
			if assert.NoError(t, err) {
				assert.Equal(t, Running, r.State)
			}
		}
	})
	all.Wait()
	r := read(t, b.Path())
	assert.EqualValues(t, 16000, r.Records[len(r.Records)-1].Seq)
	assert.Zero(t, r.Torn)
	assert.Zero(t, r.Missing)
}

// The file is made shorter under the mapping: the kernel would end the process
// with SIGBUS.
func TestBoxOutlivesItsFile(t *testing.T) {
	t.Parallel()
	b := open(t, BoxConfig{Dir: t.TempDir()})
	require.NoError(t, os.Truncate(b.Path(), 4096))
	require.ErrorIs(t, b.Check(), ErrLost)
	for range 3 {
		require.ErrorIs(t, b.Record(time.Now(), 1, nil), ErrLost)
		require.ErrorIs(t, b.Note(time.Now(), 1, nil), ErrLost)
	}
	r := read(t, b.Path())
	assert.Empty(t, r.Records)
	require.ErrorIs(t, b.Close(), ErrLost)
	require.NoError(t, b.Close())

	gone := open(t, BoxConfig{Dir: t.TempDir()})
	require.NoError(t, os.Remove(gone.Path()))
	require.NoError(t, gone.Record(time.Now(), 1, nil))
	require.ErrorIs(t, gone.Check(), ErrLost)
}

func TestPreviousBoxes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	none, err := Previous(filepath.Join(dir, "none"), "orders")
	require.NoError(t, err)
	assert.Empty(t, none)

	dead := open(t, BoxConfig{Dir: dir, Service: "orders"})
	require.NoError(t, dead.Record(time.Now(), 1, []byte("last words")))
	dead.die()
	live := open(t, BoxConfig{Dir: dir, Service: "orders"})
	other := open(t, BoxConfig{Dir: dir, Service: "orders-2"})
	other.die()

	var mu sync.Mutex
	var found []string
	var all sync.WaitGroup
	for range 8 { // starts at the same moment
		all.Go(func() {
			paths, err := Previous(dir, "orders")
			assert.NoError(t, err)
			mu.Lock()
			defer mu.Unlock()
			found = append(found, paths...)
		})
	}
	all.Wait()
	require.Len(t, found, 1, "each is told once")
	r := read(t, found[0])
	assert.Equal(t, Died, r.State)
	assert.Equal(t, "last words", string(r.Records[0].Payload))
	assert.FileExists(t, live.Path())
	assert.FileExists(t, other.Path(), "another service's")
	boxes, err := Boxes(dir)
	require.NoError(t, err)
	assert.Equal(t, []string{found[0], live.Path(), other.Path()}, boxes)
}

func TestBoxesAreBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var deaths []string
	for i := range 9 {
		b := open(t, BoxConfig{Dir: dir, Service: "orders", Keep: 3, Bytes: 64 << 10})
		if i%3 == 0 {
			b.die()
			deaths = append(deaths, b.Path())
		} else {
			require.NoError(t, b.Close())
		}
	}
	b := open(t, BoxConfig{Dir: dir, Service: "orders", Keep: 3, Bytes: 64 << 10})
	boxes, err := Boxes(dir)
	require.NoError(t, err)
	assert.Equal(t, append(deaths, b.Path()), boxes, "deaths are kept, not what ended well")
}

// What a hostile or careless hand leaves in the directory harms nobody.
func TestBoxAmongStrangers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := func(i int, suffix string) string {
		return filepath.Join(dir, fmt.Sprintf("blackbox-20261121T00000%d.000000000Z-orders%s", i, suffix))
	}
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("secret"), 0o600))
	require.NoError(t, os.WriteFile(name(1, ".box"), []byte("half"), 0o600))
	require.NoError(t, os.WriteFile(name(2, ".box"), nil, 0o600))
	require.NoError(t, os.Symlink(secret, name(3, ".box")))
	require.NoError(t, syscall.Mkfifo(name(4, ".box"), 0o600))
	require.NoError(t, os.Mkdir(name(5, ".box"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "blackbox-orders.box"), nil, 0o600))
	stale, young := filepath.Join(dir, ".tmp-blackbox-1"), filepath.Join(dir, ".tmp-blackbox-2")
	for _, path := range []string{stale, young} {
		require.NoError(t, os.WriteFile(path, nil, 0o600))
	}
	past := time.Now().Add(-2 * time.Hour)
	require.NoError(t, os.Chtimes(stale, past, past))
	if os.Geteuid() == 0 {
		require.NoError(t, os.WriteFile(name(6, ".box"), nil, 0o600))
		require.NoError(t, os.Chown(name(6, ".box"), 12345, 12345))
	}

	previous, err := Previous(dir, "orders")
	require.NoError(t, err)
	assert.Equal(t, []string{name(2, ".old"), name(1, ".old")}, previous)
	for _, path := range append(previous, name(3, ".box"), name(4, ".box"), name(5, ".box"), secret, filepath.Join(dir, "none")) {
		_, err := ReadBox(path)
		require.ErrorContains(t, err, path)
	}
	_, err = ReadBox(previous[0])
	require.ErrorIs(t, err, ErrNoBox)
	assert.NoFileExists(t, stale)
	assert.FileExists(t, young)
	if os.Geteuid() == 0 {
		assert.FileExists(t, name(6, ".box"), "another user's")
	}
	b := open(t, BoxConfig{Dir: dir, Service: "orders", Keep: 1})
	assert.Equal(t, Running, read(t, b.Path()).State)
	content, err := os.ReadFile(secret)
	require.NoError(t, err)
	assert.Equal(t, "secret", string(content))
}

// Killed at any moment: what was written before is there, one record at most is
// torn, and the next start finds it.
func TestBoxSurvivesKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range 50 {
		cmd, lines := writer(t, dir)
		require.NoError(t, cmd.Start())
		require.True(t, lines.Scan(), "it writes")
		time.Sleep(rand.N(20 * time.Millisecond))
		require.NoError(t, cmd.Process.Kill())
		last := lines.Text()
		for lines.Scan() {
			last = lines.Text()
		}
		_ = cmd.Wait()
		written, err := strconv.ParseUint(last, 10, 64)
		require.NoError(t, err, last)

		previous, err := Previous(dir, "orders")
		require.NoError(t, err)
		require.Len(t, previous, 1)
		r := read(t, previous[0])
		require.Equal(t, Died, r.State)
		require.Equal(t, cmd.Process.Pid, r.PID)
		require.LessOrEqual(t, r.Torn, 1)
		require.Zero(t, r.Missing)
		end := r.Records[len(r.Records)-1]
		require.GreaterOrEqual(t, end.Seq, written)
		for i, rec := range r.Records {
			require.Equal(t, number(rec.Seq), rec.Payload)
			require.Equal(t, end.Seq-uint64(len(r.Records)-1-i), rec.Seq)
		}
	}
	boxes, err := Boxes(dir)
	require.NoError(t, err)
	assert.LessOrEqual(t, len(boxes), 5, "four, and the last one")
}

// The kernel's OOM killer takes the process: every record that was written
// before is there.
func TestBoxSurvivesTheOOMKiller(t *testing.T) {
	t.Parallel()
	group, err := sandbox.New("box", 96<<20)
	if errors.Is(err, sandbox.ErrUnsupported) {
		t.Skip(err)
	}
	require.NoError(t, err)
	defer group.Close()
	dir := t.TempDir()
	cmd, lines := writer(t, dir+":grow")
	require.NoError(t, group.Start(cmd))
	last := ""
	for lines.Scan() {
		last = lines.Text()
	}
	require.Error(t, cmd.Wait())
	kills, err := group.Kills()
	require.NoError(t, err)
	require.EqualValues(t, 1, kills)
	written, err := strconv.ParseUint(last, 10, 64)
	require.NoError(t, err, last)
	require.Greater(t, written, uint64(10))

	previous, err := Previous(dir, "orders")
	require.NoError(t, err)
	require.Len(t, previous, 1)
	r := read(t, previous[0])
	assert.Equal(t, Died, r.State)
	assert.Zero(t, r.Torn)
	require.GreaterOrEqual(t, len(r.Records), int(written))
	for i, rec := range r.Records {
		require.EqualValues(t, i+1, rec.Seq)
	}
}

// Two processes of one service, at once, in one directory.
func TestBoxTwoProcesses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var pids []int
	for range 2 {
		cmd, lines := writer(t, dir)
		require.NoError(t, cmd.Start())
		require.True(t, lines.Scan())
		go func() {
			for lines.Scan() { // a full pipe would stop it
			}
		}()
		pids = append(pids, cmd.Process.Pid)
		defer func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}()
	}
	previous, err := Previous(dir, "orders")
	require.NoError(t, err)
	assert.Empty(t, previous, "both live")
	boxes, err := Boxes(dir)
	require.NoError(t, err)
	require.Len(t, boxes, 2)
	for i, path := range boxes {
		r := read(t, path)
		assert.Equal(t, Running, r.State)
		assert.Equal(t, pids[i], r.PID)
	}
}

// tmpfs mounts a small disk.
func tmpfs(t *testing.T, size string) string {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skip("no file system may be mounted here: ", err)
	}
	t.Cleanup(func() { assert.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

func TestBoxOnAFullDisk(t *testing.T) {
	t.Parallel()
	dir := tmpfs(t, "1536k")
	b := open(t, BoxConfig{Dir: dir, Service: "orders"})
	_, err := OpenBox(BoxConfig{Dir: dir, Service: "orders"})
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, dir)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 1, "nothing of the second is left")

	// Full to the last byte, and the first goes on.
	f, err := os.Create(filepath.Join(dir, "fill"))
	require.NoError(t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	for n := range uint64(10000) {
		require.NoError(t, b.Record(time.Now(), 1, number(n)))
	}
	require.NoError(t, b.Check())
	assert.Len(t, read(t, b.Path()).Records, b.at.records)
}

func TestStoreSparesTheDisk(t *testing.T) {
	t.Parallel()
	dir := tmpfs(t, "1m")
	s := &Store{Dir: dir, Spare: 512 << 10}
	_, err := s.Put("fits", text(strings.Repeat("x", 300<<10)))
	require.NoError(t, err)
	_, err = s.Put("large", text(strings.Repeat("x", 300<<10)))
	require.ErrorIs(t, err, ErrDisk)
	s.Spare = 2 << 20
	_, err = s.Put("one byte", text("x"))
	require.ErrorIs(t, err, ErrDisk)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 1)

	// Also where only the disk itself says so, in the midst of it.
	s.Spare = 1
	require.NoError(t, os.WriteFile(filepath.Join(dir, "others"), make([]byte, 500<<10), 0o600))
	_, err = s.Put("large", func(w io.Writer) error {
		_ = os.WriteFile(filepath.Join(dir, "more"), make([]byte, 200<<10), 0o600)
		_, err := w.Write(make([]byte, 180<<10))
		return err
	})
	require.ErrorIs(t, err, syscall.ENOSPC)
	assert.True(t, inMemory(dir))
}

// BenchmarkBox writes records with a full payload; the bound is 1 us. Beside it, in
// turns that change places, the same bytes go to the same places of a file with
// pwrite(2), which outlives a kill as well.
func BenchmarkBox(b *testing.B) {
	box, err := OpenBox(BoxConfig{Dir: b.TempDir()})
	require.NoError(b, err)
	defer box.Close()
	file, err := os.Create(filepath.Join(b.TempDir(), "file"))
	require.NoError(b, err)
	defer file.Close()
	payload, at := make([]byte, PayloadSize), time.Now()
	var buf [recordSize]byte
	var seq uint64
	record := func() error { return box.Record(at, 1, payload) }
	pwrite := func() error {
		seq++
		encodeRecord(&buf, seq, at, 1, payload)
		_, err := file.WriteAt(buf[:], headerSize+int64(seq%uint64(box.at.records))*recordSize)
		return err
	}
	const batch = 1000
	took := func(do func() error) time.Duration {
		begin := time.Now()
		for range batch {
			if err := do(); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(begin)
	}
	for range box.at.records/batch + 1 { // its blocks are there, as those of the box are
		took(pwrite)
	}
	var ours, theirs []time.Duration
	for turn := 0; b.Loop(); turn++ {
		if turn%2 == 0 {
			ours = append(ours, took(record))
			theirs = append(theirs, took(pwrite))
		} else {
			theirs = append(theirs, took(pwrite))
			ours = append(ours, took(record))
		}
	}
	b.ReportMetric(float64(median(ours))/batch, "ns/record")
	b.ReportMetric(float64(median(theirs))/batch, "ns/pwrite")
	b.ReportMetric(float64(median(theirs))/float64(median(ours)), "pwrite/record")
	b.ReportMetric(testing.AllocsPerRun(100, func() { _ = record() }), "allocs/record")
}
