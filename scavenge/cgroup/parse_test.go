// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestValueZeroIsUnknown(t *testing.T) {
	t.Parallel()
	_, ok := Value{}.Value()
	assert.False(t, ok)
	assert.Equal(t, "unknown", Value{}.String())
	n, ok := ValueOf(0).Value()
	assert.True(t, ok)
	assert.Zero(t, n)
	assert.Equal(t, "0", ValueOf(0).String())
}

func TestLimitStates(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		limit            Limit
		known, unlimited bool
		bounded          bool
		text             string
	}{
		{Limit{}, false, false, false, "unknown"},
		{Unlimited(), true, true, false, "max"},
		{LimitOf(0), true, false, true, "0"},
		{LimitOf(1<<62 - 1), true, false, true, "4611686018427387903"},
		{LimitOf(9223372036854771712), true, true, false, "max"}, // pages of 4 KiB
		{LimitOf(9223372036854710272), true, true, false, "max"}, // pages of 64 KiB
		{LimitOf(1<<64 - 1), true, true, false, "max"},
	} {
		_, bounded := tt.limit.Value()
		assert.Equal(t, tt.known, tt.limit.Known(), tt.text)
		assert.Equal(t, tt.unlimited, tt.limit.Unlimited(), tt.text)
		assert.Equal(t, tt.bounded, bounded, tt.text)
		assert.Equal(t, tt.text, tt.limit.String())
	}
}

func TestTighter(t *testing.T) {
	t.Parallel()
	unknown, none, low, high := Limit{}, Unlimited(), LimitOf(1), LimitOf(2)
	for _, tt := range []struct{ a, b, want Limit }{
		{low, high, low},
		{low, low, low},
		{low, none, low},
		{low, unknown, low}, // the unknown one can only be lower still
		{none, none, none},
		{none, unknown, unknown}, // nobody knows that there is no limit
		{unknown, unknown, unknown},
	} {
		assert.Equal(t, tt.want, tt.a.tighter(tt.b), "%v, %v", tt.a, tt.b)
		assert.Equal(t, tt.want, tt.b.tighter(tt.a), "%v, %v", tt.b, tt.a)
	}
}

func TestRoomUnknown(t *testing.T) {
	t.Parallel()
	for _, r := range []Reading{
		{},
		{Limit: Unlimited(), Usage: ValueOf(1)},
		{Limit: LimitOf(5)}, // usage unknown
	} {
		_, _, ok := r.Room()
		assert.False(t, ok)
	}
	n, _, ok := (&Reading{Limit: LimitOf(5), Usage: ValueOf(7)}).Room()
	assert.True(t, ok)
	assert.Zero(t, n, "a limit below the usage")
}

func TestExiting(t *testing.T) {
	t.Parallel()
	for stat, want := range map[string]bool{
		"1 (a) S 0 1 1 0 -1 4194560 0":         false,
		"1 (a) S 0 1 1 0 -1 4194564 0":         true,
		"1 (a) Z 0 1 1 0 -1 4194560 0":         true,
		"1 (x) Z 0 1) S 0 1 1 0 -1 4194560 0":  false, // a name made to mislead
		"1 (a) S 0 1 1":                        false,
		"1 (a":                                 false,
		"":                                     false,
		"1 (a) S 0 1 1 0 -1 not-a-number 0 0 ": false,
	} {
		assert.Equal(t, want, exiting([]byte(stat)), stat)
	}
}

func TestFieldNames(t *testing.T) {
	t.Parallel()
	seen := map[string]Field{}
	for f := range Fields() {
		require.NotEmpty(t, f.String())
		assert.NotContains(t, seen, f.String())
		seen[f.String()] = f
	}
	assert.Len(t, seen, int(numFields))
	_, ok := new(Stat).Bytes(numFields)
	assert.False(t, ok)
	assert.Equal(t, fmt.Sprintf("Field(%d)", numFields), numFields.String())
}

const (
	statV2 = "anon 4096\nfile 8192\ninactive_file 4096\nslab 12\npgfault 7\nnew_line 1\n"
	statV1 = "cache 1\nrss 2\ntotal_cache 8192\ntotal_rss 4096\nhierarchical_memory_limit 9223372036854771712\n"
	events = "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 5\n"
	psi    = "some avg10=1.53 avg60=0.40 avg300=0.08 total=123456\nfull avg10=0.00 avg60=0.12 avg300=0.02 total=98765\n"
)

