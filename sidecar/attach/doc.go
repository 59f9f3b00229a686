// SPDX-License-Identifier: Apache-2.0

// Package attach reads the state of an unmodified Go process from outside: its
// heap and collector, spans by size class, goroutines with stacks, finalizers,
// and the heap profile. It needs nothing in the target, no debugging information
// and no symbols. It never writes into the target and stops nothing of it before
// its end.
//
//	t, err := attach.Open(pid)
//	...
//	s, err := t.Snapshot(ctx, attach.Spans|attach.Goroutines)
//
// The target keeps running while it is read, so a figure may be torn. What can be
// read twice is; what has an identity to fulfil is held against it. A figure that
// fails is unknown and Snapshot.Unknown says why; no figure is a guess.
//
// HoldExit waits for the end of a target and reads it then: after the kernel has
// killed it, for lack of memory or whatever else, and before its memory goes.
//
// The layout of the runtime's structures comes from tables made from the Go
// releases themselves (internal/layout), or from the target's debugging
// information. A target whose memory does not look as the layout says is refused.
//
// Who may attach may read all memory of the target, and with it its secrets. This
// package reads the runtime's own structures and the stacks' return addresses.
package attach
