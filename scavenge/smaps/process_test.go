// SPDX-License-Identifier: Apache-2.0

package smaps

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func linux(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux procfs")
	}
}

// child starts a process that does nothing, so that its numbers stand still.
func child(t *testing.T) *exec.Cmd {
	t.Helper()
	linux(t)
	cmd := exec.Command("cat")
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
	})
	_, err = stdin.Write([]byte("x")) // once it answers, it has started up
	require.NoError(t, err)
	_, err = io.ReadFull(stdout, make([]byte, 1))
	require.NoError(t, err)
	return cmd
}

// The sums over a real process are what the kernel itself sums up.
func TestSumsOfRealProcess(t *testing.T) {
	t.Parallel()
	pid := child(t).Process.Pid
	p, err := Read("/proc", pid, Hints{})
	require.NoError(t, err)
	assert.Empty(t, p.SyntaxErrors)
	assert.Zero(t, p.Overlaps)
	for i := range p.Mappings {
		m := &p.Mappings[i]
		assert.Empty(t, m.Extra, "a field of this kernel that has no name here")
		assert.NotEmpty(t, m.VmFlags)
		size, ok := m.Bytes(Size)
		assert.True(t, ok)
		assert.Equal(t, m.Len(), size)
	}

	total := p.Total()
	rollup, err := ReadRollup("/proc", pid)
	require.NoError(t, err)
	assert.Equal(t, "[rollup]", rollup.Path)
	for k, want := range rollup.All() {
		switch k {
		case PssAnon, PssFile, PssShmem: // only there
			continue
		}
		got, ok := total.Bytes(k)
		assert.True(t, ok, "%v", k)
		// Every mapping's share is cut to whole KiB.
		slack := 0.0
		if k == Pss || k == PssDirty || k == SwapPss || k == Locked {
			slack = float64(len(p.Mappings) << 10)
		}
		assert.InDelta(t, float64(want), float64(got), slack, "%v", k)
	}

	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "statm"))
	require.NoError(t, err)
	pages, err := strconv.ParseUint(strings.Fields(string(b))[1], 10, 64)
	require.NoError(t, err)
	rss, ok := total.Bytes(Rss)
	require.True(t, ok)
	// statm leaves out what each CPU has counted on its own: up to 2 batches of 32 pages for each of 3 counters.
	slack := 3 * 2 * 32 * runtime.NumCPU() * os.Getpagesize()
	assert.InDelta(t, float64(pages)*float64(os.Getpagesize()), float64(rss), float64(slack))

	var sum uint64
	for k := range Kind(numKinds) {
		f := p.ByKind(k)
		n, ok := f.Bytes(Rss)
		assert.True(t, ok)
		sum += n
	}
	assert.Equal(t, rss, sum, "every mapping has one kind")
	for _, k := range []Kind{Binary, File, Brk, Stack, Special} {
		f := p.ByKind(k)
		n, _ := f.Bytes(Size)
		assert.NotZero(t, n, "%v", k)
	}
}

// This very process, which is written in Go.
func TestSelf(t *testing.T) {
	t.Parallel()
	linux(t)
	p, err := Read("/proc", os.Getpid(), Hints{Go: true})
	require.NoError(t, err)
	assert.Empty(t, p.SyntaxErrors)
	exe, err := os.Executable()
	require.NoError(t, err)
	for i := range p.Mappings {
		if m := &p.Mappings[i]; m.Path != "" && m.Path == exe {
			assert.Equal(t, Binary, m.Kind)
		}
	}
	for _, k := range []Kind{GoHeap, GoMetadata, Binary, Stack} {
		f := p.ByKind(k)
		n, ok := f.Bytes(Rss)
		assert.True(t, ok)
		assert.NotZero(t, n, "%v", k)
	}
}

