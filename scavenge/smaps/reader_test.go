// SPDX-License-Identifier: Apache-2.0

package smaps

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// kernels holds one mapping as different kernels print it.
var kernels = []struct {
	name    string
	text    string
	known   string // the fields, in the kernel's order
	thp     string // THPeligible
	flags   VmFlags
	extra   []ExtraField
	pkey    bool
	swapPss uint64
}{
	{
		name: "linux-4.14",
		text: `7f5a3c000000-7f5a3c021000 rw-p 00000000 00:00 0 
Size:                132 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Rss:                   8 kB
Pss:                   8 kB
Shared_Clean:          0 kB
Shared_Dirty:          0 kB
Private_Clean:         0 kB
Private_Dirty:         8 kB
Referenced:            8 kB
Anonymous:             8 kB
LazyFree:              4 kB
AnonHugePages:         0 kB
ShmemPmdMapped:        0 kB
Shared_Hugetlb:        0 kB
Private_Hugetlb:       0 kB
Swap:                 12 kB
SwapPss:              12 kB
Locked:                0 kB
VmFlags: rd wr mr mw me nr sd 
`,
		known: "Size KernelPageSize MMUPageSize Rss Pss Shared_Clean Shared_Dirty Private_Clean Private_Dirty Referenced " +
			"Anonymous LazyFree AnonHugePages ShmemPmdMapped Shared_Hugetlb Private_Hugetlb Swap SwapPss Locked",
		flags: "rd wr mr mw me nr sd", swapPss: 12 << 10,
	},
	{
		name: "linux-5.4",
		text: `7f5a3c000000-7f5a3c021000 rw-p 00000000 00:00 0 
Size:                132 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Rss:                   8 kB
Pss:                   8 kB
Shared_Clean:          0 kB
Shared_Dirty:          0 kB
Private_Clean:         0 kB
Private_Dirty:         8 kB
Referenced:            8 kB
Anonymous:             8 kB
LazyFree:              4 kB
AnonHugePages:         0 kB
ShmemPmdMapped:        0 kB
FilePmdMapped:         0 kB
Shared_Hugetlb:        0 kB
Private_Hugetlb:       0 kB
Swap:                  0 kB
SwapPss:               0 kB
Locked:                0 kB
THPeligible:		1
ProtectionKey:         0
VmFlags: rd wr mr mw me nr sd 
`,
		known: "Size KernelPageSize MMUPageSize Rss Pss Shared_Clean Shared_Dirty Private_Clean Private_Dirty Referenced " +
			"Anonymous LazyFree AnonHugePages ShmemPmdMapped FilePmdMapped Shared_Hugetlb Private_Hugetlb Swap SwapPss Locked",
		thp: "true", pkey: true, flags: "rd wr mr mw me nr sd",
	},
	{
		name: "linux-6.18",
		text: `7f5a3c000000-7f5a3c021000 rw-p 00000000 00:00 0                          [anon: Go: heap]
Size:                132 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Rss:                   8 kB
Pss:                   8 kB
Pss_Dirty:             8 kB
Shared_Clean:          0 kB
Shared_Dirty:          0 kB
Private_Clean:         0 kB
Private_Dirty:         8 kB
Referenced:            8 kB
Anonymous:             8 kB
KSM:                   0 kB
LazyFree:              4 kB
AnonHugePages:         0 kB
ShmemPmdMapped:        0 kB
FilePmdMapped:         0 kB
Shared_Hugetlb:        0 kB
Private_Hugetlb:       0 kB
Swap:                  0 kB
SwapPss:               0 kB
Locked:                0 kB
THPeligible:           0
VmFlags: rd wr mr mw me ac sd 
`,
		known: "Size KernelPageSize MMUPageSize Rss Pss Pss_Dirty Shared_Clean Shared_Dirty Private_Clean Private_Dirty Referenced " +
			"Anonymous KSM LazyFree AnonHugePages ShmemPmdMapped FilePmdMapped Shared_Hugetlb Private_Hugetlb Swap SwapPss Locked",
		thp: "false", flags: "rd wr mr mw me ac sd",
	},
	{
		name: "some future",
		text: `7f5a3c000000-7f5a3c021000 rw-p 00000000 00:00 0 
Size:                132 kB
Rss:                   8 kB
NovelPages:            4 kB
LazyFree:              4 kB
Mood_2:             calm  
VmFlags: rd wr qq ??  
`,
		known: "Size Rss LazyFree",
		flags: "rd wr qq ??",
		extra: []ExtraField{{"NovelPages", "4 kB"}, {"Mood_2", "calm"}},
	},
}

