// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// some are results of two scenarios under two guards, with everything that a
// result may have.
func some() *Results {
	r := newResults(&series{
		scenarios: []*Scenario{&testScenarios[0], &testScenarios[1]},
		guards:    []*Contender{&testContenders[0], &testContenders[1]},
	})
	r.Start = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	held, peak := uint64(50*mib), uint64(64*mib)
	for repeat := 1; repeat <= 2; repeat++ {
		for _, guard := range []string{"plain", "seer"} {
			leak := &Result{
				Scenario: "leak", Guard: guard, Repeat: repeat, Start: r.Start, Limit: 64 * mib, Planned: 30, Ran: 2.5,
				Outcome: Killed, Kills: 1, Done: 60, Goodput: 2 + float64(repeat), CPU: 0.5, Lives: 1, Peak: &peak,
				Deaths: []Death{{At: 2.4, Who: victimPart, How: "killed", Kernel: true, Named: []Named{}}},
				Memory: []Usage{{0.05, 10 * mib, &held}, {0.1, 60 * mib, nil}, {2.4, 64 * mib, &held}},
				Work:   []Work{{At: 0.5, Done: 10}, {At: 1, Done: 40}}, Events: []Event{}, Stderr: []string{"</pre><script>alert(1)</script>"}, Artefacts: []File{{"a&b", 3}},
			}
			if guard == "seer" {
				leak.Deaths[0].Named = []Named{{"some-leak", "warning", 1.4, "it <leaks>"}}
				leak.Events = []Event{{1, "raised", "some-leak", "warning", "it <leaks>", 0}}
			}
			if guard == "seer" && repeat == 2 {
				leak.Outcome, leak.Kills, leak.Deaths = Alive, 0, []Death{}
			}
			r.add(leak)
			r.add(&Result{
				Scenario: "calm", Guard: guard, Repeat: repeat, Start: r.Start, Limit: 128 * mib, Planned: 1, Ran: 1,
				Outcome: Alive, Done: 100, Goodput: 100, CPU: 0.1, Lives: 1, Deaths: []Death{}, Memory: []Usage{},
				Load: &Tally{
					Counts: Counts{Arrived: 100, Good: 100}, P50: Seconds{0.001, true}, P99: Seconds{0.02, true},
					Streams: map[string]Stream{"get": {Counts: Counts{Arrived: 100, Good: 100}, P50: Seconds{0.001, true}, P99: Seconds{0.02, true}}},
				},
				Work: []Work{{At: 0.5, Done: 50, P99: Seconds{0.02, true}}, {At: 1, Done: 100}}, Events: []Event{}, Stderr: []string{}, Artefacts: []File{},
			})
		}
	}
	r.add(&Result{Scenario: "calm", Guard: "seer", Repeat: 3, Start: r.Start, Limit: 128 * mib, Planned: 1, Outcome: Failed, Error: "no <luck>"})
	return r
}

func save(t *testing.T, r *Results) string {
	t.Helper()
	dir := t.TempDir()
	partial := &Results{Index: r.Index}
	partial.Runs = nil
	for _, one := range r.Results {
		partial.add(one)
		require.NoError(t, partial.writeLast(dir))
	}
	return dir
}

func TestResultsRoundTrip(t *testing.T) {
	t.Parallel()
	want := some()
	dir := save(t, want)
	got, err := ReadResults(dir)
	require.NoError(t, err)
	assert.Equal(t, want, got)
	var one map[string]any
	require.NoError(t, readJSON(filepath.Join(dir, "leak.plain.1.json"), &one))
	assert.Nil(t, one["memory"].([]any)[1].(map[string]any)["held"], "unknown is not zero")
	assert.Contains(t, one, "load")
	assert.Nil(t, one["load"])

	assert.ErrorContains(t, makeDir(dir), "has results already")
}

func TestReadResultsRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spoil func(dir string) error
		want  string
	}{
		"no index":   {func(dir string) error { return os.Remove(filepath.Join(dir, indexName)) }, "oomlab run --json"},
		"torn index": {func(dir string) error { return os.Truncate(filepath.Join(dir, indexName), 20) }, "index.json: unexpected end"},
		"other format": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, indexName), []byte(`{"format":99}`), 0o600)
		}, "format 99"},
		"run is gone": {func(dir string) error { return os.Remove(filepath.Join(dir, "calm.plain.2.json")) }, "calm.plain.2.json"},
		"torn run":    {func(dir string) error { return os.Truncate(filepath.Join(dir, "calm.plain.2.json"), 100) }, "calm.plain.2.json"},
		"run of nothing": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "calm.plain.2.json"), []byte(`{}`), 0o600)
		}, "calm.plain.2.json: no scenario"},
		"outside": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, indexName), []byte(`{"format":1,"runs":["../x.json"]}`), 0o600)
		}, "not a file beside it"},
	} {
		dir := save(t, some())
		require.NoError(t, tt.spoil(dir))
		_, err := ReadResults(dir)
		assert.ErrorContains(t, err, tt.want, name)
		for _, args := range [][]string{{"report", dir}, {"compare", dir, dir}} {
			var stdout, stderr bytes.Buffer
			assert.Equal(t, exitCannot, command(args, &stdout, &stderr, nil, nil), name)
			assert.Contains(t, stderr.String(), tt.want, name)
			assert.Empty(t, stdout.String())
		}
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args, want string
	}{
		{"run nonsense", `no scenario "nonsense"`},
		{"run leak --guard nobody", `no guard "nobody": there are plain, seer`},
		{"run leak --limit 3", "16MiB"},
		{"run leak --limit 99999999999GiB", "16MiB"},
		{"run leak --duration -1s", "above zero"},
		{"run leak --repeat 0", "1 to 1000"},
		{"run leak --smoke", "name none"},
		{"run --smoke", "no such scenario"},
		{"run leak --fail-on sometimes", "broken, killed or never"},
		{"report", "1 arg"},
		{"compare a", "2 arg"},
		{"explode", "unknown command"},
	} {
		var stdout, stderr bytes.Buffer
		args := append(strings.Fields(tt.args), "--guard", "plain")
		if strings.Contains(tt.args, "--guard") || !strings.HasPrefix(tt.args, "run") {
			args = strings.Fields(tt.args)
		}
		assert.Equal(t, exitUsage, command(args, &stdout, &stderr, testScenarios, testContenders), tt.args)
		assert.Contains(t, stderr.String(), tt.want, tt.args)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	var text, asJSON, stderr bytes.Buffer
	require.Zero(t, command([]string{"list"}, &text, &stderr, testScenarios, testContenders))
	require.Zero(t, command([]string{"list", "--json"}, &asJSON, &stderr, testScenarios, testContenders))
	var l listing
	require.NoError(t, json.Unmarshal(asJSON.Bytes(), &l))
	assert.Len(t, l.Scenarios, len(testScenarios))
	assert.Len(t, l.Guards, len(testContenders))
	for _, s := range testScenarios {
		assert.Contains(t, text.String(), s.Name)
		assert.Contains(t, text.String(), s.Story)
	}
}

// The page is whole: every element that opens closes, and no text of a run is
// taken for one.
func TestPage(t *testing.T) {
	t.Parallel()
	dir := save(t, some())
	var stdout, stderr bytes.Buffer
	require.Zero(t, command([]string{"report", dir}, &stdout, &stderr, nil, nil), stderr.String())
	b, err := os.ReadFile(filepath.Join(dir, "report.html"))
	require.NoError(t, err)
	// The two meta elements are the only ones that HTML leaves open.
	d := xml.NewDecoder(strings.NewReader(regexp.MustCompile(`(?m)^<meta .*$`).ReplaceAllString(string(b), "")))
	d.Entity = xml.HTMLEntity
	seen := map[string]int{}
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if e, ok := tok.(xml.StartElement); ok {
			seen[e.Name.Local]++
			for _, a := range e.Attr {
				if a.Name.Local == "class" && e.Name.Local == "g" {
					seen[a.Value]++
				}
			}
		}
	}
	assert.Equal(t, 2, seen["section"])
	assert.Equal(t, 4, seen["svg"])
	assert.Equal(t, 3, seen["death victim"], "one mark for each death")
	assert.Zero(t, seen["script"])
	for _, out := range []string{"http://", "https://", "src=", "url("} {
		assert.NotContains(t, string(b), out, "nothing beside it is needed")
	}
	assert.Contains(t, string(b), "no &lt;luck&gt;")
}

const wantTable = `leak  64 MiB, 30 s, nothing can save it
  GUARD  OUTCOME                             WORK/s  SPREAD  WORK/CPU s  CAUSE NAMED
  plain  killed 2 of 2 at 2.4 s                 3.5   ±14 %         120
  seer   killed 1 of 2 at 2.4 s (coin toss)   * 3.5   ±14 %         120  some-leak 1.4 s ahead

calm  128 MiB, 1 s, it could live
  GUARD  OUTCOME                      WORK/s  SPREAD     p50    p99  WORK/CPU s
  plain  alive 2 of 2                  * 100    ±0 %  1.0 ms  20 ms        1000
  seer   alive 2 of 2, failed 1 of 3   * 100    ±0 %  1.0 ms  20 ms        1000
  seer, repeat 3 failed: no <luck>

`

func TestTable(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	require.NoError(t, some().writeTable(&b, 100, false))
	got, remarks, _ := strings.Cut(b.String(), "* is the most")
	assert.Equal(t, wantTable, got)
	assert.Contains(t, strings.Join(strings.Fields(remarks), " "), "agree on the outcome in 3 of 4 cases; coin tosses: leak under seer.")
	var colored strings.Builder
	require.NoError(t, some().writeTable(&colored, 100, true))
	for _, c := range []string{red, green, bold, reset} {
		colored2 := strings.ReplaceAll(colored.String(), c, "")
		assert.NotEqual(t, colored.String(), colored2)
		colored.Reset()
		colored.WriteString(colored2)
	}
	assert.Equal(t, b.String(), colored.String())
}

