// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"os"
	"runtime"
	"runtime/trace"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A process has one flight recorder, so these tests cannot run side by side.

func TestProcessRecorderSavesWhatHappened(t *testing.T) {
	store := &Store{Dir: t.TempDir()}
	r, err := StartRecorder(RecorderConfig{Store: store})
	require.NoError(t, err)
	defer r.Close()
	runtime.GC()

	// Two at once: the runtime would refuse the second, the recorder waits.
	var group sync.WaitGroup
	paths := make([]string, 2)
	for i := range paths {
		group.Go(func() {
			var err error
			paths[i], err = r.Save("gc-pause")
			assert.NoError(t, err)
		})
	}
	group.Wait()
	for _, path := range paths {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.True(t, bytes.HasPrefix(b, []byte("go 1.")), "a trace begins with its version")
		assert.Greater(t, len(b), 1000)
	}
}

func TestProcessRecorderRespectsAnother(t *testing.T) {
	other := trace.NewFlightRecorder(trace.FlightRecorderConfig{})
	require.NoError(t, other.Start())
	defer other.Stop()
	_, err := StartRecorder(RecorderConfig{Store: &Store{Dir: t.TempDir()}})
	require.ErrorIs(t, err, ErrRecording)
	assert.True(t, other.Enabled(), "the other one goes on")

	other.Stop()
	r, err := StartRecorder(RecorderConfig{Store: &Store{Dir: t.TempDir()}})
	require.NoError(t, err)
	r.Close()
	r.Close() // twice is once
	_, err = r.Save("late")
	require.Error(t, err)
}

func TestRecorderNeedsAPlace(t *testing.T) {
	t.Parallel()
	_, err := StartRecorder(RecorderConfig{})
	require.Error(t, err)
	_, err = StartRecorder(RecorderConfig{Store: &Store{}})
	require.Error(t, err)
}