// TestParseAllocatesNothing holds the parsers of files that are read again and again to it.
func TestParseAllocatesNothing(t *testing.T) {
	var s Stat
	var e Events
	var p PSI
	v1, v2, ev, ps, num := []byte(statV1), []byte(statV2), []byte(events), []byte(psi), []byte("max\n")
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		parseStat(1, v1, &s)
		parseStat(2, v2, &s)
		parseEvents(ev, &e)
		parsePSI(ps, &p)
		parseLimit(num)
	}))
}

func lineCount(text []byte) int {
	n := bytes.Count(text, newline)
	if len(text) > 0 && text[len(text)-1] != '\n' {
		n++
	}
	return n
}

func FuzzParseStat(f *testing.F) {
	f.Add(2, []byte(statV2))
	f.Add(1, []byte(statV1))
	f.Add(1, []byte("total_rss 1\nrss 2\ntotal_total_rss 3\n"))
	f.Fuzz(func(t *testing.T, version int, text []byte) {
		version = 1 + version&1
		var s Stat
		bad := parseStat(version, text, &s)
		lines, last := 0, map[string]uint64{}
		for name, n := range s.Lines() {
			lines++
			last[name] = n
		}
		if lines+bad != lineCount(text) {
			t.Fatalf("%d lines, %d bad, of %d", lines, bad, lineCount(text))
		}
		for f := range Fields() {
			name := statNames[f].v2
			if version == 1 {
				name = statNames[f].v1
			}
			want, ok := last[name]
			if version == 1 && name != "" {
				if total, whole := last["total_"+name]; whole {
					want, ok = total, true
				}
			}
			n, known := s.Bytes(f)
			if known != ok || n != want {
				t.Fatalf("%v = %d, %v; the file says %d, %v", f, n, known, want, ok)
			}
		}
		var again strings.Builder
		for name, n := range s.Lines() {
			fmt.Fprintf(&again, "%s %d\n", name, n)
		}
		var s2 Stat
		if bad := parseStat(version, []byte(again.String()), &s2); bad != 0 || s2.fields != s.fields {
			t.Fatalf("not the same after a round trip: %d bad", bad)
		}
		if !maps.Equal(last, maps.Collect(s2.Lines())) {
			t.Fatal("lines changed in a round trip")
		}
	})
}

func FuzzParseEvents(f *testing.F) {
	f.Add([]byte(events))
	f.Add([]byte("oom_kill_disable 0\nunder_oom 1\noom_kill 3\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var e Events
		if bad := parseEvents(text, &e); bad > lineCount(text) {
			t.Fatalf("%d bad lines of %d", bad, lineCount(text))
		}
		for name, v := range map[string]Value{"low": e.Low, "high": e.High, "max": e.Max, "oom": e.OOM,
			"oom_kill": e.OOMKill, "oom_group_kill": e.OOMGroupKill, "under_oom": e.UnderOOM} {
			if n, ok := v.Value(); ok != strings.Contains("\n"+string(text), "\n"+name+" ") && ok {
				t.Fatalf("%s = %d is not in the file", name, n)
			}
		}
	})
}

func FuzzParsePSI(f *testing.F) {
	f.Add([]byte(psi))
	f.Add([]byte("some avg10=100.00 avg60=100.99 avg300=0.08 total=9223372036854775\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var p PSI
		if bad := parsePSI(text, &p); bad > lineCount(text) {
			t.Fatalf("%d bad lines of %d", bad, lineCount(text))
		}
		check := func(kind string, v Pressure, ok bool) string {
			if !ok {
				if v != (Pressure{}) {
					t.Fatalf("unknown, but %v", v)
				}
				return ""
			}
			for _, avg := range []float64{v.Avg10, v.Avg60, v.Avg300} {
				if !(avg >= 0 && avg < 101) {
					t.Fatalf("%v %%", avg)
				}
			}
			if v.Total < 0 {
				t.Fatalf("total %v", v.Total)
			}
			return fmt.Sprintf("%s avg10=%.2f avg60=%.2f avg300=%.2f total=%d\n", kind, v.Avg10, v.Avg60, v.Avg300, v.Total/time.Microsecond)
		}
		some, ok1 := p.Some()
		full, ok2 := p.Full()
		again := check("some", some, ok1) + check("full", full, ok2)
		var p2 PSI
		if bad := parsePSI([]byte(again), &p2); bad != 0 || p2 != p {
			t.Fatalf("%v became %v", p, p2)
		}
	})
}