func TestKernels(t *testing.T) {
	t.Parallel()
	for _, k := range kernels {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			r := NewReader(strings.NewReader(strings.Repeat(k.text, 3)))
			n := 0
			for ; r.Scan(); n++ { // the second one is read by the layout of the first
				m := r.Mapping()
				assert.Equal(t, uint64(0x7f5a3c000000), m.Start)
				assert.Equal(t, uint64(132<<10), m.Len())
				assert.Equal(t, "rw-p", m.Perms.String())
				var known []string
				for f, bytes := range m.All() {
					known = append(known, f.String())
					assert.Zero(t, bytes%1024)
				}
				assert.Equal(t, k.known, strings.Join(known, " "))
				rss, ok := m.Bytes(Rss)
				assert.True(t, ok)
				assert.Equal(t, uint64(8<<10), rss)
				lazy, ok := m.Bytes(LazyFree)
				assert.True(t, ok)
				assert.Equal(t, uint64(4<<10), lazy)
				swap, _ := m.Bytes(SwapPss)
				assert.Equal(t, k.swapPss, swap)
				eligible, ok := m.THPEligible()
				assert.Equal(t, k.thp != "", ok)
				assert.Equal(t, k.thp == "true", eligible)
				key, ok := m.ProtectionKey()
				assert.Equal(t, k.pkey, ok)
				assert.Zero(t, key)
				assert.Equal(t, k.flags, m.VmFlags)
				assert.Equal(t, k.extra, m.Extra)
			}
			assert.Equal(t, 3, n)
			assert.NoError(t, r.Err())
			errs, _ := r.SyntaxErrors()
			assert.Empty(t, errs)
		})
	}
}