func TestGone(t *testing.T) {
	t.Parallel()
	linux(t)
	_, err := Read("/proc", math.MaxInt32, Hints{})
	assert.ErrorIs(t, err, fs.ErrNotExist)
	assert.ErrorContains(t, err, "/proc/2147483647/smaps")
	_, err = ReadRollup("/proc", math.MaxInt32)
	assert.ErrorIs(t, err, fs.ErrNotExist)
}

func TestZombie(t *testing.T) {
	t.Parallel()
	linux(t)
	cmd := exec.Command("cat")
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	pid := cmd.Process.Pid

	// Opened while it lived, read after its end.
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "smaps"))
	require.NoError(t, err)
	defer f.Close()
	stdin.Close()
	for { // until it is a zombie: nobody has waited for it
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		require.NoError(t, err)
		if strings.Contains(string(b), ") Z ") {
			break
		}
		runtime.Gosched()
	}
	_, err = Read("/proc", pid, Hints{})
	assert.ErrorIs(t, err, ErrExited)
	assert.NotErrorIs(t, err, fs.ErrNotExist)
	_, err = ReadRollup("/proc", pid)
	assert.ErrorIs(t, err, ErrExited)

	require.NoError(t, cmd.Wait())
	p, err := Parse(f, Hints{})
	assert.ErrorIs(t, err, syscall.ESRCH)
	assert.Empty(t, p.Mappings)
	err = diagnose(filepath.Dir(f.Name()), "smaps", true, err)
	assert.ErrorIs(t, err, ErrExited)
	assert.ErrorIs(t, err, fs.ErrNotExist)
}

func TestNoPermission(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "7"), 0o700))
	name := filepath.Join(dir, "7", "smaps")
	require.NoError(t, os.WriteFile(name, nil, 0o000))
	if f, err := os.Open(name); err == nil {
		f.Close()
		t.Skip("runs with the right to read everything")
	}
	_, err := Read(dir, 7, Hints{})
	assert.ErrorIs(t, err, fs.ErrPermission)
}

// tree makes a procfs of one process.
func tree(t *testing.T, pid string, files map[string]string) (proc string) {
	t.Helper()
	proc = t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(proc, pid), 0o700))
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(proc, pid, name), []byte(text), 0o600))
	}
	return proc
}

func TestEmpty(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, stat string
		want       error
	}{
		{"kernel thread", "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0", ErrKernelThread},
		{"zombie", "9 (a) b) (c) Z 1 9 9 0 -1 4228356 0", ErrExited},
		{"exiting", "9 (x) R 1 9 9 0 -1 4194564 0", ErrExited},
		{"alive", "9 (x) S 1 9 9 0 -1 4194560 0", ErrEmpty},
		{"torn", "9 (x", ErrEmpty},
		{"nothing", "", ErrEmpty},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			proc := tree(t, "9", map[string]string{"smaps": "", "smaps_rollup": "", "stat": tc.stat})
			_, err := Read(proc, 9, Hints{})
			require.ErrorIs(t, err, tc.want)
			assert.ErrorContains(t, err, "9/smaps")
			_, err = ReadRollup(proc, 9)
			assert.ErrorIs(t, err, tc.want)
		})
	}
	proc := tree(t, "9", map[string]string{"smaps": ""}) // stat went away in between
	_, err := Read(proc, 9, Hints{})
	assert.ErrorIs(t, err, ErrExited)
	assert.ErrorIs(t, err, fs.ErrNotExist)
}

func TestGarbageFile(t *testing.T) {
	t.Parallel()
	proc := tree(t, "9", map[string]string{"smaps": "not\nsmaps\n", "stat": "9 (x) S 1 9 9 0 -1 4194560 0"})
	_, err := Read(proc, 9, Hints{})
	var syntax *SyntaxError
	require.ErrorAs(t, err, &syntax)
	assert.Equal(t, 1, syntax.Line)
	assert.ErrorContains(t, err, "9/smaps")
}

