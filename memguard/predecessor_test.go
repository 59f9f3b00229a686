// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/memguard/evidence"
)

// recorded is what a process left that died after 90 s.
func recorded(share float64, events ...Event) *evidence.Recording {
	start := boxTime
	r := &evidence.Recording{Path: "/var/x.box", State: evidence.Died}
	r.PID, r.Layout, r.Start = 4711, BoxLayout, start
	add := func(at time.Time, kind byte, payload []byte) {
		r.Records = append(r.Records, evidence.BoxRecord{Seq: uint64(len(r.Records) + 1), Time: at, Kind: kind, Payload: payload})
	}
	for i := range events {
		add(start.Add(time.Duration(i)*time.Second), boxEvent, appendEvent(nil, &events[i], evidence.PayloadSize))
	}
	m := Moment{Undroppable: Known(uint64(share * (1 << 30))), Limit: Known[uint64](1 << 30)}
	if share < 0 {
		m = Moment{}
	}
	add(start.Add(90*time.Second), boxMoment, m.appendTo(nil))
	add(start.Add(89*time.Second), 77, []byte("of a later version"))
	return r
}

func TestObituary(t *testing.T) {
	t.Parallel()
	leak := Finding{ID: "oom-forecast", Severity: Critical, Summary: "It grows."}
	storm := Finding{ID: "gc-storm", Severity: Warning, Summary: "It storms."}
	const who, where = "The predecessor, pid 4711, died after 1m30s", " (memguard incident /var/x.box)"
	for name, c := range map[string]struct {
		r    *evidence.Recording
		want string
	}{
		"at the limit":     {recorded(0.95), " at 973 MiB of its limit of 1024 MiB: the kernel has probably killed it for lack of memory"},
		"far from it":      {recorded(0.25), " at 256 MiB of its limit of 1024 MiB, which is not why: by a signal, a panic, or as it meant to"},
		"nothing known":    {recorded(-1), ""},
		"the worst stands": {recorded(-1, Event{Kind: Raised, Finding: leak}, Event{Kind: Raised, Finding: storm}), "; what stood then: oom-forecast: It grows."},
		"it was over":      {recorded(-1, Event{Kind: Raised, Finding: leak}, Event{Kind: Cleared, Finding: leak}), ""},
		"another was over": {recorded(-1, Event{Kind: Raised, Finding: leak}, Event{Kind: Cleared, Finding: storm}), "; what stood then: oom-forecast: It grows."},
		"harmless":         {recorded(-1, Event{Kind: Raised, Finding: Finding{ID: "thp-refill"}}), ""},
		"it got harmless":  {recorded(-1, Event{Kind: Raised, Finding: storm}, Event{Kind: Raised, Finding: Finding{ID: "gc-storm", Severity: Info}}), ""},
		"less severe beside it": {recorded(-1, Event{Kind: Raised, Finding: storm}, Event{Kind: Raised, Finding: leak}, Event{Kind: Cleared, Finding: leak}),
			"; what stood then: gc-storm: It storms."},
	} {
		why, severity := obituary(c.r)
		assert.Equal(t, who+c.want+where, why, name)
		assert.Equal(t, c.r.Path != "" && strings.Contains(why, "killed it"), severity == Critical, name)
		_, ok := exited(c.r)
		assert.False(t, ok, name)
	}
	other := recorded(0.95, Event{Kind: Raised, Finding: leak})
	other.Layout = BoxLayout + 1
	told, _ := obituary(other)
	assert.Equal(t, who+where, told, "another version's records are not read")
	other.Records = nil
	told, _ = obituary(other)
	assert.Equal(t, "The predecessor, pid 4711, died after 0s"+where, told)

	r := recorded(0.9, Event{Kind: Planned, Action: Action{Name: Exit, To: ExitStatus}},
		Event{Kind: Applied, Action: Action{Name: Exit, To: ExitStatus, Reason: "it helps no longer"}})
	why, ok := exited(r)
	assert.True(t, ok)
	assert.Equal(t, "The predecessor, pid 4711, ended itself after 1s with exit status 75: it helps no longer"+where, why)
}

func TestPredecessorsOfADirectory(t *testing.T) {
	t.Parallel()
	none, err := Predecessors(filepath.Join(t.TempDir(), "none"))
	require.NoError(t, err)
	assert.Empty(t, none)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = Predecessors(file)
	if err != nil { // boxes are of Linux
		assert.ErrorContains(t, err, "memguard: ")
		assert.ErrorContains(t, err, file)
	}
}