func TestUnknownIsNotZero(t *testing.T) {
	t.Parallel()
	var f Fields
	for k := range Field(math.MaxUint8) {
		_, ok := f.Bytes(k)
		assert.False(t, ok)
	}
	assert.Equal(t, "unknown field", Field(numFields).String())
	assert.Equal(t, "invalid kind", Kind(numKinds).String())
	for k := range Kind(numKinds) {
		assert.NotEmpty(t, k.String())
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	const anon = "7f0000000000-7f0000001000 rw-p 00000000 00:00 0 "
	for _, tc := range []struct{ line, path string }{
		{anon, ""},
		{anon + "                         [heap]", "[heap]"},
		{anon + "                         [anon: Go: heap]", "[anon: Go: heap]"},
		{"55cd2a19f000-55cd2a24c000 r-xp 00000000 fe:00 9979393                    /usr/bin/x (deleted)", "/usr/bin/x (deleted)"},
		{"55cd2a19f000-55cd2a24c000 r-xp 00000000 fe:00 9979393                    /a file\tof mine", "/a file\tof mine"},
		{"55cd2a19f000-55cd2a24c000 r-xp 00000000 fe:00 9979393                    /two\\012lines\\134", "/two\nlines\\134"},
		{"55cd2a19f000-55cd2a24c000 r-xp 00000000 fe:00 9979393                     / leading", " / leading"},
		{"55cd2a19f000-55cd2a24c000 r-xp 00000000 fe:00 9979393                    /trailing ", "/trailing "},
		// a prefix that is longer than the column
		{"ffff55cd2a19f000-ffff55cd2a24c000 r-xp 7fffffffff000000 103:1000 18446744073709551615 /x", "/x"},
		{"55cd2a19f000-55cd2a24c000 r-xp 00000000 fe:00 9979393 /squeezed", "/squeezed"},
		{"08048000-08056000 r-xp 00000000 03:0c 64593      /usr/sbin/gpm", "/usr/sbin/gpm"}, // 32 bits: column 49
		{"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]", "[vsyscall]"},
	} {
		r := NewReader(strings.NewReader(tc.line + "\n"))
		require.True(t, r.Scan(), tc.line)
		assert.Equal(t, tc.path, r.Mapping().Path)
		assert.False(t, r.Scan())
	}
}

func TestHeader(t *testing.T) {
	t.Parallel()
	r := NewReader(strings.NewReader("ffff55cd2a19f000-ffff55cd2a24c000 r-xs 7fffffffff000000 103:1000 18446744073709551615 /x\n"))
	require.True(t, r.Scan())
	m := r.Mapping()
	assert.Equal(t, Mapping{
		Start: 0xffff55cd2a19f000, End: 0xffff55cd2a24c000, Perms: PermRead | PermExec | PermShared,
		Offset: 0x7fffffffff000000, DevMajor: 0x103, DevMinor: 0x1000, Inode: math.MaxUint64, Path: "/x",
	}, *m)
	assert.Equal(t, "r-xs", m.Perms.String())
}

func TestBadLines(t *testing.T) {
	t.Parallel()
	const (
		head = "7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \n"
		next = "7f0000002000-7f0000003000 rw-p 00000000 00:00 0 \nRss:                   8 kB\n"
		rss  = "Rss:                   4 kB\n"
		pss  = "Pss:                   4 kB\n"
	)
	for _, tc := range []struct {
		name, text string
		lines      []int  // of the errors
		msg        string // of the first
		mappings   string // known fields of each
	}{
		{"torn field", head + rss + "Pss:             ", []int{3}, "no newline: torn", "Rss"},
		{"torn value", head + rss + "Pss:                   4 k", []int{3}, "no newline: torn", "Rss"},
		{"torn header", head + rss + "7f0000002000-7f0000003000 rw-p 00000000 00:00 0", []int{3}, "no newline: torn", "Rss"},
		{"no unit", head + rss + "Pss:                   4\n" + next, []int{3}, "not a number of kB", "Rss|Rss"},
		{"other unit", head + rss + "Pss:                   4 MB\n" + next, []int{3}, "not a number of kB", "Rss|Rss"},
		{"negative", head + rss + "Pss:                  -4 kB\n" + next, []int{3}, "not a number of kB", "Rss|Rss"},
		{"gap in number", head + rss + "Pss:                 1 4 kB\n" + next, []int{3}, "not a number of kB", "Rss|Rss"},
		{"no number", head + rss + "Pss:                     kB\n" + next, []int{3}, "not a number of kB", "Rss|Rss"},
		{"2^64 bytes", head + rss + "Pss:    18014398509481984 kB\n" + next, []int{3}, "more than 2^64 bytes", "Rss|Rss"},
		{"2^64 kB", head + rss + "Pss:    18446744073709551616 kB\n" + next, []int{3}, "not a number of kB", "Rss|Rss"},
		{"twice", head + rss + rss + pss + next, []int{3}, "field seen twice", "Rss Pss|Rss"},
		{"bad THPeligible", head + "THPeligible:           x\n" + rss, []int{2}, "bad THPeligible", "Rss"},
		{"bad ProtectionKey", head + "ProtectionKey:         4294967296\n" + rss, []int{2}, "bad ProtectionKey", "Rss"},
		{"bad VmFlags", head + "VmFlags: \n" + rss, []int{2}, "bad VmFlags", "Rss"},
		{"fields of nobody", rss + pss + head + rss, []int{1, 2}, "outside a mapping", "Rss"},
		{"empty line", head + rss + "\n" + pss + next, []int{3, 4}, "neither a mapping nor a field", "Rss|Rss"},
		{"torn header between", head + rss + "7f0000001000-7f00000020\n" + pss + next, []int{3, 4}, "neither a mapping nor a field", "Rss|Rss"},
		{"end before start", head + rss + "7f0000001000-7f0000001000 rw-p 00000000 00:00 0 \n" + pss + next, []int{3, 4}, "neither a mapping nor a field", "Rss|Rss"},
		{"17 digits", "00007f0000001000f-f7f0000001000 rw-p 00000000 00:00 0 \n" + next, []int{1}, "outside a mapping", "Rss"},
		{"perms", "7f0000001000-7f0000002000 rwzp 00000000 00:00 0 \n" + next, []int{1}, "outside a mapping", "Rss"},
		{"NUL", head + rss + "\x00\x00\x00\n" + pss + next, []int{3, 4}, "neither a mapping nor a field", "Rss|Rss"},
		{"no smaps at all", "<html>\n<body>\n", []int{1, 2}, "outside a mapping", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p, err := Parse(strings.NewReader(tc.text), Hints{})
			require.NoError(t, err)
			var got []string
			for i := range p.Mappings {
				var known []string
				for f := range p.Mappings[i].All() {
					known = append(known, f.String())
				}
				got = append(got, strings.Join(known, " "))
			}
			assert.Equal(t, tc.mappings, strings.Join(got, "|"))
			var lines []int
			for _, e := range p.SyntaxErrors {
				lines = append(lines, e.Line)
			}
			require.Equal(t, tc.lines, lines)
			assert.Equal(t, len(lines), p.BadLines)
			assert.Equal(t, tc.msg, p.SyntaxErrors[0].Msg)
			assert.ErrorContains(t, p.SyntaxErrors[0], fmt.Sprintf("smaps: line %d: %s: ", tc.lines[0], tc.msg))
		})
	}
}