const wantBench = `kills better=lower
Unit p50-sec better=lower
Unit p99-sec better=lower
Unit refused better=lower
Unit peak-bytes better=lower
BenchmarkOOM/scenario=leak/guard=plain 1 3 goodput/s 120 work/cpu-sec 1 kills 0 refused 6.71089e+07 peak-bytes
BenchmarkOOM/scenario=calm/guard=plain 1 100 goodput/s 1000 work/cpu-sec 0 kills 0.001 p50-sec 0.02 p99-sec 0 refused
`

func TestBench(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	r := some()
	require.NoError(t, r.writeBench(&b))
	assert.Contains(t, b.String(), wantBench)
	assert.Equal(t, 8, strings.Count(b.String(), "\nBenchmark"), "not the one that failed")
	assert.Contains(t, b.String(), "Unit goodput/s better=higher\n")
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b spread
		want string
	}{
		{spread{3, 10, 11, 12}, spread{3, 13, 14, 15}, "by luck 1 in 10"},
		{spread{2, 13, 14, 15}, spread{2, 10, 11, 12}, "by luck 1 in 3"},
		{spread{5, 1, 1, 1}, spread{5, 0, 0, 0}, "by luck 1 in 126"},
		{spread{3, 10, 11, 12}, spread{3, 12, 14, 15}, "noise"},
		{spread{3, 10, 11, 12}, spread{3, 9, 14, 15}, "noise"},
		{spread{1, 1, 1, 1}, spread{1, 2, 2, 2}, "one run each: may be noise"},
		{spread{3, 1, 1, 1}, spread{3, 1, 1, 1}, "the same"},
		{spread{}, spread{3, 1, 1, 1}, "one side has no figure"},
	} {
		j := judge(tt.a, tt.b)
		assert.Equal(t, tt.want, j.Text)
		assert.Equal(t, strings.HasPrefix(tt.want, "by luck"), j.Differs)
		assert.Equal(t, j, judge(tt.b, tt.a), "either way round")
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	before, after := some(), some()
	for _, r := range after.Results {
		switch r.Scenario {
		case "leak":
			r.Goodput *= 10
		case "calm":
			if r.Guard == "seer" {
				r.Limit *= 2
			}
		}
	}
	after.Kernel = "9.9"
	c := compare(before, after)
	require.Len(t, c.Pairs, 3)
	leak := c.Pairs[0]
	assert.Equal(t, "leak", leak.Scenario)
	assert.True(t, leak.Goodput.Differs)
	require.NotNil(t, leak.Change)
	assert.InDelta(t, 9, *leak.Change, 1e-9)
	assert.Equal(t, "the same", leak.Outcome.Text)
	require.Len(t, c.Notes, 2)
	assert.Contains(t, c.Notes[0], "another kernel")
	assert.Contains(t, c.Notes[1], "calm under seer: not the same thing")

	var b strings.Builder
	require.NoError(t, c.writeText(&b, 100, false))
	assert.Contains(t, b.String(), "+900.0 %  by luck 1 in 3")

	dirs := []string{save(t, before), save(t, after)}
	var asJSON, stderr bytes.Buffer
	require.Zero(t, command([]string{"compare", "--json", dirs[0], dirs[1]}, &asJSON, &stderr, nil, nil), stderr.String())
	var got comparison
	require.NoError(t, json.Unmarshal(asJSON.Bytes(), &got))
	assert.Equal(t, c, &got)
}

func TestFailOn(t *testing.T) {
	t.Parallel()
	r := some()
	assert.True(t, r.failed(failBroken))
	assert.False(t, r.failed(failNever))
	r.Results = r.Results[:8] // without the broken one
	assert.False(t, r.failed(failBroken))
	assert.False(t, r.failed(failKilled), "what nothing can save does not fail")
	r.Scenarios[0].Survivable = true
	assert.True(t, r.failed(failKilled))
	r.Results = r.Results[:1]
	assert.False(t, r.failed(failKilled), "plain is not blamed")
}

func TestBoutsAreInterleaved(t *testing.T) {
	t.Parallel()
	s := series{repeat: 3, limit: 32 * mib, scenarios: []*Scenario{&testScenarios[0], &testScenarios[1]}, guards: []*Contender{&testContenders[0], &testContenders[1], &testContenders[2]}}
	all := s.bouts()
	require.Len(t, all, 18)
	firsts, seen := map[string]int{}, map[string]int{}
	for i, b := range all {
		assert.EqualValues(t, 32*mib, b.limit)
		assert.Equal(t, b.scenario.Duration, b.duration)
		assert.Equal(t, i/6+1, b.repeat)
		assert.Equal(t, all[i/3*3].scenario, b.scenario, "guards of one scenario side by side")
		seen[b.scenario.Name+b.guard.Name]++
		if i%3 == 0 {
			firsts[b.scenario.Name+b.guard.Name]++
		}
	}
	assert.Len(t, seen, 6)
	assert.Len(t, firsts, 6, "each begins once")
}
