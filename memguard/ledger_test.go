// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/memguard/memguard-go/scavenge/smaps"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// rowKinds says which mappings a process row is made of.
var rowKinds = map[string][]smaps.Kind{
	RowBinary: {smaps.Binary}, RowFile: {smaps.File}, RowLibc: {smaps.Brk, smaps.LibcArena},
	RowAnon: {smaps.Anon}, RowShmem: {smaps.Shmem}, RowSpecial: {smaps.Special},
}

// dice make samples: any figure may be unknown, zero, of a usual size, or as
// large as 64 bits hold. The bias says how many of 256 are not of a usual size.
type dice struct {
	*rand.Rand
	bias byte
}

func newDice(seed uint64, bias byte) *dice { return &dice{rand.New(rand.NewPCG(seed, 1)), bias} }

func (d *dice) byte() byte { return byte(d.Uint32()) }

func (d *dice) uint64() uint64 { return d.Uint64() }

func (d *dice) bytes() Bytes {
	if d.byte() >= d.bias {
		return Known(d.uint64() % (64 << 30))
	}
	switch d.byte() % 4 {
	case 0:
		return Known[uint64](0)
	case 1:
		return Known(d.uint64())
	case 2:
		return Known[uint64](math.MaxUint64 - uint64(d.byte()))
	}
	return Bytes{}
}

func (d *dice) sample() *Sample {
	s := &Sample{Time: at(0), PID: int(d.byte())}
	r := &s.Runtime
	if d.byte()%3 > 0 {
		r.Origin = FromRuntime
	}
	for _, f := range []*Bytes{&r.Total, &r.Released, &r.Objects, &r.Unused, &r.Free, &r.Stacks, &r.OSStacks, &r.Metadata,
		&r.Live, &r.Goal, &r.Allocated, &r.MemoryLimit, &r.Cycles, &r.Goroutines, &s.Process.RSS, &s.Process.Shared} {
		*f = d.bytes()
	}
	r.GCPercent = Known(int64(d.byte()) - 1)
	s.Process.Go = d.byte()%3 > 0
	c := &s.Cgroup
	c.Version = int(d.byte() % 3)
	c.Path = "/a\x1b[31mb"
	for _, f := range []*Bytes{&c.Usage, &c.Limit, &c.High, &c.WorkingSet, &c.Swap, &c.Anon, &c.Shmem, &c.File, &c.ActiveFile,
		&c.InactiveFile, &c.Unevictable, &c.Kernel, &c.OOMKills} {
		*f = d.bytes()
	}
	if n := int(d.byte() % 9); n > 0 {
		c.Members = []Member{}
		for i := range n - 1 {
			m := Member{PID: i, Anon: d.bytes()}
			if (m.Anon == Bytes{}) {
				m.Why = "permission denied"
			}
			c.Members = append(c.Members, m)
		}
	}
	if d.byte()%2 == 0 {
		s.Process.Maps = d.maps()
	}
	return s
}

// maps is an address space in which some mappings do not tell some fields.
func (d *dice) maps() *smaps.Process {
	var b strings.Builder
	from := uint64(1 << 22)
	for range d.byte() % 12 {
		names := []string{"/bin/x", "/lib/y.so", "[heap]", "[stack]", "[anon: Go: heap]", "[anon: Go: page alloc]", "", "/dev/shm/z", "[vdso]"}
		fmt.Fprintf(&b, "%x-%x rw-p 00000000 00:00 %d %s\n", from, from+1<<21, d.byte()%2, names[int(d.byte())%len(names)])
		for _, field := range []string{"Rss", "LazyFree", "AnonHugePages"} {
			switch d.byte() % 8 {
			case 0: // not there
			case 1:
				fmt.Fprintf(&b, "%s: %d kB\n", field, d.uint64()>>10)
			default:
				fmt.Fprintf(&b, "%s: %d kB\n", field, d.uint64()%(1<<21))
			}
		}
		from += 1 << 30
	}
	p, err := smaps.Parse(strings.NewReader(b.String()), smaps.Hints{Go: d.byte()%2 == 0, Exe: "/bin/x"})
	if err != nil {
		panic(err)
	}
	return p
}

