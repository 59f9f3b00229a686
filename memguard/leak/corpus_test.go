// SPDX-License-Identifier: Apache-2.0

package leak

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/memguard/leak/testdata/corpus/programs"
)

// answer is what testdata/corpus prints.
type answer struct {
	Verdicts, Ever []Verdict
	Runtime        int
	At             []Frame
	Stopped        time.Duration
}

// buildCorpus builds the programs, with the goroutineleak profile where the
// toolchain has it.
func buildCorpus(t *testing.T) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "corpus")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", exe, "./testdata/corpus")
	build.Env = os.Environ()
	if strings.HasPrefix(runtime.Version(), "go1.26") {
		build.Env = append(build.Env, "GOEXPERIMENT=goroutineleakprofile")
	}
	start := time.Now()
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Logf("built in %s", time.Since(start).Round(100*time.Millisecond))
	return exe
}

// truth is the lines of the programs' source that have the comment "creates
// NAME", as places, by name.
func truth(t *testing.T) map[string][]string {
	t.Helper()
	files, err := filepath.Glob("testdata/corpus/programs/*.go")
	require.NoError(t, err)
	places := map[string][]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for i, line := range strings.Split(string(text), "\n") {
			if _, name, ok := strings.Cut(line, "// creates "); ok {
				places[name] = append(places[name], fmt.Sprintf("%s:%d", filepath.Base(file), i+1))
			}
		}
	}
	return places
}

// right says that a verdict names what a program leaks.
func right(p programs.Program, places []string, v *Verdict) bool {
	if p.Creator != "" {
		return len(v.Cluster.Created) > 0 && v.Cluster.Created[0].Func == p.Creator
	}
	for _, place := range places {
		if v.Origin().Place() == place {
			return true
		}
	}
	return false
}

// TestCorpus runs each program in a process of its own and prints what was
// found. Every leak is named first and with the right line; no healthy program is
// accused, after any round.
func TestCorpus(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds and runs the corpus")
	}
	exe, places := buildCorpus(t), truth(t)
	all := programs.All()
	answers := make([]answer, len(all))
	var group sync.WaitGroup
	slots := make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))
	start := time.Now()
	for i, p := range all {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			var stderr bytes.Buffer
			cmd := exec.CommandContext(t.Context(), exe, p.Name)
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if assert.NoError(t, err, "%s: %s", p.Name, &stderr) {
				assert.NoError(t, json.Unmarshal(out, &answers[i]), p.Name)
			}
		})
	}
	group.Wait()
	if t.Failed() {
		return
	}
	took := time.Since(start)

	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PROGRAM\tLEAKS AT\tTHIS PACKAGE\tSHAPE\tgoroutineleak PROFILE")
	var leaks, named, sound, accused, proved, runtimeAccused int
	shapes := map[string]bool{}
	for i, p := range all {
		a := answers[i]
		for _, v := range a.Ever {
			if v.Shape != nil {
				shapes[v.Shape.Name] = true
			}
		}
		where, said, shape, runtimes := "-", "-", "-", "-"
		if a.Runtime > 0 {
			runtimes = fmt.Sprintf("%d", a.Runtime)
		}
		if len(a.Verdicts) > 0 {
			v := a.Verdicts[0]
			said = fmt.Sprintf("%s, %d from %s", v.Level, v.Cluster.Count, v.Origin().Place())
			if v.Shape != nil {
				shape = v.Shape.Name
			}
		}
		if !p.Leaks {
			sound++
			if a.Runtime > 0 {
				runtimeAccused++
			}
			for _, v := range a.Ever {
				if !assert.True(t, p.Grows && v.Level == Growing, "%s is healthy: %s: %s", p.Name, v.Level, v.Summary()) {
					accused++
					said = "ACCUSED"
					break
				}
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", p.Name, where, said, shape, runtimes)
			continue
		}
		leaks++
		if a.Runtime > 0 {
			proved++
		}
		where = p.Creator
		if where == "" {
			require.NotEmpty(t, places[p.Name], "no line creates %s", p.Name)
			where = places[p.Name][0]
		}
		level := Leaking
		if p.Grows {
			level = Growing
		}
		if assert.NotEmpty(t, a.Verdicts, "%s leaks", p.Name) {
			v := &a.Verdicts[0]
			ok := assert.True(t, right(p, places[p.Name], v), "%s: %s", p.Name, v.Summary())
			ok = assert.Equal(t, level, v.Level, "%s: %s", p.Name, v.Summary()) && ok
			if p.Shape != "" {
				ok = assert.Equal(t, p.Shape, shape, p.Name) && ok
			}
			if ok {
				named++
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", p.Name, where, said, shape, runtimes)
	}
	require.NoError(t, w.Flush())
	t.Logf("\n%s\n%d programs in %s. %d leaks: named with the line %d, found by the runtime's profile %d. %d healthy: accused %d, by the runtime's profile %d.",
		b.String(), len(all), took.Round(100*time.Millisecond), leaks, named, proved, sound, accused, runtimeAccused)
	for _, s := range Shapes() {
		// Those of libraries that the module does without: bench/peers, TestLibraryShapes.
		if !strings.HasPrefix(s.Name, "grpc-") && !strings.HasPrefix(s.Name, "errgroup") {
			assert.True(t, shapes[s.Name], "no program has the shape %s", s.Name)
		}
	}
	assert.GreaterOrEqual(t, leaks, 20)
	assert.GreaterOrEqual(t, sound, 20)
}
