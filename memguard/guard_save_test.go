// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard/evidence"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A finding that a trace explains saves the recorder's last seconds: once in a
// minute, and not in the tick's goroutine. A process has one recorder at most.
func TestProcessGuardSavesATrace(t *testing.T) {
	store := &evidence.Store{Dir: t.TempDir()}
	recorder, err := evidence.StartRecorder(evidence.RecorderConfig{Store: store})
	require.NoError(t, err)
	events := make(chan Event, 100)
	g := Start(Config{Recorder: recorder, Event: func(e Event) { events <- e }})
	defer g.Close()

	// The collector's pauses are as the test says.
	g.mu.Lock()
	g.judge = &Judge{watched: []watched{{detector: pausing{}}}}
	g.mu.Unlock()

	var saved []Event
	deadline := time.After(30 * time.Second)
	for len(saved) == 0 {
		select {
		case e := <-events:
			if e.Kind == Saved {
				saved = append(saved, e)
			}
		case <-deadline:
			t.Fatal("no trace was saved")
		}
	}
	assert.Equal(t, ID("gc-pause"), saved[0].Finding.ID)
	b, err := os.ReadFile(saved[0].Path)
	require.NoError(t, err)
	assert.True(t, bytes.HasPrefix(b, []byte("go 1.")))

	now := time.Now()
	raised := func(id ID, s Severity, at time.Time) Event {
		return Event{Time: at, Kind: Raised, Finding: Finding{ID: id, Severity: s}}
	}
	for name, e := range map[string]Event{
		"another within the minute":      raised("gc-pause", Warning, now),
		"a trace does not explain it":    raised("nongo-growth", Critical, now.Add(time.Hour)),
		"not severe enough":              raised("gc-pause", Info, now.Add(time.Hour)),
		"withdrawn":                      {Time: now.Add(time.Hour), Kind: Cleared, Finding: Finding{ID: "gc-pause", Severity: Critical}},
		"something else cannot be seen":  {Time: now.Add(time.Hour), Kind: Lost},
		"the process that is watched is": {Time: now.Add(time.Hour), Kind: Ended},
	} {
		assert.False(t, g.explained(e, now.Add(-time.Second)), name)
	}
	assert.True(t, g.explained(raised("gc-pause", Warning, now.Add(2*saveEvery)), now))
	assert.True(t, g.explained(raised("gc-pause", Warning, now), time.Time{}), "the first")
}

// pausing finds gc-pause in every sample.
type pausing struct{}

func (pausing) id() ID { return "gc-pause" }
func (pausing) step(*Sample) verdict {
	return verdict{state: found, severity: Warning}
}
func (pausing) say(*verdict) string { return "the test says so" }