const rollup = `55cd2a19f000-7ffd707d4000 ---p 00000000 00:00 0                          [rollup]
Rss:                1000 kB
Pss:                 900 kB
Pss_Dirty:           100 kB
Pss_Anon:            300 kB
Pss_File:            400 kB
Pss_Shmem:           200 kB
Swap:          123456789 kB
`

func TestParseRollup(t *testing.T) {
	t.Parallel()
	m, err := ParseRollup(strings.NewReader(rollup))
	require.NoError(t, err)
	for k, want := range map[Field]uint64{Rss: 1000 << 10, PssAnon: 300 << 10, PssFile: 400 << 10, PssShmem: 200 << 10, Swap: 123456789 << 10} {
		n, ok := m.Bytes(k)
		assert.True(t, ok)
		assert.Equal(t, want, n)
	}
	_, ok := m.Bytes(Size)
	assert.False(t, ok)

	_, err = ParseRollup(strings.NewReader(""))
	assert.ErrorIs(t, err, ErrEmpty)

	m, err = ParseRollup(strings.NewReader(rollup[:len(rollup)-4]))
	var syntax *SyntaxError
	require.ErrorAs(t, err, &syntax)
	assert.Equal(t, 8, syntax.Line)
	_, ok = m.Bytes(Rss)
	assert.True(t, ok, "what could be read is there")
	_, ok = m.Bytes(Swap)
	assert.False(t, ok)

	_, err = ParseRollup(strings.NewReader(rollup + kernels[0].text))
	assert.ErrorContains(t, err, "second mapping")

	gone := errors.New("gone")
	_, err = ParseRollup(io.MultiReader(strings.NewReader(rollup), iotest.ErrReader(gone)))
	assert.ErrorIs(t, err, gone)
}

func mapping(start, end, fields string) string {
	return start + "-" + end + " rw-p 00000000 00:00 0 \n" + fields
}

func TestSumsOfUnknown(t *testing.T) {
	t.Parallel()
	const rss, lazy = "Rss: 4 kB\n", "LazyFree: 4 kB\n"
	p, err := Parse(strings.NewReader(mapping("1000", "2000", rss+lazy)+mapping("3000", "4000", rss)), Hints{})
	require.NoError(t, err)
	total, brk := p.Total(), p.ByKind(Brk)
	n, ok := total.Bytes(Rss)
	assert.True(t, ok)
	assert.Equal(t, uint64(8<<10), n)
	_, ok = total.Bytes(LazyFree)
	assert.False(t, ok, "one mapping does not say")
	n, ok = brk.Bytes(Rss)
	assert.True(t, ok, "no break, and the kernel prints Rss: 0")
	assert.Zero(t, n)
	_, ok = brk.Bytes(LazyFree)
	assert.False(t, ok)

	var none Process
	total = none.Total()
	_, ok = total.Bytes(Rss)
	assert.False(t, ok, "nothing was read: nothing is known")

	huge := "Rss: " + strconv.FormatUint(math.MaxUint64>>10, 10) + " kB\n"
	p, err = Parse(strings.NewReader(mapping("1000", "2000", huge)+mapping("3000", "4000", huge)), Hints{})
	require.NoError(t, err)
	total = p.Total()
	_, ok = total.Bytes(Rss)
	assert.False(t, ok, "a sum above 2^64 is unknown, not small")
}

// The address space may change between two reads of the kernel's pieces.
func TestOverlap(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, text string
		starts     []uint64
		overlaps   int
	}{
		{"seen twice", mapping("1000", "3000", "") + mapping("1000", "3000", ""), []uint64{0x1000}, 0},
		{"grew", mapping("1000", "2000", "") + mapping("1000", "3000", ""), []uint64{0x1000}, 0},
		{"merged with both before", mapping("1000", "2000", "") + mapping("3000", "4000", "") + mapping("1000", "5000", ""), []uint64{0x1000}, 0},
		{"shrank at the end", mapping("1000", "4000", "") + mapping("3000", "5000", ""), []uint64{0x1000, 0x3000}, 1},
		{"touches", mapping("1000", "2000", "") + mapping("2000", "3000", ""), []uint64{0x1000, 0x2000}, 0},
		{"backwards", mapping("5000", "6000", "") + mapping("1000", "2000", ""), []uint64{0x5000, 0x1000}, 1},
	} {
		p, err := Parse(strings.NewReader(tc.text), Hints{Go: true})
		require.NoError(t, err)
		var starts []uint64
		for i := range p.Mappings {
			starts = append(starts, p.Mappings[i].Start)
		}
		assert.Equal(t, tc.starts, starts, tc.name)
		assert.Equal(t, tc.overlaps, p.Overlaps, tc.name)
	}
}

