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
	p := &g.proof
	g.mu.Lock()
	defer g.mu.Unlock()
	p.tracedAt = now
	for name, f := range map[string]Finding{
		"another within the minute":   {ID: "gc-pause", Severity: Warning},
		"a trace does not explain it": {ID: "nongo-growth", Severity: Critical},
		"not severe enough":           {ID: "gc-pause", Severity: Info},
	} {
		at := now.Add(2 * traceEvery)
		if f.ID == "gc-pause" && f.Severity == Warning {
			at = now.Add(time.Second)
		}
		assert.False(t, p.explained(f, at), name)
	}
	f := Finding{ID: "gc-pause", Severity: Warning}
	assert.True(t, p.explained(f, now.Add(2*traceEvery)))
	p.tracedAt = time.Time{}
	assert.True(t, p.explained(f, now), "the first")
}

// pausing finds gc-pause in every sample.
type pausing struct{}

func (pausing) id() ID { return "gc-pause" }
func (pausing) step(*Sample) verdict {
	return verdict{state: found, severity: Warning}
}
func (pausing) say(*verdict) string { return "the test says so" }
