// SPDX-License-Identifier: Apache-2.0

// Package leak names what a Go program leaks slowly: goroutines parked for
// ever, finalizers and cleanups behind one that blocks, stacks that cannot
// shrink.
//
// [Parse] reads any of the ways in which Go prints its goroutines (the pprof
// profile, its text, a dump after a panic or SIGQUIT) into a [Snapshot]: not
// goroutines but clusters of them, one for each normalised stack, so that
// memory follows the number of places in the code. A [Tracker] follows clusters
// over time and says which leak, by signs that do not depend on each other. A
// [Sampler] takes snapshots of the calling process within a budget. [Compare]
// and [Merge] are for people with files. A [Queue] watches the finalizers and
// cleanups. [VerifyNone] is for go test.
//
// Nothing is sampled with debug=2 on a timer: that stops the world for 5 to 20 us
// a goroutine, by the depth of its stack, and several times over. A dump is read
// for a cluster that is already suspect, because only dumps name the line that
// created a goroutine.
package leak
