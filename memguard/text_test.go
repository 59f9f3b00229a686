// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// golden compares with a file of testdata. UPDATE=1 rewrites it; a failure
// leaves what was got beside it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE") != "" {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "UPDATE=1 writes it")
	if string(want) != got {
		require.NoError(t, os.WriteFile(path+".got", []byte(got), 0o644))
	}
	require.Equal(t, string(want), got, "%s: UPDATE=1 rewrites it", name)
}

// hostile is what a process may call itself to take over the terminal of
// somebody who looks at it.
const hostile = "\x1b]0;owned\x07\x1b[2J\x1b[31mPWNED\x1b[0m\r\n\u202egnp.exe\xff\u0000"

// reports are what is written in the golden files.
func reports() map[string]*Report {
	// From inside, in trouble: a leak near the limit, page cache, fragmentation.
	inside := NewJudge()
	press := pressures["oom-forecast"].new()
	var s *Sample
	for i := range 95 {
		s = healthy(float64(i))
		press(s, 1)
		s.Runtime.Unused = plus(s.Runtime.Unused, Known[uint64](150*mebi))
		s.Cgroup.Pressure = Known(12.5)
		add(s, 20*mebi)
		inside.Step(s)
	}
	s.Cgroup.Members = []Member{{PID: 4711, Anon: Known[uint64](300 * mebi)}, {PID: 4712, Why: "open /proc/4712/status: permission denied"}}
	s.Blind = []Blind{{"cgroup", "memory.pressure: no such file or directory"}}

	// From outside, with an address space, under a hostile name.
	outside := healthy(0)
	withMaps(outside, 226*mebi, 40*mebi, 0)
	outside.Runtime = Runtime{Origin: FromEnviron, GCPercent: Known[int64](100), MemoryLimit: Known[uint64](Unlimited)}
	outside.Process.Exe = "/tmp/" + hostile
	outside.Process.Build = "go1.26\x1b[31m"
	outside.Cgroup.Path = "/kubepods/" + hostile
	outside.Cgroup.Limit = Known[uint64](Unlimited)
	for i := range 9 {
		outside.Cgroup.Members = append(outside.Cgroup.Members, Member{PID: 100 + i, Anon: Known(uint64(i) * 10 * mebi)})
	}
	outside.Blind = []Blind{
		{"runtime", "another process: " + hostile},
		{"environment", "open /proc/4711/environ: permission denied"},
	}
	from := NewJudge()
	from.Step(outside)

	// Hardly anything is known.
	nothing := &Sample{Time: at(0), PID: 4711, Cgroup: Cgroup{Version: 2, Path: "/"}, Blind: []Blind{{"process", "open /proc/4711/statm: permission denied"}}}
	blind := NewJudge()
	blind.Step(nothing)

	return map[string]*Report{
		"inside":  newReport(s, inside, 94*time.Second),
		"outside": newReport(outside, from, 3*time.Second),
		"nothing": newReport(nothing, blind, 0),
	}
}

func TestReportGoldenText(t *testing.T) {
	t.Parallel()
	for name, r := range reports() {
		for _, width := range []int{40, 80, 120} {
			var b bytes.Buffer
			require.NoError(t, Text{Width: width}.Report(&b, r))
			harmless(t, b.String())
			for line := range strings.Lines(b.String()) {
				assert.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), width, "%s at %d columns: %q", name, width, line)
				assert.Equal(t, strings.TrimRight(line, " \n")+"\n", line, "blanks at the end")
			}
			golden(t, fmt.Sprintf("report-%s-%d.txt", name, width), b.String())
		}
	}
}

