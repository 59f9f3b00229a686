// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"
)

func measurePinned() (f pinnedFigures, err error) {
	debug.SetGCPercent(-1)
	f.Goroutines, f.Collections = 100, 6

	waiting := wentDeep(f.Goroutines, func(wait func()) { wait() })
	f.WaitingBefore = readHeap().Stacks
	collectHard(f.Collections)
	f.WaitingAfter = readHeap().Stacks
	waiting.dismiss()
	collectHard(1)

	r, w, err := os.Pipe()
	if err != nil {
		return f, err
	}
	defer r.Close()
	defer w.Close()
	fd := int(r.Fd()) // Fd makes it a blocking one: the kernel waits, not the runtime's poller
	var back sync.WaitGroup
	release := make(chan struct{})
	for range f.Goroutines {
		back.Add(1)
		go func() {
			deep(48, func() {})
			_, _ = syscall.Read(fd, make([]byte, 1))
			back.Done()
			<-release
		}()
	}
	if !eventually(10*time.Second, func() bool {
		f.NotInGo = readMetric("/sched/goroutines/not-in-go:goroutines")
		return f.NotInGo >= uint64(f.Goroutines)
	}) {
		return f, fmt.Errorf("%d of %d goroutines are in read(2)", f.NotInGo, f.Goroutines)
	}
	f.InCallBefore = readHeap().Stacks
	collectHard(f.Collections)
	f.InCallAfter = readHeap().Stacks

	if _, err := w.Write(make([]byte, f.Goroutines)); err != nil {
		return f, err
	}
	back.Wait()
	collectHard(f.Collections)
	f.Returned = readHeap().Stacks
	f.Threads = readMetric("/sched/threads/total:threads")
	close(release)
	return f, nil
}
