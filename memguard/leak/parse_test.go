// SPDX-License-Identifier: Apache-2.0

package leak

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/pprof/profile"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// list writes a snapshot as lines that a golden file can hold.
func list(s *Snapshot) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d goroutines, %d clusters, %d torn", s.Format, s.Goroutines, len(s.Clusters), s.Torn)
	if s.First != nil {
		fmt.Fprintf(&b, "; %v", s.First)
	}
	b.WriteString("\n")
	for _, c := range s.Clusters {
		fmt.Fprintf(&b, "\n%d [%s]", c.Count, c.State)
		if d, ok := c.Waits.Longest(); ok {
			fmt.Fprintf(&b, " waits %s", d)
		}
		if c.Proved > 0 {
			fmt.Fprintf(&b, " proved %d", c.Proved)
		}
		if c.Locked > 0 {
			fmt.Fprintf(&b, " locked %d", c.Locked)
		}
		if c.Cut {
			b.WriteString(" cut")
		}
		for _, l := range c.Labels {
			fmt.Fprintf(&b, " %q=%q", l.Key, l.Value)
		}
		fmt.Fprintf(&b, " depth %d\n", c.Depth)
		for _, f := range c.Stack {
			fmt.Fprintf(&b, "\t%s\n", f)
		}
		for _, by := range c.Created {
			fmt.Fprintf(&b, "\tcreated by %s %d\n", by.Frame, by.Count)
		}
	}
	return b.String()
}

// golden compares with a file, or writes it with UPDATE=1.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if os.Getenv("UPDATE") == "1" {
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	if !assert.Equal(t, string(want), got) {
		_ = os.WriteFile(file+".got", []byte(got), 0o644)
	}
}

func parseFile(tb testing.TB, file string) *Snapshot {
	tb.Helper()
	r, err := os.Open(file)
	require.NoError(tb, err)
	defer r.Close()
	s, err := Parse(r)
	require.NoError(tb, err, file)
	return s
}

func recordings(tb testing.TB) []string {
	tb.Helper()
	files, err := filepath.Glob("testdata/dumps/go1.*")
	require.NoError(tb, err)
	require.NotEmpty(tb, files)
	return files
}

// TestRecordings reads what Go releases from 1.18 to 1.27 have printed.
func TestRecordings(t *testing.T) {
	t.Parallel()
	for _, file := range recordings(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			s := parseFile(t, file)
			assert.Zero(t, s.Torn, "%v", s.First)
			golden(t, filepath.Join("testdata/dumps/golden", filepath.Base(file)+".golden"), list(s))
		})
	}
}

// TestOneKey: the same goroutines have the same key in a profile and in each kind
// of dump of a release, and across releases.
func TestOneKey(t *testing.T) {
	t.Parallel()
	places := map[string]map[Key][]string{}
	for _, file := range recordings(t) {
		if strings.Contains(file, "debug1") || strings.Contains(file, "leak") {
			continue // the text does not say what they wait for; the other is some of them
		}
		for _, c := range parseFile(t, file).Clusters {
			name := c.Entry().Func
			// Who runs is not at one place, old dumps hide who runs finalizers, and
			// closures of closures had other names before Go 1.21.
			if !strings.HasPrefix(name, "main.") || name == "main.main" || name == "main.finalize" || c.State.class() == onCPU ||
				strings.Contains(name, "func11") || wrapped(file, c) {
				continue
			}
			if places[name] == nil {
				places[name] = map[Key][]string{}
			}
			places[name][c.Key] = append(places[name][c.Key], filepath.Base(file))
		}
	}
	assert.GreaterOrEqual(t, len(places), 12)
	for name, keys := range places {
		if len(keys) == 1 || name == "main.main.func2" || name == "main.main.func3" || name == "main.main.func5" || name == "main.main.func12" {
			continue // the library's frames above differ between releases
		}
		t.Errorf("%s has %d keys: %v", name, len(keys), keys)
	}
	// Within a release those are the same too.
	for _, v := range releases(t) {
		profile := parseFile(t, "testdata/dumps/"+v+".debug0.pb.gz")
		for _, kind := range []string{".debug2.txt", ".panic.txt", ".system.txt"} {
			dump := parseFile(t, "testdata/dumps/"+v+kind)
			for _, c := range profile.Clusters {
				if name := c.Entry().Func; name == "main.main" || name == "main.finalize" || c.State.class() == onCPU || wrapped(v+kind, c) {
					continue
				}
				d := dump.Find(c.Key)
				if assert.NotNil(t, d, "%s%s: %s [%s]", v, kind, c.Entry(), c.State) {
					assert.Equal(t, c.Count, d.Count)
					assert.NotEmpty(t, d.Created, "%s%s: %s", v, kind, c.Entry())
				}
			}
		}
	}
}

