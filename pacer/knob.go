// SPDX-License-Identifier: Apache-2.0

package pacer

import "slices"

// knob is one setting of the process, which others turn as well. Each value that
// was set here stands for the baseline of that time, which would be there without
// us: somebody who saved such a value and writes it back means that baseline.
//
// It has no clock. Whoever saves a setting may put it back after milliseconds or
// hours, and the setting cannot be left alone for that long: it may be a memory
// limit of none, near the kernel's.
type knob struct {
	baseline int64
	asked    int64 // by the last Apply, or found since
	now      int64 // as the runtime has it: asked, or a little less

	saved []saved // the oldest first
}

// savedMost bounds what is remembered.
const savedMost = 16

// saved is a value that somebody may have saved.
type saved struct {
	value, means int64
	replaced     bool // somebody else has: as good as certain
}

func newKnob(found int64) knob {
	return knob{baseline: found, asked: found, now: found, saved: make([]saved, 0, savedMost)}
}

// turn takes what was set.
func (k *knob) turn(asked, value int64) { k.asked, k.now = asked, value }

// found takes what the runtime has, and reports whether somebody else set it.
func (k *knob) found(value int64) (foreign bool) {
	if value == k.now {
		return false
	}
	k.keep(true)
	k.baseline, _ = k.meaning(value)
	k.turn(value, value)
	return true
}

// meaning is the baseline that a value stands for: itself, unless it was saved.
func (k *knob) meaning(value int64) (baseline int64, wasSaved bool) {
	for _, s := range k.saved {
		if s.value == value {
			return s.means, true
		}
	}
	return value, false
}

// keep remembers what the present value means. Where there is no room the oldest is
// forgotten of those that nobody has replaced.
func (k *knob) keep(replaced bool) {
	i := slices.IndexFunc(k.saved, func(s saved) bool { return s.value == k.now })
	if i >= 0 {
		replaced = replaced || k.saved[i].replaced
	} else if len(k.saved) == savedMost {
		i = max(slices.IndexFunc(k.saved, func(s saved) bool { return !s.replaced }), 0)
	}
	if i >= 0 {
		k.saved = slices.Delete(k.saved, i, i+1)
	}
	k.saved = append(k.saved, saved{k.now, k.baseline, replaced})
}

// distinct returns value, or the next lower one that does not stand for another
// baseline. Below 1 there is nothing useful.
func (k *knob) distinct(value int64) int64 {
	v := value
	if value == k.asked {
		v = k.now
	}
	for ; v > 0; v-- {
		if means, wasSaved := k.meaning(v); !wasSaved || means == k.baseline {
			return v
		}
	}
	return value
}