// Files in memory have no path that tells them; their device does.
func TestTmpfs(t *testing.T) {
	t.Parallel()
	const (
		text = `00400000-00401000 r-xp 00000000 00:2b 5                                  /bin/x
7f0000000000-7f0000001000 rw-s 00000000 00:1a 5                          /scratch/cache
7f0000002000-7f0000003000 rw-s 00000000 00:2b 6                          /var/lib/on overlay
7f0000004000-7f0000005000 r--p 00000000 00:2b 7                          /lib/libc.so.6
`
		mounts = `21 1 0:43 / / rw - overlay overlay rw,lowerdir=/l
22 21 0:26 / /scratch rw,nosuid shared:4 - tmpfs tmpfs rw,size=1g
torn
23 21 x:y / /run rw - tmpfs tmpfs rw
`
	)
	kinds := func(files map[string]string) (kinds []Kind) {
		p, err := Read(tree(t, "9", files), 9, Hints{})
		require.NoError(t, err)
		for i := range p.Mappings {
			kinds = append(kinds, p.Mappings[i].Kind)
		}
		return kinds
	}
	assert.Equal(t, []Kind{Binary, Shmem, File, File}, kinds(map[string]string{"smaps": text, "mountinfo": mounts}))
	assert.Equal(t, []Kind{Binary, File, File, File}, kinds(map[string]string{"smaps": text}), "no mountinfo: the path is all there is")
}

func TestParseMaps(t *testing.T) {
	t.Parallel()
	linux(t)
	b, err := os.ReadFile("/proc/self/maps")
	require.NoError(t, err)
	p, err := Parse(bytes.NewReader(b), Hints{Go: true})
	require.NoError(t, err)
	assert.Len(t, p.Mappings, bytes.Count(b, []byte("\n")))
	total := p.Total()
	_, ok := total.Bytes(Rss)
	assert.False(t, ok)
}

// Where stacks carry the flag of MAP_STACK, other guarded memory is no stack.
func TestGuardedMemoryIsNoStack(t *testing.T) {
	t.Parallel()
	const mapping = "Size:               1024 kB\nRss:                1024 kB\n"
	text := func(flags string) string {
		return "7f0000000000-7f0000001000 ---p 00000000 00:00 0\n" + mapping + "VmFlags: mr mw me\n" +
			"7f0000001000-7f0000101000 rw-p 00000000 00:00 0\n" + mapping + "VmFlags: rd wr mr mw me ac\n" +
			"7f0000200000-7f0000201000 ---p 00000000 00:00 0\n" + mapping + "VmFlags: mr mw me" + flags + "\n" +
			"7f0000201000-7f0000a01000 rw-p 00000000 00:00 0\n" + mapping + "VmFlags: rd wr mr mw me ac" + flags + "\n"
	}
	for flags, want := range map[string][]Kind{
		" nh": {Anon, Anon, Stack, Stack},
		"":    {Stack, Stack, Stack, Stack}, // before Linux 6.7 they look alike
	} {
		p, err := Parse(strings.NewReader(text(flags)), Hints{})
		require.NoError(t, err)
		var got []Kind
		for _, m := range p.Mappings {
			got = append(got, m.Kind)
		}
		assert.Equal(t, want, got, "flags %q", flags)
	}
}