// wrapped says that a cluster has another outermost frame in a dump at
// GOTRACEBACK=system: before Go 1.22 a wrapper of a go statement looks like a
// closure.
func wrapped(file string, c *Cluster) bool {
	old := strings.Contains(file, "go1.18.") || strings.Contains(file, "go1.21.")
	entry := c.Entry().Func
	return old && strings.Contains(file, ".system.") &&
		(entry == "main.(*pool[...]).work" || entry == "main.(*server).wait" || entry == "main.deep" || strings.HasPrefix(entry, "main.main.func1"))
}

func releases(tb testing.TB) (vs []string) {
	for _, file := range recordings(tb) {
		if v, ok := strings.CutSuffix(filepath.Base(file), ".debug0.pb.gz"); ok {
			vs = append(vs, v)
		}
	}
	require.GreaterOrEqual(tb, len(vs), 5)
	return vs
}

func TestHeader(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		line string
		want goroutine
	}{
		{"goroutine 1 [running]:", goroutine{id: 1, state: "running"}},
		{"goroutine 7 [chan receive, 3 minutes, locked to thread]:", goroutine{id: 7, state: "chan receive", waits: Waits{3 * time.Minute, true}, locked: true}},
		{"goroutine 7 [chan send (leaked)]:", goroutine{id: 7, state: "chan send", waits: Waits{0, true}, proved: 1}},
		{"goroutine 7 [chan send (leaked) (scan), 12 minutes]:", goroutine{id: 7, state: "chan send", waits: Waits{12 * time.Minute, true}, proved: 1}},
		{"goroutine 7 gp=0xc000007c00 m=nil [select]:", goroutine{id: 7, state: "select", waits: Waits{0, true}}},
		{"goroutine 7 gp=0xc000007c00 m=3 mp=0xc0000 [syscall, 1 minutes]:", goroutine{id: 7, state: "syscall", waits: Waits{time.Minute, true}}},
		{"goroutine 7 [chan receive (durable), synctest bubble 1]:", goroutine{id: 7, state: "chan receive (durable)", waits: Waits{0, true}}},
		{"goroutine 35 [sleep (durable), synctest bubble 34]:", goroutine{id: 35, state: "sleep (durable)", waits: Waits{0, true}}},
		{`goroutine 7 [chan receive labels:{"k": "v\"x"}]:`, goroutine{id: 7, state: "chan receive", waits: Waits{0, true}, labels: []Label{{"k", `v"x`, 0}}}},
		{`goroutine 7 [chan receive, 2 minutes labels:{"a": "]:", "b": "c"}]:`, goroutine{id: 7, state: "chan receive", waits: Waits{2 * time.Minute, true}, labels: []Label{{"a", "]:", 0}, {"b", "c", 0}}}},
		{`goroutine 19 [chan receive] {k: "v\"x", route: "GET /a b"}:`, goroutine{id: 19, state: "chan receive", waits: Waits{0, true}, labels: []Label{{"k", `v"x`, 0}, {"route", "GET /a b", 0}}}},
		{`goroutine 19 gp=0x1 m=nil [select, 9 minutes] {a: b/c}:`, goroutine{id: 19, state: "select", waits: Waits{9 * time.Minute, true}, labels: []Label{{"a", "b/c", 0}}}},
	} {
		tt.want.count = 1
		got, ok := parseHeader(tt.line)
		require.True(t, ok, tt.line)
		assert.Equal(t, tt.want, got, tt.line)
	}
	for _, line := range []string{
		"", "goroutine", "goroutine 1", "goroutine 1 [running]", "goroutine x [running]:", "goroutine 1 running:", "goroutine -1 [running]:",
		"goroutine 1 [running:", "goroutine 1 lost=2 [running]:", `goroutine 1 [select] {a: "b":`, "goroutine 18446744073709551616 [running]:",
		"goroutine running on other thread; stack unavailable",
	} {
		_, ok := parseHeader(line)
		assert.False(t, ok, line)
	}
}

