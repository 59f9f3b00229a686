// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/memguard/memguard-go/bench/lab"
)

const (
	payloads    = 256             // of them fill the limit: 1 MiB each at 256 MiB
	payloadRate = 50              // a second
	stallAfter  = 3 * time.Second // healthy until then
)

var finalizerBlocked = lab.Scenario{
	Name: "finalizer-blocked",
	Story: "Files with a 1 MiB buffer (at 256 MiB) are closed by a finalizer. After three seconds one finalizer blocks in a read that never returns. " +
		"There is one goroutine for all finalizers, so every buffer that is dropped from then on waits behind it.",
	Claim:      "One slow finalizer blocks all, runtime.GC waits for them, and more than one goroutine in runFinalizer is the sign.",
	Limit:      256 * mib,
	Duration:   11 * time.Second,
	Cause:      []string{"finalizer-stall"},
	Survivable: true,
	Best:       "Names the stall within two collections of its start, and refuses new files when the queue holds its part of the memory.",
	Victim: func(ctx context.Context, h *lab.Host) error {
		return openFiles(ctx, h, func(f *bufferedFile, stall func()) {
			runtime.SetFinalizer(f, func(f *bufferedFile) {
				stall()
				runtime.KeepAlive(f.buffer) // flushed, in a service
			})
		})
	},
}

var cleanupBlocked = lab.Scenario{
	Name: "cleanup-blocked",
	Story: "The same with runtime.AddCleanup, whose argument holds the buffer: the file itself is freed at once, the argument only when the cleanup has run. " +
		"Cleanups have a pool of goroutines, and each of them blocks in turn.",
	Claim:      "Cleanups, which have their own goroutines, do not have the weakness of finalizers.",
	Limit:      256 * mib,
	Duration:   11 * time.Second,
	Cause:      []string{"cleanup-stall"},
	Survivable: true,
	Best:       "Names the stall within two collections of its start, and refuses new files when the queue holds its part of the memory.",
	Victim: func(ctx context.Context, h *lab.Host) error {
		return openFiles(ctx, h, func(f *bufferedFile, stall func()) {
			runtime.AddCleanup(f, func(buffer []byte) {
				stall()
				runtime.KeepAlive(buffer)
			}, f.buffer)
		})
	},
}

// bufferedFile is what is open for a moment and then dropped.
type bufferedFile struct {
	buffer []byte
}

// openFiles opens and drops files at an even rate. arm is to see to it that they
// are closed after they were dropped, and to call stall when it does so: it
// returns at once at first, and blocks in I/O later.
func openFiles(ctx context.Context, h *lab.Host, arm func(f *bufferedFile, stall func())) error {
	silent, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("scenario: pipe: %w", err)
	}
	context.AfterFunc(ctx, func() { w.Close() }) // the end of the run ends the stall
	start := time.Now()
	stall := func() {
		if time.Since(start) > stallAfter {
			_, _ = silent.Read(make([]byte, 1))
		}
	}
	paced(ctx, payloadRate, func() {
		unit(ctx, h, "files", func() {
			arm(&bufferedFile{buffer: block(h.Limit / payloads)}, stall)
		})
	})
	return nil
}