// A bad line in the layout must not be taken for a good one, whatever byte of it is bad.
func TestFastFieldsJudgeEveryByte(t *testing.T) {
	t.Parallel()
	text := []byte(kernels[2].text)
	from := bytes.Index(text, []byte("Size:"))
	to := bytes.Index(text, []byte("THPeligible:"))
	r := NewReader(nil)
	slow := NewReader(nil)
	slow.slow = true
	for i := from; i < to; i++ {
		for _, c := range []byte(" 0189:k\nAz\x00\xff\x20\x30/") {
			bad := bytes.Clone(text)
			bad[i] = c
			all := append(bytes.Clone(text), bad...)
			assert.Equal(t, snapshot(slow, bytes.NewReader(all)), snapshot(r, bytes.NewReader(all)), "byte %d is %q", i, c)
		}
	}
}

// Wherever numbers change, and change back, from one mapping to the next, and a line is bad.
func TestFastFieldsFollowNumbers(t *testing.T) {
	t.Parallel()
	whole := kernels[2].text
	lines := strings.SplitAfter(whole, "\n")[1 : 1+strings.Count(whole, " kB\n")]
	with := func(line, number string) string { return strings.Replace(whole, line, line[:16]+number+" kB\n", 1) }
	r, slow := NewReader(nil), NewReader(nil)
	slow.slow = true
	for _, first := range lines {
		for _, second := range lines {
			text := whole + with(first, "      77") + with(second, "12345678") + whole + with(first, "       1") +
				with(second, "     1 1") + with(first, "       2") + whole
			require.Equal(t, snapshot(slow, strings.NewReader(text)), snapshot(r, strings.NewReader(text)), "%q, %q", first, second)
		}
	}
}