func TestReportGoldenJSON(t *testing.T) {
	t.Parallel()
	for name, r := range reports() {
		text, err := json.MarshalIndent(r, "", "  ")
		require.NoError(t, err)
		golden(t, fmt.Sprintf("report-%s.json", name), string(text)+"\n")
		var back Report
		require.NoError(t, json.Unmarshal(text, &back))
		assert.Equal(t, r.Ledger.Rows, back.Ledger.Rows)
		assert.Equal(t, r.Findings, back.Findings)
		assert.Equal(t, r.Left, back.Left)

		// What programs rely on.
		var top map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(text, &top))
		for _, key := range []string{"verdict", "findings", "ledger", "blind", "time_to_limit_seconds"} {
			assert.Contains(t, top, key)
		}
		assert.NotEqual(t, "null", string(top["findings"]), "none is [], not null")
		assert.NotEqual(t, "null", string(top["blind"]))
	}
}

// Colour is all that colour adds.
func TestReportInColour(t *testing.T) {
	t.Parallel()
	for name, r := range reports() {
		var plain, colour bytes.Buffer
		require.NoError(t, Text{}.Report(&plain, r))
		require.NoError(t, Text{Color: true}.Report(&colour, r))
		bare := colour.String()
		for _, code := range []string{"0", bold, dim, red, yellow, cyan} {
			bare = strings.ReplaceAll(bare, "\x1b["+code+"m", "")
		}
		harmless(t, bare)
		assert.Equal(t, plain.String(), bare, name)
		assert.NotEqual(t, plain.String(), colour.String())
	}
}

func harmless(t *testing.T, s string) {
	t.Helper()
	require.True(t, utf8.ValidString(s))
	for _, c := range s {
		require.True(t, c == '\n' || unicode.IsGraphic(c), "%q reaches the terminal", c)
	}
}

func TestLedgerText(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	require.NoError(t, Text{Width: 60}.Ledger(&b, NewLedger(healthy(0))))
	assert.True(t, strings.HasPrefix(b.String(), "WHERE THE PROCESS'S MEMORY IS\n"))
	golden(t, "ledger.txt", b.String())
}

// A writer that fails is an error, not a panic.
func TestReportToAFullDisk(t *testing.T) {
	t.Parallel()
	r := reports()["inside"]
	assert.ErrorIs(t, Text{}.Report(fullDisk{}, r), os.ErrClosed)
	assert.ErrorIs(t, Text{}.Ledger(fullDisk{}, r.Ledger), os.ErrClosed)
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestVerdict(t *testing.T) {
	t.Parallel()
	verdict := func(from, to float64, change func(s *Sample, t float64)) string {
		j := NewJudge()
		var s *Sample
		for i := from; i < to; i++ {
			s = healthy(i)
			change(s, i)
			j.Step(s)
		}
		return newReport(s, j, 0).Verdict
	}
	nothing := func(*Sample, float64) {}
	assert.Equal(t, "Nothing wrong found: 288 MiB resident, the cgroup at 298 MiB of 1024 MiB (29 %); most of it is go/heap/live (120 MiB).", verdict(0, 3, nothing))
	assert.Contains(t, verdict(0, 3, func(s *Sample, _ float64) { s.Cgroup = Cgroup{} }), ", the limit is unknown;")
	assert.Contains(t, verdict(0, 3, func(s *Sample, _ float64) { s.Cgroup.Limit = Known[uint64](Unlimited) }), ", no memory limit;")
	assert.Contains(t, verdict(0, 3, func(s *Sample, _ float64) { s.Runtime = Runtime{} }), "Nothing wrong found from outside:")
	assert.Equal(t, "Nothing could be said: the process's memory is not readable.", verdict(0, 3, func(s *Sample, _ float64) { s.Process = Process{} }))

	bloat := func(s *Sample, _ float64) {
		s.Runtime.Stacks, s.Runtime.Unused = Known[uint64](300*mebi), Known[uint64](300*mebi)
		s.Cgroup.Limit = Known[uint64](Unlimited)
		add(s, 20*mebi)
	}
	assert.Regexp(t, `\(and 1 more\)$`, verdict(0, 3, bloat))

	// Too early for an alarm is not all well.
	press := pressures["oom-forecast"].new()
	assert.Contains(t, verdict(0, 8, func(s *Sample, _ float64) { press(s, 1) }), "It grows: look for longer")
}
