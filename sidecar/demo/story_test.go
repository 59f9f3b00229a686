// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/memguard/memguard-go/memguard"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// told is the story, which fits into its columns.
func told(t *testing.T, o *Outcome) string {
	t.Helper()
	var b strings.Builder
	require.NoError(t, o.Tell(&b))
	for line := range strings.Lines(b.String()) {
		line = strings.TrimSuffix(line, "\n")
		assert.NotContains(t, line, "%!", "a format is wrong")
		assert.Equal(t, strings.TrimRight(line, " "), line, "a space at the end")
		if strings.Contains(line, " ") && !strings.Contains(line, "memguard incident /") { // a path is as long as it is
			assert.LessOrEqual(t, utf8.RuneCountInString(line), width, line)
		}
	}
	return b.String()
}

// The story is as the lives were, also where they were not as expected.
func TestStory(t *testing.T) {
	t.Parallel()
	died := &Life{
		Deaths: []Death{{Second: 3, Exit: "signal: killed", Killed: true, InAir: 80}}, OOMKills: memguard.Known[uint64](1),
		Good: 500, Failed: 300, Peak: memguard.Known[uint64](limit), Points: []Point{{1, limit / 2, 70}, {2.9, limit, 80}, {5, limit / 8, 3}},
	}
	lived := &Life{Good: 1000, Refused: 200, Peak: memguard.Known[uint64](limit / 2), Kept: &Kept{
		Actions: []Action{{"gc-percent", 2, "a reason"}, {"free-os-memory", 1, "a reason"}},
		Raised:  []string{"oom-forecast"}, Files: []File{{"heap.pb.gz", 2, 5000, []int{50, 70}}},
	}}
	for name, test := range map[string]struct {
		out          Outcome
		says, saysNo []string
	}{
		"as expected": {Outcome{Unguarded: died, Guarded: lived}, []string{
			"it died once in 10 s", "oom_kill 1", "80 orders in its hands", "(200 orders), and 1000 were answered, 2.0 times",
			"✗", "gc-percent twice, first: a reason\n  free-os-memory once\n", "2 heap.pb.gz", "50 70 % of the limit", "--keep DIR", "nothing behind, and could not",
		}, nil},
		"both lived":       {Outcome{Unguarded: lived, Guarded: lived}, []string{"lived through 10 s of load, this time", "64 MiB of 128 MiB"}, []string{"WHY", "killed by"}},
		"both died":        {Outcome{Unguarded: died, Guarded: died}, []string{"Guarded, it died once all the same: signal: killed"}, []string{"it lived"}},
		"nothing was seen": {Outcome{Unguarded: &Life{}, Guarded: &Life{}}, []string{"unknown"}, []string{"0 MiB", "NaN"}},
		"not by a signal":  {Outcome{Unguarded: &Life{Deaths: []Death{{Exit: "exit status 2"}}}, Guarded: lived}, []string{`not by SIGKILL: "exit status 2"`}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.out.Limit, test.out.Seconds = limit, 10
			text := told(t, &test.out)
			flat := strings.Join(strings.Fields(text), " ")
			for _, s := range test.says {
				assert.True(t, strings.Contains(text, s) || strings.Contains(flat, s), "%q in\n%s", s, text)
			}
			for _, s := range test.saysNo {
				assert.NotContains(t, strings.ReplaceAll(text, "128 MiB", ""), s)
			}
		})
	}
}

// The load is the same in both lives, and has bursts.
func TestRate(t *testing.T) {
	t.Parallel()
	var steady, burst int
	for s := 0.0; s < lifetime.Seconds(); s += 0.5 {
		switch rate(s) {
		case steadyRate:
			steady++
		case burstRate:
			burst++
		}
	}
	assert.Equal(t, int(lifetime/(500*time.Millisecond)), steady+burst)
	assert.Equal(t, 12, burst, "three of two seconds")
	assert.Equal(t, steadyRate, rate(lifetime.Seconds()-0.1), "it ends in calm")
	assert.Less(t, len(order()), 256<<10, "net/http reads on to answer what it refuses: maxPostHandlerReadBytes")
}