// FuzzLedger holds the ledger of any sample to what a ledger promises.
func FuzzLedger(f *testing.F) {
	for i := range uint64(60) {
		f.Add(i, byte(i*4), uint8(2*i))
	}
	f.Fuzz(func(t *testing.T, seed uint64, bias byte, width uint8) {
		s := newDice(seed, bias).sample()
		l := NewLedger(s)
		checkRows(t, s.Process.RSS, l.Rows, l.Residual)
		if l.Cgroup != nil {
			checkRows(t, s.Cgroup.Usage, l.Cgroup.Rows, l.Cgroup.Residual)
		} else {
			require.Zero(t, s.Cgroup.Version)
		}
		for name, kinds := range rowKinds {
			if _, ok := l.Row(name); ok && s.Process.Maps != nil {
				for _, k := range kinds {
					fields := s.Process.Maps.ByKind(k)
					_, told := fields.Bytes(smaps.Rss)
					require.True(t, told, "%s is known, but a mapping of it does not tell its size", name)
				}
			}
		}
		if _, ok := l.Row(RowFile); s.Process.Maps == nil {
			require.Equal(t, signed(s.Process.Shared) != Value[int64]{}, ok, "without smaps the file row is what is shared")
		}

		// Whatever is in it can be judged, written and read again.
		j := NewJudge()
		for i := range 8 {
			s.Time = at(float64(i))
			j.Step(s)
		}
		report := newReport(s, j, 0)
		text, err := json.Marshal(report)
		require.NoError(t, err)
		var back Report
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, report.Ledger.Rows, back.Ledger.Rows)
		require.Equal(t, report.Ledger.Residual, back.Ledger.Residual)
		var page bytes.Buffer
		require.NoError(t, Text{Width: int(width)}.Report(&page, report))
		for _, c := range page.Bytes() {
			require.True(t, c >= ' ' || c == '\n', "control character %#x reaches the terminal", c)
		}
	})
}

// checkRows: the rows that are known and the residual add up exactly; what is
// unknown is no zero and says why.
func checkRows(t *testing.T, total Bytes, rows []Row, rest Value[int64]) {
	t.Helper()
	sum, seen := new(big.Int), map[string]bool{}
	for _, r := range rows {
		require.False(t, seen[r.Name], "%s is there twice", r.Name)
		seen[r.Name] = true
		n, ok := r.Bytes.Get()
		require.Equal(t, !ok, r.Why != "", "%s: unknown, and only then with a reason: %+v", r.Name, r)
		require.True(t, n >= 0 || r.Name == RowUntouched, "%s is negative: %d", r.Name, n)
		sum.Add(sum, big.NewInt(n))
	}
	want, ok := total.Get()
	n, known := rest.Get()
	if !known {
		left := new(big.Int).Sub(new(big.Int).SetUint64(want), sum)
		require.True(t, !ok || want > math.MaxInt64 || !fitsInSteps(want, rows), "no residual, though it is %v", left)
		return
	}
	require.True(t, ok, "a residual of an unknown total")
	require.Zero(t, sum.Add(sum, big.NewInt(n)).Cmp(new(big.Int).SetUint64(want)), "rows and residual add up to %v, not to %d", sum, want)
}

// fitsInSteps reports whether the rows can be taken from the total one after
// the other in 64 bits.
func fitsInSteps(total uint64, rows []Row) bool {
	rest := new(big.Int).SetUint64(total)
	for _, r := range rows {
		n, _ := r.Bytes.Get()
		if !rest.Sub(rest, big.NewInt(n)).IsInt64() {
			return false
		}
	}
	return true
}

// The same over many samples at every run, without fuzzing.
func TestLedgerAddsUp(t *testing.T) {
	t.Parallel()
	known, unknown, residuals := 0, 0, 0
	for i := range uint64(3000) {
		s := newDice(i, byte(i)).sample()
		l := NewLedger(s)
		checkRows(t, s.Process.RSS, l.Rows, l.Residual)
		for _, row := range l.Rows {
			if _, ok := row.Bytes.Get(); ok {
				known++
			} else {
				unknown++
			}
		}
		if _, ok := l.Residual.Get(); ok {
			residuals++
		}
	}
	assert.Greater(t, known, 5000, "the dice are loaded")
	assert.Greater(t, unknown, 5000)
	assert.Greater(t, residuals, 500)
}

func TestLedgerOfATick(t *testing.T) {
	t.Parallel()
	l := NewLedger(healthy(0))
	for name, want := range map[string]int64{
		RowLive: 120, RowDead: 60, RowUnused: 8, RowFree: 30, RowStacks: 8, RowMetadata: 12,
		RowUntouched: 0, RowAnon: 20, RowFile: 30,
	} {
		n, ok := l.Row(name)
		assert.True(t, ok, name)
		assert.Equal(t, want*mebi, n, name)
	}
	for _, name := range []string{RowBinary, RowLibc, RowShmem, RowSpecial, RowLazyFree, RowRefill} {
		_, ok := l.Row(name)
		assert.False(t, ok, "%s takes smaps", name)
	}
	assert.Equal(t, Known[int64](0), l.Residual)
	_, ok := l.Row("no/such/row")
	assert.False(t, ok)

	// Go holds memory that it never touched: that is negative, and no other row.
	s := healthy(0)
	s.Process.RSS = Known[uint64](200 * mebi)
	n, ok := NewLedger(s).Row(RowUntouched)
	assert.True(t, ok)
	assert.EqualValues(t, -68*mebi, n)

	// Before the first cycle nobody knows what lives.
	s = healthy(0)
	s.Runtime.Live = Bytes{}
	_, ok = NewLedger(s).Row(RowLive)
	assert.False(t, ok)
	n, _ = NewLedger(s).Row(RowDead)
	assert.EqualValues(t, 180*mebi, n)

	// A system without /proc: the runtime's rows are there, RSS is not.
	s = healthy(0)
	s.Process.RSS, s.Process.Shared = Bytes{}, Bytes{}
	l = NewLedger(s)
	n, ok = l.Row(RowLive)
	assert.True(t, ok)
	assert.EqualValues(t, 120*mebi, n)
	assert.Equal(t, Value[int64]{}, l.Residual)
	for _, name := range []string{RowUntouched, RowFile, RowAnon} {
		_, ok := l.Row(name)
		assert.False(t, ok, name)
	}
}

