// SPDX-License-Identifier: Apache-2.0

// Package control is the sidecar's HTTP API for people and governance services:
// what is seen of the targets, and what can be changed in a service that imports
// memguard. Its paths, bodies and answers are in openapi.json, which it serves at
// /openapi/v3 and is tested against.
//
// # Writes
//
// Nothing acts on GET, HEAD or OPTIONS. A write is authenticated, authorised,
// counted against its caller's rate, read to the letter, and held against what it
// expects of the target. Then, in this order and each on disk before the next: its
// intent in the audit log, its intent in the journal, the order to the service's
// guard, the outcome in both. So a kill at any moment leaves nothing done that is
// not on record.
//
// A setting that is changed comes back by itself. The order carries its TTL, and
// the guard in the service ends it, whether a sidecar runs or not. The journal is
// there for what the guard cannot know: which write an order was, so that the next
// sidecar lists it, can take it back, finds out what became of a write that was cut
// off (the order carries the write's id in its By), and gives the first answer to
// an Idempotency-Key that comes again. What the guard says stands is what stands:
// the journal is held against it, not the other way round.
//
// Between looking at the old value and setting the new one no other write goes
// through this sidecar to the same target. Somebody who orders at the agent's own
// socket is not held up by that.
//
// # Bounds
//
// Paths have 1 KiB and are not cleaned, bodies 64 KiB, keys and names a few hundred
// bytes. Ten writes a minute for each of a thousand callers; those beyond share one
// rate. A thousand streams and long polls, a hundred of one caller; who does not take
// a piece of one within ten seconds is hung up on. Four large answers at once. 4,096
// answers by Idempotency-Key, 1,024 of one caller, for a day. Of each caller's denials
// sixty a minute are recorded one by one; those beyond get 429, and one event at the
// minute's end says how many they were, for each of 256 callers, and one for all
// others: a log that a stranger can fill is none. The sum of all events is that of all
// denials; a kill loses what the minute had so far of those beyond.
package control
