// SPDX-License-Identifier: Apache-2.0

package control

import (
	"net/http"
	"slices"
	"time"

	"github.com/memguard/memguard-go/sidecar/target"
)

// claim takes a caller's Idempotency-Key for a write. If it was used before it
// gives the first answer, or says why there is none.
// (draft-ietf-httpapi-idempotency-key-header: another request with the same key is
// 422, one while the first is under way 409.)
func (j *journal) claim(w *write) (*outcome, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	key := [2]string{w.By, w.Key}
	other := refuse(http.StatusUnprocessableEntity, reasonInvalid, "header Idempotency-Key: this key came with another request before: take a new one for each write")
	if hash, ok := j.underway[key]; ok {
		if hash != w.Hash {
			return nil, other
		}
		return nil, busy(http.StatusConflict, reasonConflict, time.Second, "the first request with this Idempotency-Key is under way: ask again for its answer")
	}
	for _, id := range slices.Backward(j.order) {
		e := j.entries[id]
		if e.By != w.By || e.Key != w.Key || time.Since(e.Time) >= answersKept {
			continue
		}
		switch {
		case e.Hash != w.Hash:
			return nil, other
		case e.ended == nil || e.ended.Body == nil:
			return nil, refuse(http.StatusConflict, reasonConflict, "the first request with this Idempotency-Key was cut off: whether it was done is not known: see overrides and events, and ask again with a new key if it was not")
		}
		return e.ended, nil
	}
	j.underway[key] = w.Hash
	return nil, nil
}

// disclaim ends what claim began. If the write has begun the key stays with it.
func (j *journal) disclaim(w *write) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.underway, [2]string{w.By, w.Key})
}

// begin writes the intent of a write.
func (j *journal) begin(w *write) error {
	j.mu.Lock()
	full := len(j.order) >= 2*mostEntries
	j.mu.Unlock()
	if full {
		return errFull
	}
	return j.append(line{Begin: w})
}

// leave is called when a write's request has been answered.
func (j *journal) leave(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if e := j.entries[id]; e != nil {
		e.busy = false
	}
}

// state is what is known of a write, nil if nothing is.
func (j *journal) state(id string) *entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	if e := j.entries[id]; e != nil {
		c := *e
		return &c
	}
	return nil
}

// standing are the overrides that stand, the oldest first.
func (j *journal) standing() (es []entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, id := range j.order {
		if e := j.entries[id]; e.standing() {
			es = append(es, *e)
		}
	}
	return es
}

// override is the one of a process's setting that stands, nil if there is none.
func (j *journal) override(id target.Identity, setting string) *entry {
	for _, e := range slices.Backward(j.standing()) {
		if same(e.Process, id) && e.Setting == setting && !e.busy {
			return &e
		}
	}
	return nil
}