const twoGoroutines = `goroutine 1 [chan receive]:
main.a(0x1)
	/src/a.go:1 +0x1
created by main.main in goroutine 1
	/src/a.go:9 +0x2

goroutine 2 [select]:
main.b(0x1)
	/src/b.go:2 +0x1
created by main.main in goroutine 1
	/src/b.go:8 +0x2
`

// TestTorn cuts a dump at every byte: each goroutine whose header is whole is
// kept, and the first is whole as long as its last line is.
func TestTorn(t *testing.T) {
	t.Parallel()
	first := strings.Index(twoGoroutines, "]:") + len("]:")
	second := strings.LastIndex(twoGoroutines, "]:") + len("]:")
	end := strings.Index(twoGoroutines, "a.go:9") + len("a.go:9")
	for n := range len(twoGoroutines) {
		s, err := Parse(strings.NewReader(twoGoroutines[:n]))
		want := 0
		for _, at := range []int{first, second} {
			if n >= at {
				want++
			}
		}
		if want == 0 {
			require.ErrorIs(t, err, ErrNoGoroutines, "%d bytes", n)
			continue
		}
		require.NoError(t, err, "%d bytes", n)
		require.Equal(t, want, s.Goroutines, "%d bytes", n)
		if n >= end {
			found := false
			for _, c := range s.Clusters {
				found = found || len(c.Created) == 1 && c.Created[0].Place() == "a.go:9" && (!c.Cut || want == 1)
			}
			require.True(t, found, "%d bytes: %s", n, list(s))
		}
	}
}

