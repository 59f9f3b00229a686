// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"errors"
	"fmt"
	"io"
	"runtime/trace"
	"sync"
	"time"
)

// ErrRecording is what StartRecorder gives when the process has a flight
// recorder already: the runtime has room for one.
var ErrRecording = errors.New("the process has a flight recorder already")

// RecorderConfig says how much of the trace is kept in memory, and where it is
// saved.
type RecorderConfig struct {
	Store    *Store
	MinAge   time.Duration // at least so much is kept, if MaxBytes allows; 0 is 10 s
	MaxBytes uint64        // at most so much memory; 0 is 8 MiB
}

// Recorder keeps the last seconds of the execution trace in memory and saves
// them when asked (runtime/trace.FlightRecorder). While it runs, the runtime
// writes every scheduling and collector event: BenchmarkRecorder shows what
// that costs.
type Recorder struct {
	store *Store
	mu    sync.Mutex // one Save at a time: the runtime allows no two
	fr    *trace.FlightRecorder
}

// StartRecorder begins to record. A process has one recorder at most; where
// somebody else's runs, the error is [ErrRecording] and nothing is changed.
func StartRecorder(cfg RecorderConfig) (*Recorder, error) {
	if cfg.Store == nil || cfg.Store.Dir == "" {
		return nil, errors.New("evidence: flight recorder: no directory to save to")
	}
	if cfg.MinAge == 0 {
		cfg.MinAge = 10 * time.Second
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 8 << 20
	}
	fr := trace.NewFlightRecorder(trace.FlightRecorderConfig{MinAge: cfg.MinAge, MaxBytes: cfg.MaxBytes})
	if err := fr.Start(); err != nil {
		return nil, fmt.Errorf("evidence: %w: %w", ErrRecording, err)
	}
	return &Recorder{store: cfg.Store, fr: fr}, nil
}

// Save writes what is kept to the store as a trace that "go tool trace" and
// "memguard trace" read, and goes on recording. The reason becomes part of the
// file's name.
func (r *Recorder) Save(reason string) (path string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.store.Put(reason+".trace", func(w io.Writer) error {
		_, err := r.fr.WriteTo(w)
		return err
	})
}

// Close stops recording. It waits for a Save.
func (r *Recorder) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fr.Stop()
}