func FuzzParseLimit(f *testing.F) {
	for _, s := range []string{"max\n", "0\n", "18446744073709551615", "18446744073709551616", "-1\n", "", "\n", "1 \n", "9223372036854771712\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		l, ok := parseLimit(text)
		if ok != l.Known() {
			t.Fatalf("ok %v, known %v", ok, l.Known())
		}
		if again, _ := parseLimit([]byte(l.String())); again != l {
			t.Fatalf("%v became %v", l, again)
		}
		n, ok := parseUint(text)
		if ok && strings.TrimLeft(strings.TrimSuffix(string(text), "\n"), "0") != strings.TrimLeft(fmt.Sprint(n), "0") {
			t.Fatalf("%q read as %d", text, n)
		}
	})
}

func FuzzParseMembership(f *testing.F) {
	f.Add([]byte("5:cpu,cpuacct:/a\n4:hugetlb,memory:/b:c\n1:name=memory:/x\n0::/../d\n"))
	f.Add([]byte("0::\n0:memory:/x\nx\n::/\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, bad := parseMembership(text)
		if bad > lineCount(text) {
			t.Fatalf("%d bad lines of %d", bad, lineCount(text))
		}
		var again string
		for _, path := range []string{m.memory, m.v2} {
			if path != "" && (path[0] != '/' || strings.Contains(path, "\n") || !bytes.Contains(text, []byte(":"+path))) {
				t.Fatalf("path %q", path)
			}
		}
		if m.memory != "" {
			again = "4:memory:" + m.memory + "\n"
		}
		if m.v2 != "" {
			again += "0::" + m.v2
		}
		if m2, bad := parseMembership([]byte(again)); bad != 0 || m2 != m {
			t.Fatalf("%+v became %+v", m, m2)
		}
	})
}

// mangle does to a path what the kernel does.
var mangle = strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`)

func FuzzParseMounts(f *testing.F) {
	f.Add([]byte("30 23 0:26 / /sys/fs/cgroup rw shared:9 master:1 - cgroup2 cgroup2 rw,nsdelegate\n35 31 0:32 /../x /m\\040y rw - cgroup none rw,memory\n"))
	f.Add([]byte(`35 31 0:32 /a\777 /b rw - cgroup none rw,memory`))
	f.Add([]byte(`35 31 0:32 a /b rw - cgroup2 none rw`))
	f.Add([]byte(`1 - cgroup2 none rw`))
	f.Fuzz(func(t *testing.T, text []byte) {
		mounts, bad := parseMounts(text)
		if len(mounts)+bad > lineCount(text) {
			t.Fatalf("%d mounts, %d bad, of %d lines", len(mounts), bad, lineCount(text))
		}
		var again strings.Builder
		for _, m := range mounts {
			if m.root[0] != '/' || m.point[0] != '/' {
				t.Fatalf("%+v", m)
			}
			kind := map[int]string{1: "cgroup", 2: "cgroup2"}[m.version]
			if kind == "" {
				t.Fatalf("version %d", m.version)
			}
			fmt.Fprintf(&again, "1 2 0:3 %s %s rw - %s none rw,memory\n", mangle.Replace(m.root), mangle.Replace(m.point), kind)
		}
		mounts2, bad := parseMounts([]byte(again.String()))
		if bad != 0 || !assert.ObjectsAreEqual(mounts, mounts2) {
			t.Fatalf("%+v became %+v", mounts, mounts2)
		}
	})
}

func FuzzExiting(f *testing.F) {
	f.Add("app) Z (", uint32(0x4))
	f.Fuzz(func(t *testing.T, name string, flags uint32) {
		exiting([]byte(name)) // never panics
		if strings.Contains(name, "\n") {
			return
		}
		stat := fmt.Sprintf("42 (%s) S 1 42 42 0 -1 %d 0 0", name, flags)
		if got, want := exiting([]byte(stat)), flags&4 != 0; got != want {
			t.Fatalf("%q: %v", stat, got)
		}
	})
}

func BenchmarkParseStat(b *testing.B) {
	text := []byte(strings.Repeat(statV2, 8))
	var s Stat
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		parseStat(2, text, &s)
	}
}