func TestLedgerOfMappings(t *testing.T) {
	t.Parallel()
	s := healthy(0)
	withMaps(s, 300*mebi, 40*mebi, 0) // of the heap's 226 MiB
	l := NewLedger(s)
	for name, want := range map[string]int64{
		RowRefill: 300 - 40 - 226, RowUntouched: 0, RowLazyFree: 40, RowBinary: 30, RowMetadata: 0,
		RowFile: 0, RowLibc: 0, RowAnon: 0, RowShmem: 0, RowSpecial: 0,
	} {
		n, ok := l.Row(name)
		assert.True(t, ok, name)
		assert.Equal(t, want*mebi, n, name)
	}
	// From outside the heap is one row, and its classes are unknown.
	s.Runtime = Runtime{Origin: FromEnviron}
	l = NewLedger(s)
	n, ok := l.Row(RowHeap)
	assert.True(t, ok)
	assert.EqualValues(t, 260*mebi, n)
	_, ok = l.Row(RowLive)
	assert.False(t, ok)

	// A kernel without LazyFree: unknown, not zero, and the rest adds up.
	p, err := smaps.Parse(strings.NewReader("400000-500000 r-xp 00000000 00:00 0 /bin/x\nRss: 1024 kB\n"+
		"c000000000-c000400000 rw-p 00000000 00:00 0 [anon: Go: heap]\nRss: 4096 kB\n"), smaps.Hints{Exe: "/bin/x"})
	require.NoError(t, err)
	s.Process.Maps, s.Process.RSS = p, Known[uint64](5*mebi)
	l = NewLedger(s)
	_, ok = l.Row(RowLazyFree)
	assert.False(t, ok)
	assert.Equal(t, Known[int64](0), l.Residual)

	// One mapping does not tell its size: its row is unknown, no other is.
	p, err = smaps.Parse(strings.NewReader("400000-500000 r-xp 00000000 00:00 0 /bin/x\nRss: what kB\nLazyFree: 0 kB\n"+
		"c000000000-c000400000 rw-p 00000000 00:00 0 [anon: Go: heap]\nRss: 4096 kB\nLazyFree: 0 kB\n"), smaps.Hints{Exe: "/bin/x"})
	require.NoError(t, err)
	s.Process.Maps = p
	l = NewLedger(s)
	_, ok = l.Row(RowBinary)
	assert.False(t, ok)
	n, ok = l.Row(RowHeap)
	assert.True(t, ok)
	assert.EqualValues(t, 4*mebi, n)
	assert.Equal(t, Known[int64](mebi), l.Residual)
}

func TestLedgerOfACgroup(t *testing.T) {
	t.Parallel()
	assert.Nil(t, NewLedger(&Sample{}).Cgroup, "no cgroup, no ledger")
	for _, version := range []int{1, 2} {
		s := healthy(0)
		s.Cgroup.Version = version
		if version == 1 {
			s.Cgroup.Limit = Known[uint64](Unlimited)
		}
		l := NewLedger(s).Cgroup // on a tick: the processes as one
		n, ok := l.Row(RowProcesses)
		assert.True(t, ok)
		assert.EqualValues(t, 258*mebi, n)
		assert.Equal(t, Known[int64](0), l.Residual)
		assert.Equal(t, version == 1, l.Unlimited)
		_, bounded := l.Limit.Get()
		assert.Equal(t, version == 2, bounded)

		s.Cgroup.Members = []Member{{PID: 4711, Anon: Known[uint64](200 * mebi)}, {PID: 4712, Anon: Known[uint64](8 * mebi)}}
		l = NewLedger(s).Cgroup
		n, ok = l.Row(RowDeferredSplit)
		assert.True(t, ok)
		assert.EqualValues(t, 50*mebi, n, "charged, and resident in no process")
		assert.Equal(t, Known[int64](0), l.Residual)

		s.Cgroup.Members[1] = Member{PID: 4712, Why: "permission denied"}
		l = NewLedger(s).Cgroup
		_, ok = l.Row(RowDeferredSplit)
		assert.False(t, ok, "what is missing may be in the process that could not be read")
		assert.Equal(t, Known[int64](58*mebi), l.Residual)
	}
}