// TestInterleaved: another writer's lines between, before and in the middle of a
// dump's lose no goroutine.
func TestInterleaved(t *testing.T) {
	t.Parallel()
	lines := strings.SplitAfter(twoGoroutines, "\n")
	for i := range lines {
		for _, junk := range []string{"2026/11/21 listening on :8080\n", "\x00\xff{\"level\":\"info\"}\n", "level=info msg=unfinished", "\tat com.example.Main(Main.java:7)\n", "created by\n", strings.Repeat("x", 200<<10) + "\n"} {
			text := "PANIC\n" + strings.Join(lines[:i], "") + junk + strings.Join(lines[i:], "")
			s, err := Parse(strings.NewReader(text))
			require.NoError(t, err, "%q before line %d", junk[:5], i)
			assert.Equal(t, 2, s.Goroutines, "%q before line %d", junk[:5], i)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"main.f":                                    "main.f",
		"main.F[go.shape.int]":                      "main.F[...]",
		"main.(*T[...]).m":                          "main.(*T[...]).m",
		"main.F[map[string][]int].func1":            "main.F[...].func1",
		"a.com/b/vendor/c.com/d.F":                  "c.com/d.F",
		"a.com/vendor/b.com/vendor/c.com/d.F":       "c.com/d.F",
		"gopkg.in/yaml%2ev3.(*Decoder).Decode":      "gopkg.in/yaml.v3.(*Decoder).Decode",
		"main.(*T).m-fm":                            "main.(*T).m",
		"main.main.gowrap2":                         "main.main.gowrap2",
		"main.F[a.com/b.T[int],b.com/vendor/c/d.S]": "main.F[...]",
		"main.unclosed[int":                         "main.unclosed[...]",
		"main.stray]":                               "main.stray]",
		"main.%zz":                                  "main.%zz",
		"main.%252e":                                "main.%252e",
		"-fm":                                       "-fm",
	} {
		assert.Equal(t, want, canonical(name), name)
		assert.Equal(t, want, canonical(want), "it is canonical")
	}
	for fn, want := range map[string]bool{
		"net/http.(*conn).serve": true, "time.Sleep": true, "internal/poll.(*FD).Read": true, "iter.Pull[...]": true, "sync.(*Mutex).Lock": true,
		"main.main": false, "github.com/a/b.F": false, "myapp/http.Serve": false, "net.(*conn).Read": true,
		"golang.org/x/sync/errgroup.(*Group).Go.func1": false, "main.F[net/http.Request]": false, "bufio/x.F": false,
	} {
		assert.Equal(t, want, standard(fn), fn)
	}
}

// TestDumpPlaces: Windows paths, paths with blanks, frames without their file,
// and what cgo adds.
func TestDumpPlaces(t *testing.T) {
	t.Parallel()
	s, err := Parse(strings.NewReader("goroutine 1 [select]:\r\n" +
		"main.a({0x1, 0x2})\r\n\tC:/my code/a.go:12 +0x1\r\n" +
		"non-Go function\r\n\tpc=0x1234\r\n" +
		"main.b(...)\r\n\t/x y/b:c.go:3\r\n" +
		"created by main.c\r\n\tC:/c.go:7 +0x1\r\n"))
	require.NoError(t, err)
	c := s.Clusters[0]
	assert.Equal(t, []Frame{{"main.a", "C:/my code/a.go", 12}, {"main.b", "/x y/b:c.go", 3}}, c.Stack)
	assert.Equal(t, []Creator{{Frame{"main.c", "C:/c.go", 7}, 1}}, c.Created)
	assert.Zero(t, s.Torn)
	assert.False(t, c.Cut)
}

// TestBounds: however many stacks and creators there are, a bounded number is
// kept, and the rest is counted.
func TestBounds(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i := range 10000 {
		fmt.Fprintf(&b, "goroutine %d [select]:\nmain.f%d()\n\t/a.go:1 +0x1\ncreated by main.g\n\t/b.go:%d\n\n", i+1, i, i+1)
	}
	s, err := Parse(strings.NewReader(b.String()))
	require.NoError(t, err)
	assert.Equal(t, 10000, s.Goroutines)
	assert.Len(t, s.Clusters, maxClusters)
	assert.Equal(t, 10000-maxClusters, s.Beyond)

	b.Reset()
	for i := range 1000 {
		fmt.Fprintf(&b, "goroutine %d [select]:\nmain.f()\n\t/a.go:1 +0x1\ncreated by main.g\n\t/b.go:%d\n\n", i+1, i+1)
	}
	s, err = Parse(strings.NewReader(b.String()))
	require.NoError(t, err)
	require.Len(t, s.Clusters, 1)
	assert.Len(t, s.Clusters[0].Created, maxCreators)
	assert.Equal(t, 1000, s.Clusters[0].Count)
}

// TestCreatedAs: a profile that was read from outside says where goroutines were
// created, and a label of the program's own is left as it is.
func TestCreatedAs(t *testing.T) {
	t.Parallel()
	parse := func(labels map[string][]string) *Cluster {
		f := &profile.Function{ID: 1, Name: "main.work", Filename: "/src/a.go"}
		l := &profile.Location{ID: 1, Line: []profile.Line{{Function: f, Line: 7}}}
		var b bytes.Buffer
		require.NoError(t, (&profile.Profile{
			SampleType: []*profile.ValueType{{Type: "goroutine", Unit: "count"}},
			Sample:     []*profile.Sample{{Value: []int64{3}, Location: []*profile.Location{l}, Label: labels}},
			Location:   []*profile.Location{l}, Function: []*profile.Function{f},
		}).Write(&b))
		s, err := Parse(&b)
		require.NoError(t, err)
		return s.Clusters[0]
	}
	c := parse(map[string][]string{"created_by": {"main.main"}, "created_at": {"/a b/m.go:12"}, "state": {"waiting"}, "route": {"/x"}})
	assert.Equal(t, []Creator{{Frame{"main.main", "/a b/m.go", 12}, 3}}, c.Created)
	assert.Equal(t, []Label{{"route", "/x", 3}}, c.Labels)
	for _, labels := range []map[string][]string{
		{"created_by": {"the nightly job"}},
		{"created_by": {"me"}, "created_at": {"noon"}},
		{"created_by": {"me", "you"}, "created_at": {"m.go:12"}},
	} {
		c = parse(labels)
		assert.Empty(t, c.Created)
		assert.NotEmpty(t, c.Labels)
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	packed := func(b []byte) []byte {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		_, _ = w.Write(b)
		_ = w.Close()
		return z.Bytes()
	}
	real, err := os.ReadFile("testdata/dumps/go1.26.8.debug0.pb.gz")
	require.NoError(t, err)
	for name, in := range map[string][]byte{
		"empty":            nil,
		"no goroutines":    []byte("nothing of the kind\n"),
		"half a profile":   real[:len(real)/2],
		"not a profile":    {0, 1, 2, 3},
		"empty gzip":       packed(nil),
		"gzip in gzip":     packed(real),
		"text without any": []byte("goroutine profile: total 1\nx\n"),
		"a heap's profile": packed([]byte{0x0a, 0x04, 0x08, 0x01, 0x10, 0x02, 0x32, 0x00, 0x32, 0x01, 'a', 0x32, 0x01, 'b'}),
		"more than 64 MiB": packed(append([]byte{0x0a, 0}, make([]byte, maxProfile)...)),
	} {
		s, err := Parse(bytes.NewReader(in))
		require.Error(t, err, name)
		assert.Nil(t, s, name)
		assert.Contains(t, err.Error(), "leak: parse: ", name)
	}
	_, err = Parse(iotest.ErrReader(io.ErrClosedPipe))
	require.ErrorIs(t, err, io.ErrClosedPipe)
	s, err := Parse(io.MultiReader(strings.NewReader(twoGoroutines), iotest.ErrReader(io.ErrClosedPipe)))
	require.NoError(t, err, "what was read before the error counts")
	assert.Equal(t, 2, s.Goroutines)
	s, err = Parse(strings.NewReader("goroutine profile: total 0\n"))
	require.NoError(t, err, "no leaked goroutine is an answer")
	assert.Zero(t, s.Goroutines)
	s, err = Parse(bytes.NewReader(packed([]byte(twoGoroutines))))
	require.NoError(t, err, "a dump that was compressed")
	assert.Equal(t, 2, s.Goroutines)
}

// FuzzParse holds that whatever is read, the counts agree, the bounds hold, and
// reading the clusters' own words back finds the same number of goroutines.
func FuzzParse(f *testing.F) {
	for _, file := range recordings(f) {
		b, err := os.ReadFile(file)
		require.NoError(f, err)
		if len(b) < 12<<10 {
			f.Add(b)
		}
	}
	f.Add([]byte(twoGoroutines))
	f.Add([]byte("goroutine 1 [a, b labels:{\"]\": \"\\\"\"}]:\ngoroutine profile: total 3\n2 @\n#\t0x1\ta.b+0x1\t/c.go:1\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := Parse(bytes.NewReader(in))
		if err != nil {
			require.Nil(t, s)
			return
		}
		checkSnapshot(t, s)
		require.NoError(t, s.WriteText(io.Discard, 80, true))
		if s.Format == Dump && s.Goroutines < 1000 {
			again, err := Parse(strings.NewReader(asDump(s)))
			require.NoError(t, err)
			require.Equal(t, s.Goroutines-s.Beyond, again.Goroutines)
			require.Len(t, again.Clusters, len(s.Clusters))
			for _, c := range s.Clusters {
				require.NotNil(t, again.Find(c.Key), "%q", c.Stack)
			}
		}
		d := Compare(s, s)
		require.Empty(t, d.Appeared)
		require.Empty(t, d.Grew)
		require.Empty(t, d.Shrank)
		require.Len(t, d.Stayed, len(s.Clusters))
		m := Merge(s, s)
		require.Equal(t, 2*s.Goroutines, m.Goroutines)
		checkSnapshot(t, m)
	})
}

func checkSnapshot(t *testing.T, s *Snapshot) {
	t.Helper()
	sum := s.Beyond
	keys := map[Key]bool{}
	require.LessOrEqual(t, len(s.Clusters), maxClusters)
	for i, c := range s.Clusters {
		require.False(t, keys[c.Key])
		keys[c.Key] = true
		require.Positive(t, c.Count)
		require.LessOrEqual(t, c.Proved, c.Count)
		require.LessOrEqual(t, len(c.Stack), maxFrames)
		require.LessOrEqual(t, len(c.Created), maxCreators)
		require.LessOrEqual(t, len(c.Labels), maxLabels)
		require.Equal(t, c.Key, keyOf(c.State.class(), c.Stack))
		created := 0
		for _, by := range c.Created {
			created += by.Count
		}
		require.LessOrEqual(t, created, c.Count)
		for _, f := range c.Stack {
			require.NotEmpty(t, f.Func)
			require.GreaterOrEqual(t, f.Line, 0)
		}
		if i > 0 && s.Format != Merged {
			require.LessOrEqual(t, c.Count, s.Clusters[i-1].Count)
		}
		sum += c.Count
	}
	require.Equal(t, s.Goroutines, sum)
	require.Equal(t, s.Torn > 0, s.First != nil)
}

// asDump writes clusters as a dump that says the same.
func asDump(s *Snapshot) string {
	var b strings.Builder
	for _, c := range s.Clusters {
		for range c.Count {
			fmt.Fprintf(&b, "goroutine 1 [%s]:\n", c.State)
			for _, f := range c.Stack {
				fmt.Fprintf(&b, "%s()\n\t%s:%d\n", f.Func, "/a.go", f.Line)
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

// The first kilobytes of a profile may have no NUL in them: it is one all the same.
func TestProfileWithoutNUL(t *testing.T) {
	t.Parallel()
	f := &profile.Function{ID: 1, Name: "main.wait", Filename: "main.go"}
	l := &profile.Location{ID: 1, Address: 0x1111111111, Line: []profile.Line{{Function: f, Line: 7}}}
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "goroutine", Unit: "count"}}, PeriodType: &profile.ValueType{Type: "goroutine", Unit: "count"}, Period: 1,
		Function: []*profile.Function{f}, Location: []*profile.Location{l},
	}
	for range 2000 {
		p.Sample = append(p.Sample, &profile.Sample{Location: []*profile.Location{l, l, l}, Value: []int64{1}})
	}
	var packed, plain bytes.Buffer
	require.NoError(t, p.Write(&packed))
	require.NoError(t, p.WriteUncompressed(&plain))
	require.Negative(t, bytes.IndexByte(plain.Bytes()[:4<<10], 0))
	periodFirst := append([]byte("Z\x04\b\x01\x10\x02`\x01"), plain.Bytes()...) // as runtime/pprof does
	for _, b := range [][]byte{packed.Bytes(), plain.Bytes(), periodFirst} {
		s, err := Parse(bytes.NewReader(b))
		require.NoError(t, err)
		assert.Equal(t, Profile, s.Format)
		assert.Equal(t, 2000, s.Goroutines)
	}
}
