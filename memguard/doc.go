// SPDX-License-Identifier: Apache-2.0

// Package memguard says where every byte of a Go process is, what is wrong with
// it, and how long it has until the kernel's limit.
//
// One [Sample] goes one way down: a [Source] reads it, a [Ledger] accounts for
// it, a [Judge] holds it against the detectors, and what they find is a
// [Finding]. [Explain] does all of that once for the calling process, and
// [Source.Explain] for any other; [Start] keeps doing it in one goroutine whose
// tick shortens as the limit comes near.
//
// A [Source], a [Judge] and [Explain] only look: they do not stop the world, force a
// collection or change a setting. A [Guard] of the calling process acts on what it
// sees, as far as its [Config] lets it, and puts settings back when it ends. What
// cannot be read is unknown, never zero, and the reason is kept.
package memguard
