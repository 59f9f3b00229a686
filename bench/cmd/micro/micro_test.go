// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every path of the table has its benchmark, and that reports what the table
// says. One round each: the figures are no measurement.
func TestPaths(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("the go command cannot be run here: ", err)
	}
	var stdout, stderr bytes.Buffer
	require.Equal(t, exitFine, run([]string{"--benchtime", "1x", "--json"}, &stdout, &stderr), "%s", stderr.String())
	var rows []row
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &rows))
	require.Len(t, rows, len(paths))
	for i, r := range rows {
		p := paths[i]
		assert.Equal(t, p.Name, r.Path)
		if r.Skipped {
			t.Logf("%s was skipped; its benchmark says why:\n%s", r.Bench, stderr.String())
			continue
		}
		require.NotNil(t, r.Ratio, r.Bench)
		assert.Positive(t, *r.Ratio, r.Bench)
		assert.Equal(t, p.ours == "", r.Ours == nil, r.Bench)
		assert.Equal(t, p.theirs == "", r.Theirs == nil, r.Bench)
		assert.Equal(t, p.allocs.metric == "", r.Allocs == nil, r.Bench)
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args   []string
		status int
		stderr string
	}{
		"help":      {[]string{"--help"}, exitFine, ""},
		"flag":      {[]string{"--fast"}, exitUsage, "-fast"},
		"argument":  {[]string{"x"}, exitUsage, `unexpected argument "x"`},
		"benchtime": {[]string{"--benchtime", "-1s"}, exitUsage, `--benchtime "-1s": want`},
		"no rounds": {[]string{"--benchtime", "0x"}, exitUsage, `--benchtime "0x": want`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			assert.Equal(t, tt.status, run(tt.args, &stdout, &stderr))
			assert.Contains(t, stderr.String(), tt.stderr)
			assert.Equal(t, tt.status == exitFine, strings.Contains(stdout.String(), "usage: micro"))
		})
	}
}

func TestFill(t *testing.T) {
	t.Parallel()
	p := path{Name: "read", Peer: "other", pkg: "p", bench: "BenchmarkX/a", ours: "ns/read", ratio: "read/other", oursFirst: true, allocs: figure{"BenchmarkY", "allocs/op"}}
	r := results{figures: map[string]map[string]float64{
		"BenchmarkX/a": {"ns/read": 500, "read/other": 0.25},
		"BenchmarkY":   {"allocs/op": 2},
	}}
	got, err := fill(p, r)
	require.NoError(t, err)
	var table bytes.Buffer
	require.NoError(t, writeTable(&table, []row{got, {Path: "write", Peer: "other", Skipped: true}}))
	assert.Equal(t, `hot path  ours     peer   peer's  ratio  allocs/op
read      500ns    other  -       4.00x  2
write     skipped  other

A ratio is what the peer costs for what ours costs: above 1 ours is the cheaper one.
`, table.String())

	// What is missing is named, and is not a zero in the table.
	delete(r.figures, "BenchmarkY")
	got, err = fill(p, r)
	assert.EqualError(t, err, module+"p: BenchmarkY reports no allocs/op")
	assert.Nil(t, got.Allocs)
	r.figures["BenchmarkX/a"]["read/other"] = 0
	got, err = fill(p, r)
	assert.ErrorContains(t, err, "read/other is 0")
	assert.Nil(t, got.Ratio)

	r.skipped = map[string]bool{"BenchmarkX": true}
	got, err = fill(p, r)
	require.NoError(t, err)
	assert.True(t, got.Skipped)
}

func TestParse(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]struct {
		name    string
		figures map[string]float64
	}{
		"BenchmarkUsage-2   \t 667\t    378322 ns/op\t         0 allocs/usage": {"BenchmarkUsage", map[string]float64{"ns/op": 378322, "allocs/usage": 0}},
		"BenchmarkProcfs/smaps 1 0.5 procfs/this":                              {"BenchmarkProcfs/smaps", map[string]float64{"procfs/this": 0.5}},
		"BenchmarkSelf/size=3-small 1 1 ns/op":                                 {"BenchmarkSelf/size=3-small", map[string]float64{"ns/op": 1}},
		"BenchmarkUsage-2":                                                     {},
		"BenchmarkUsage-2 10":                                                  {},
		"BenchmarkUsage-2 10 5":                                                {},
		"BenchmarkUsage-2 ten 5 ns/op":                                         {},
		"BenchmarkUsage-2 10 five ns/op":                                       {},
		"ok  \tgithub.com/memguard/p\t0.266s x":                                {},
		"":                                                                     {},
	} {
		name, figures, ok := parse(line)
		assert.Equal(t, want.name != "", ok, line)
		assert.Equal(t, want.name, name, line)
		assert.Equal(t, want.figures, figures, line)
	}
}

// What is read is what stands there: written again it reads the same.
func FuzzParse(f *testing.F) {
	f.Add("BenchmarkUsage-2   \t 667\t    378322 ns/op\t         0 allocs/usage")
	f.Add("BenchmarkX 1 NaN ns/op")
	f.Add("Benchmark- 1 1 a 2 a")
	f.Add("--- SKIP: BenchmarkUsage")
	f.Fuzz(func(t *testing.T, line string) {
		name, figures, ok := parse(line)
		if !ok {
			assert.Empty(t, name)
			assert.Nil(t, figures)
			return
		}
		assert.Contains(t, line, name)
		assert.NotEmpty(t, figures)
		again := name + "-8 1"
		for metric, v := range figures {
			assert.Contains(t, line, metric)
			again += " " + strconv.FormatFloat(v, 'g', -1, 64) + " " + metric
		}
		name2, figures2, ok := parse(again)
		require.True(t, ok, again)
		assert.Equal(t, name, name2)
		assert.Len(t, figures2, len(figures))
		for metric, v := range figures {
			if v == v { // not a NaN
				assert.Equal(t, v, figures2[metric], metric)
			}
		}
	})
}
