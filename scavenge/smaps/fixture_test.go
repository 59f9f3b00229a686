// SPDX-License-Identifier: Apache-2.0

package smaps

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A fact is something that the producer knew about its own addresses.
type fact struct {
	kind Kind
	Range
	what string
}

type fixture struct {
	facts         []fact
	metadataBytes uint64
	smaps         []byte
}

func parseFixture(t testing.TB, b []byte) fixture {
	t.Helper()
	var f fixture
	for bytes.HasPrefix(b, []byte("#")) {
		line, rest, _ := bytes.Cut(b, []byte("\n"))
		b = rest
		s := strings.TrimPrefix(string(line), "# ")
		if _, err := fmt.Sscanf(s, "metadata-bytes %d", &f.metadataBytes); err == nil {
			continue
		}
		var kind string
		var fa fact
		if n, _ := fmt.Sscanf(s, "%s %x %x", &kind, &fa.Start, &fa.End); n != 3 {
			continue // a note
		}
		for k, name := range kindNames {
			if name == kind {
				fa.kind = Kind(k)
			}
		}
		require.NotZero(t, fa.kind, s)
		fa.what = s
		f.facts = append(f.facts, fa)
	}
	require.NotEmpty(t, f.facts)
	f.smaps = b
	return f
}

// build compiles the producer with a Go release; "" is the one on the path.
func build(t *testing.T, version string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	src, err := filepath.Glob("testdata/producer/*.go")
	require.NoError(t, err)
	for _, name := range src {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, filepath.Base(name)), b, 0o600))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module producer\n\ngo 1.18\n"), 0o600))
	exe := filepath.Join(dir, "producer")
	cgo := "CGO_ENABLED=0"
	if len(args) > 0 && (args[0] == "-race" || args[0] == "-tags=cgo") {
		cgo = "CGO_ENABLED=1"
	}
	cmd := exec.Command("go", append(append([]string{"build", "-buildvcs=false", "-o", exe}, args...), ".")...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), cgo, "GOFLAGS=", "GOWORK=off")
	if version != "" {
		cmd.Env = append(cmd.Env, "GOTOOLCHAIN="+version)
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return exe
}

var recordings = []struct {
	name, version string
	build, run    []string
}{
	{"go1.18", "go1.18.10", nil, []string{"-mmap=200"}},
	{"go1.20-small-objects", "go1.20.14", nil, []string{"-heap=100", "-object=8"}},
	{"go1.22", "go1.22.12", nil, []string{"-mmap=64", "-file=8", "-shm=8"}},
	{"go1.25", "go1.25.8", nil, []string{"-mmap=200"}},
	{"go1.26", "go1.26.8", nil, []string{"-mmap=200", "-file=32", "-shm=16"}},
	{"go1.26-large-heap", "go1.26.8", nil, []string{"-heap=1500"}},
	{"go1.26-small-objects", "go1.26.8", nil, []string{"-heap=100", "-object=8", "-mmap=40"}},
	{"go1.26-pie", "go1.26.8", []string{"-buildmode=pie"}, []string{"-mmap=40"}},
	{"go1.26-cgo", "go1.26.8", []string{"-tags=cgo"}, []string{"-malloc=200", "-threads=8", "-mmap=100"}},
	{"go1.26-race", "go1.26.8", []string{"-race", "-gcflags=-d=checkptr=0"}, []string{"-malloc=20", "-threads=4", "-mmap=100"}},
	{"go1.22-cgo", "go1.22.12", []string{"-tags=cgo"}, []string{"-malloc=100", "-threads=4"}},
	{"go1.27", "go1.27.3", nil, []string{"-mmap=200"}},
	{"go1.27-cgo-pie", "go1.27.3", []string{"-tags=cgo", "-buildmode=pie"}, []string{"-malloc=16", "-threads=2", "-file=8"}},
}

// TestRecordings checks the classification of recorded programs against what each of them
// knew. UPDATE=1 records them anew, which fetches the toolchains.
func TestRecordings(t *testing.T) {
	t.Parallel()
	for _, rec := range recordings {
		t.Run(rec.name, func(t *testing.T) {
			name := filepath.Join("testdata", rec.name+".smaps")
			if os.Getenv("UPDATE") != "" {
				out, err := exec.Command(build(t, rec.version, rec.build...), rec.run...).Output()
				require.NoError(t, err)
				note := fmt.Sprintf("# producer %s, built with %s %s\n", strings.Join(rec.run, " "), rec.version, strings.Join(rec.build, " "))
				require.NoError(t, os.WriteFile(name, append([]byte(note), out...), 0o644))
			}
			b, err := os.ReadFile(name)
			require.NoError(t, err)
			checkFixture(t, parseFixture(t, b))
		})
	}
}

// TestToday does the same with the toolchain and kernel of today.
func TestToday(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	for _, rec := range []struct {
		name  string
		build []string
		run   []string
	}{
		{"static", nil, []string{"-mmap=200", "-file=32", "-shm=16"}},
		{"cgo", []string{"-tags=cgo"}, []string{"-malloc=200", "-threads=8", "-mmap=200"}},
	} {
		t.Run(rec.name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath("go"); err != nil {
				t.Skip("needs the go command: ", err)
			}
			if _, err := exec.LookPath("gcc"); err != nil && rec.build != nil {
				t.Skip("cgo needs a C compiler: ", err)
			}
			out, err := exec.Command(build(t, "", rec.build...), rec.run...).Output()
			require.NoError(t, err)
			checkFixture(t, parseFixture(t, out))
		})
	}
}

func checkFixture(t *testing.T, f fixture) {
	t.Helper()
	hints := map[string]Hints{
		"go":             {Go: true},
		"heap address":   {HeapAddrs: []uint64{f.facts[0].Start}},
		"metadata bytes": {Go: true, MetadataBytes: f.metadataBytes},
	}
	var exact Hints
	for _, fa := range f.facts {
		if fa.kind == GoHeap && strings.HasSuffix(fa.what, " arena") {
			exact.HeapRanges = append(exact.HeapRanges, fa.Range)
		}
	}
	hints["heap ranges"] = exact
	for name, h := range hints {
		p, err := Parse(bytes.NewReader(f.smaps), h)
		require.NoError(t, err)
		require.Empty(t, p.SyntaxErrors)
		for i := range p.Mappings {
			// The kernel merges neighbours of different owners; then the most bytes count.
			m, owners := &p.Mappings[i], [numKinds]uint64{}
			var facts []string
			for _, fa := range f.facts {
				if lo, hi := max(m.Start, fa.Start), min(m.End, fa.End); lo < hi {
					owners[fa.kind] += hi - lo
					facts = append(facts, fa.what)
				}
			}
			if want := slices.Max(owners[:]); want > 0 {
				assert.Equal(t, Kind(slices.Index(owners[:], want)), m.Kind, "with hint %q: %x-%x %v (%d KiB) holds %q",
					name, m.Start, m.End, m.Perms, m.Len()>>10, facts)
			}
		}
	}
}
