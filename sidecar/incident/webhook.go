// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// mostPending is how many incidents wait for one webhook.
const mostPending = 100

// PostStats says what became of the posts of one webhook since the start.
type PostStats struct {
	Host    string `json:"host"` // of its URL: the rest may be secret
	Posted  uint64 `json:"posted"`
	Failed  uint64 `json:"failed_attempts"`
	Dropped uint64 `json:"dropped"` // never told: too many waited, the store had no room, or the server will not have it
	Pending int    `json:"pending"`
	Error   string `json:"error,omitempty"` // of the last attempt, if it failed
}

// Poster tells webhooks of the incidents in a store: each webhook of each, in order
// and at least once. What has not been told waits in the store, over restarts too.
type Poster struct {
	store *Store
	log   *slog.Logger

	mu      sync.Mutex              // one change at a time; the store's lock comes after it
	hooks   atomic.Pointer[[]*hook] // is read with the store's lock held
	changed chan struct{}           // has room for one: hooks is not what runs
}

// NewPoster returns the poster for a store that was opened to write. A webhook is
// not told of what was in the store before it was one. The error is that of
// [Hook.Check], or ErrReadOnly.
func NewPoster(s *Store, hooks []Hook, log *slog.Logger) (*Poster, error) {
	for i, h := range hooks {
		if err := h.Check(); err != nil {
			return nil, fmt.Errorf("incident: webhook %d: %w", i+1, err)
		}
	}
	if s.lock == nil {
		return nil, fmt.Errorf("incident: webhooks: %w", ErrReadOnly)
	}
	p := &Poster{store: s, log: cmp.Or(log, slog.New(slog.DiscardHandler)), changed: make(chan struct{}, 1)}
	p.hooks.Store(new([]*hook))
	p.SetHooks(hooks)
	return p, nil
}

// SetHooks says anew which webhooks there are. Those that stay are not disturbed;
// what those that go have yet to be told is forgotten.
func (p *Poster) SetHooks(hooks []Hook) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var next []*hook
	now := p.current()
	var keys []string
	for _, w := range hooks {
		i := slices.IndexFunc(now, func(h *hook) bool { return h.Hook == w })
		if key := w.key(); slices.Contains(keys, key) {
			continue // the same URL twice
		} else if keys = append(keys, key); i >= 0 {
			next = append(next, now[i])
		} else {
			next = append(next, newHook(w))
		}
	}
	p.hooks.Store(&next)
	if err := p.store.register(keys, p.wake); err != nil {
		p.log.Error("incident: webhooks: reading the store", "error", err)
	}
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// Stats are those of each webhook.
func (p *Poster) Stats() (all []PostStats) {
	for _, h := range p.current() {
		ids, _ := p.store.pending(h.key())
		h.mu.Lock()
		st := h.stats
		h.mu.Unlock()
		st.Pending = len(ids)
		all = append(all, st)
	}
	return all
}

func (p *Poster) current() []*hook { return *p.hooks.Load() }

// wake is called with the store's lock held.
func (p *Poster) wake() {
	for _, h := range p.current() {
		select {
		case h.wake <- struct{}{}:
		default:
		}
	}
}

// Run posts until ctx ends, and returns nil then. A webhook that hangs or fails holds
// up no other.
func (p *Poster) Run(ctx context.Context) error {
	type job struct {
		stop context.CancelFunc
		done chan struct{}
	}
	jobs := map[*hook]job{}
	end := func(h *hook) {
		jobs[h].stop()
		<-jobs[h].done
		delete(jobs, h)
	}
	for ctx.Err() == nil {
		hooks := p.current()
		for h := range jobs {
			if !slices.Contains(hooks, h) {
				end(h)
			}
		}
		for _, h := range hooks {
			if _, ok := jobs[h]; ok {
				continue
			}
			own, stop := context.WithCancel(ctx)
			j := job{stop, make(chan struct{})}
			jobs[h] = j
			go func() {
				defer close(j.done)
				p.run(own, h)
			}()
		}
		select {
		case <-ctx.Done():
		case <-p.changed:
		}
	}
	for h := range jobs {
		end(h)
	}
	return nil
}

// run tells one webhook.
func (p *Poster) run(ctx context.Context, h *hook) {
	defer h.hangUp()
	var wait backoff
	for ctx.Err() == nil {
		id, ok := p.next(h)
		if !ok {
			select {
			case <-ctx.Done():
			case <-h.wake:
			}
			continue
		}
		again, err := h.tell(ctx, p.store, id)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			wait.succeeded()
			h.count(func(s *PostStats) { s.Posted++; s.Error = "" })
			p.done(h, id)
			continue
		case errors.Is(err, ErrNoIncident):
			continue // the store has removed it meanwhile, and counts that
		}
		var never *refused
		if errors.As(err, &never) {
			p.drop(h, 1, "incident "+id+": "+err.Error())
			p.done(h, id)
			continue
		}
		h.count(func(s *PostStats) { s.Failed++; s.Error = err.Error() })
		d := max(wait.failed(rand.Float64()), again)
		p.log.Warn("incident: webhook failed", "host", h.host(), "incident", id, "error", err, "again_in", d)
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
}

func (h *hook) count(f func(*PostStats)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(&h.stats)
}

// done takes an incident off what the webhook has yet to be told.
func (p *Poster) done(h *hook, id string) {
	if err := p.store.told(id, h.key()); err != nil {
		h.stuck[id] = true // or it would be told again at once, and for ever
		p.log.Error("incident: webhook: will be told again after a restart", "host", h.host(), "incident", id, "error", err)
	}
}

// drop counts what will not be told, and says so.
func (p *Poster) drop(h *hook, n uint64, why string) {
	h.count(func(s *PostStats) { s.Dropped += n; s.Error = why })
	p.log.Error("incident: webhook is not told", "host", h.host(), "incidents", n, "why", why)
}

// next is the oldest incident to tell of. Where too many wait, the oldest are not
// told any more.
func (p *Poster) next(h *hook) (id string, ok bool) {
	if n := p.store.takeLost(h.key()); n > 0 {
		p.drop(h, n, "the store had to make room")
	}
	ids, err := p.store.pending(h.key())
	if err != nil {
		p.log.Error("incident: webhook: reading the store", "error", err)
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return h.stuck[id] })
	if more := len(ids) - mostPending; more > 0 {
		for _, id := range ids[:more] {
			p.done(h, id)
		}
		p.drop(h, uint64(more), fmt.Sprintf("more than %d wait", mostPending))
		ids = ids[more:]
	}
	if len(ids) == 0 {
		return "", false
	}
	return ids[0], true
}