// A mapping that was cut short teaches a layout without its last lines; those that follow have them.
func TestLayoutGrows(t *testing.T) {
	t.Parallel()
	whole := kernels[2].text
	lines := strings.SplitAfter(whole, "\n")
	r, slow := NewReader(nil), NewReader(nil)
	slow.slow = true
	for cut := 1; cut < len(lines); cut++ {
		text := strings.Join(lines[:cut], "") + strings.Repeat(whole, 2*numFields)
		for range 3 { // it keeps what it has learnt
			require.Equal(t, snapshot(slow, strings.NewReader(text)), snapshot(r, strings.NewReader(text)), "cut behind line %d", cut)
			require.Equal(t, strings.Count(whole, " kB\n"), r.lay.n)
		}
	}
}

// A number that reaches into the first 16 columns must not be learnt as a part of the name.
func TestLayoutOfWideNumbers(t *testing.T) {
	t.Parallel()
	const head = "1000-2000 rw-p 00000000 00:00 0 \n"
	for _, lines := range [][2]string{
		{"Rss:        123400000001 kB\n", "Rss:        123400000002 kB\n"},
		{"Rss:        123400000001 kB\n", "Rss:        1234       2 kB\n"},
		{"Rss:               1 kB    \n", "Rss:               2 kB    \n"},
		{"Rss:\t            000000001 kB\n", "Rss:\t            000000002 kB\n"},
	} {
		text := head + lines[0] + head + lines[1] + head + lines[1]
		slow := NewReader(nil)
		slow.slow = true
		assert.Equal(t, snapshot(slow, strings.NewReader(text)), snapshot(NewReader(nil), strings.NewReader(text)), "%q", lines)
	}
}

func TestDecimal8(t *testing.T) {
	t.Parallel()
	load := func(s string) (w uint64) {
		for i := range 8 {
			w |= uint64(s[i]) << (8 * i)
		}
		return w
	}
	for n := uint64(0); n < 1e8; n = n*3 + 1 {
		for _, s := range []string{fmt.Sprintf("%8d", n), fmt.Sprintf("%08d", n)} {
			got, ok := decimal8(load(s))
			assert.True(t, ok, s)
			assert.Equal(t, n, got, s)
		}
	}
	for _, s := range []string{"        ", "1       ", "  1   2 ", " 1 2 3 4", "      -1", "      1a", "       :", "       /", "\x00\x00\x00\x00\x00\x00\x001", "0000000\x80", "      \xb01"} {
		_, ok := decimal8(load(s))
		assert.False(t, ok, "%q", s)
	}
	// Any single byte, in any place of a number.
	for i := range 8 {
		for c := range 256 {
			b := []byte("12345678")
			b[i] = byte(c)
			_, ok := decimal8(load(string(b)))
			want := c >= '0' && c <= '9' || c == ' ' && i == 0
			assert.Equal(t, want, ok, "%q", b)
		}
	}
}

func TestLongLine(t *testing.T) {
	t.Parallel()
	path := "/" + strings.Repeat(`\012`, 4095) // PATH_MAX, all of it escaped
	text := "7f0000000000-7f0000001000 r--p 00000000 fe:00 1                          " + path + "\n" +
		"7f0000001000-7f0000002000 r--p 00000000 fe:00 1                          /" + strings.Repeat("x", 3*bufSize) + "\nRss:  4 kB\n" +
		"7f0000002000-7f0000003000 r--p 00000000 fe:00 1 /y\nRss:  4 kB\n"
	p, err := Parse(iotest.HalfReader(strings.NewReader(text)), Hints{})
	require.NoError(t, err)
	require.Len(t, p.Mappings, 2)
	assert.Equal(t, "/"+strings.Repeat("\n", 4095), p.Mappings[0].Path)
	assert.Equal(t, "/y", p.Mappings[1].Path)
	require.Len(t, p.SyntaxErrors, 2)
	assert.Equal(t, "line too long", p.SyntaxErrors[0].Msg)
	assert.Equal(t, 2, p.SyntaxErrors[0].Line)
	assert.Less(t, len(p.SyntaxErrors[0].Text), 1<<10)
	assert.Equal(t, "smaps: line 3: outside a mapping: \"Rss:  4 kB\"", p.SyntaxErrors[1].Error())
	_, ok := p.Mappings[0].Bytes(Rss)
	assert.False(t, ok, "the field behind it belongs to nobody that is known")
}

