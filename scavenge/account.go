// SPDX-License-Identifier: Apache-2.0

package scavenge

import "time"

const (
	perMinute  = 12 // releases, whatever they pay
	dutyPause  = 10 // times as long as a release took is the pause after it, so that it costs less than a tenth of the time
	unanswered = 10 * time.Second

	// The wait after a release that did not pay, doubled each time.
	leastBackOff, mostBackOff = 10 * time.Second, 10 * time.Minute

	// A release has paid when it gained a quarter of what its trigger promised (a
	// collection gives back half of stacks that are too large), and 4 MiB at least.
	// Without a promise it has not: the heap takes again at once what a collection of
	// plain garbage returns.
	paidShare, paidLeast = 4, 4 << 20
)

// Account is what the releases that a Releaser knows of have cost and gained.
type Account struct {
	Asked    uint64        // plans with Release
	Ended    uint64        // outcomes
	Paid     uint64        // of them
	Took     time.Duration // all together
	Gained   int64         // bytes, all together; what the service allocated meanwhile is taken off
	Last     Outcome       // zero while there was none
	LastPaid bool
}

// books keep the cost, and what follows from it for the next release.
type books struct {
	account Account
	starts  [perMinute]time.Duration // ring
	started int                      // so far
	next    time.Duration            // not before that
	pending pending
	backOff [numTriggers]backOff
}

// pending is the release that was asked for and has not answered.
type pending struct {
	trigger Trigger // None when there is none
	gain    uint64  // promised; 0 when unknown
}

// backOff is how long a trigger waits because its last release did not pay.
type backOff struct {
	wait  time.Duration // 0 when it paid
	until time.Duration
	gain  uint64 // that was promised then
}

// start notes that a release is asked for. Until it answers, and if it never does
// (a dry run), it counts as one that did not pay.
func (b *books) start(now time.Duration, t Trigger, gain uint64) {
	b.account.Asked++
	b.starts[b.started%perMinute] = now
	b.started++
	b.next = now + unanswered
	b.pending = pending{t, gain}
	off := &b.backOff[t]
	if now-off.until > mostBackOff {
		off.wait = 0 // long ago
	}
	off.wait = min(max(2*off.wait, leastBackOff), mostBackOff)
	off.until, off.gain = now+off.wait, gain
}

// settle takes the outcome of a release.
func (b *books) settle(now time.Duration, in *Reading) {
	o := in.Outcome
	if o == nil {
		return
	}
	b.account.Ended++
	b.account.Took += o.Took
	b.account.Last = *o
	gained, known := o.Gained()
	b.account.Gained += gained

	p := b.pending
	b.pending = pending{}
	paid := known && gained > 0 && p.gain > 0 && uint64(gained) >= max(paidLeast, p.gain/paidShare) || o.Trim == TrimReleased
	if b.account.LastPaid = paid; paid {
		b.account.Paid++
	}
	b.next = now + min(dutyPause*max(o.Took, 0), mostBackOff)
	if p.trigger == None {
		return // somebody else's
	}
	off := &b.backOff[p.trigger]
	if off.until = now + off.wait; paid {
		*off = backOff{}
	}
}

// held says what stands against a release for a trigger that promises a gain.
func (b *books) held(now time.Duration, in *Reading, t Trigger, gain uint64, near bool) Held {
	off := &b.backOff[t]
	again := near && b.account.LastPaid && b.pending.trigger == None // at once while it pays and matters
	switch {
	case in.Releasing:
		return Running
	case now < off.until && (off.gain == 0 || gain/2 < off.gain): // twice the gain is another case
		return BackedOff
	case now < b.next && !again:
		return CoolDown
	case b.started >= perMinute && now-b.starts[b.started%perMinute] < time.Minute:
		return TooMany
	}
	return NotHeld
}