func TestErrorsAreBounded(t *testing.T) {
	t.Parallel()
	p, err := Parse(strings.NewReader(strings.Repeat("?\n", 1000)), Hints{})
	require.NoError(t, err)
	assert.Len(t, p.SyntaxErrors, maxErrors)
	assert.Equal(t, 1000, p.BadLines)

	var b strings.Builder
	b.WriteString("7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \n")
	for i := range 1000 {
		fmt.Fprintf(&b, "New%d: 1\n", i)
	}
	p, err = Parse(strings.NewReader(b.String()), Hints{})
	require.NoError(t, err)
	assert.Len(t, p.Mappings[0].Extra, maxExtra)
	assert.Equal(t, 1000-maxExtra, p.BadLines)
}

func TestReadError(t *testing.T) {
	t.Parallel()
	gone := errors.New("gone")
	r := NewReader(io.MultiReader(strings.NewReader(kernels[2].text), iotest.ErrReader(gone)))
	assert.True(t, r.Scan())
	assert.False(t, r.Scan())
	assert.ErrorIs(t, r.Err(), gone)
	assert.False(t, r.Scan())

	r.Reset(readerFunc(func([]byte) (int, error) { return 0, nil }))
	assert.False(t, r.Scan())
	assert.ErrorIs(t, r.Err(), io.ErrNoProgress)
	r.Reset(readerFunc(func(b []byte) (int, error) { return len(b) + 1, nil }))
	assert.False(t, r.Scan())
	assert.Error(t, r.Err())
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// A copy of a Mapping must outlive the Reader's next work.
func TestCopyIsSafe(t *testing.T) {
	t.Parallel()
	r := NewReader(strings.NewReader(kernels[3].text))
	require.True(t, r.Scan())
	m := *r.Mapping()
	want := describe(&m)
	r.Reset(strings.NewReader(strings.ReplaceAll(strings.Repeat(kernels[3].text, 4), "4 kB", "9 kB")))
	for r.Scan() {
	}
	assert.Equal(t, want, describe(&m))
}

// Paths are kept for as long as they are not too many.
func TestInternIsBounded(t *testing.T) {
	t.Parallel()
	r := NewReader(nil)
	for i := range 10_000 {
		path := fmt.Sprintf("/%0999d", i)
		assert.Equal(t, path, r.intern([]byte(path)))
	}
	assert.LessOrEqual(t, len(r.strings), maxIntern/1000+1)
}

func TestNoAllocations(t *testing.T) {
	b, err := os.ReadFile("testdata/go1.26-cgo.smaps")
	require.NoError(t, err)
	text := parseFixture(t, b).smaps
	src := bytes.NewReader(text)
	r := NewReader(src)
	assert.Zero(t, testing.AllocsPerRun(10, func() {
		src.Reset(text)
		r.Reset(src)
		for r.Scan() {
		}
	}))
}

// describe writes all that a Mapping says.
func describe(m *Mapping) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%x-%x %v %x %x:%x %d %q %q %q", m.Start, m.End, m.Perms, m.Offset, m.DevMajor, m.DevMinor, m.Inode, m.Path, m.VmFlags, m.Extra)
	for f, n := range m.All() {
		fmt.Fprintf(&b, " %v=%d", f, n)
	}
	fmt.Fprintln(&b, m.thpEligible, m.thpKnown, m.pkey, m.pkeyKnown)
	return b.String()
}

// snapshot reads src to its end and writes all that the Reader says.
func snapshot(r *Reader, src io.Reader) string {
	var b strings.Builder
	r.Reset(src)
	for r.Scan() {
		b.WriteString(describe(r.Mapping()))
	}
	errs, n := r.SyntaxErrors()
	for _, e := range errs {
		fmt.Fprintln(&b, e)
	}
	fmt.Fprintln(&b, n, r.lines, r.Err())
	return b.String()
}
