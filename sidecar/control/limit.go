// SPDX-License-Identifier: Apache-2.0

package control

import (
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// mostCallers bounds the table of a limiter. Callers beyond it share one bucket.
const mostCallers = 1024

// limiter is a token bucket for each caller.
type limiter struct {
	every  rate.Limit // tokens a second
	burst  int
	mu     sync.Mutex
	of     map[string]*bucket
	others *bucket
}

type bucket struct {
	tokens *rate.Limiter
	asked  []time.Time // in the last minute, the latest at most mostAsked
}

// mostAsked bounds what is remembered of one caller: a rate of more is told as
// this.
const mostAsked = 256

func newLimiter(perMinute float64, burst int) *limiter {
	l := &limiter{every: rate.Limit(perMinute / 60), burst: burst, of: map[string]*bucket{}}
	l.others = l.bucket()
	return l
}

func (l *limiter) bucket() *bucket { return &bucket{tokens: rate.NewLimiter(l.every, l.burst)} }

// ask takes a token of a caller's, and says how long to wait where there is none,
// and how many requests the caller has made in the last minute, this one included.
func (l *limiter) ask(who string, now time.Time) (wait time.Duration, lastMinute int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.of[who]
	if b == nil {
		if len(l.of) >= mostCallers {
			l.forget(now)
		}
		if b = l.others; len(l.of) < mostCallers {
			b = l.bucket()
			l.of[who] = b
		}
	}
	b.asked = slices.DeleteFunc(b.asked, func(t time.Time) bool { return now.Sub(t) > time.Minute })
	if b.asked = append(b.asked, now); len(b.asked) > mostAsked {
		b.asked = slices.Delete(b.asked, 0, 1)
	}
	r := b.tokens.ReserveN(now, 1)
	if wait = r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
	}
	return wait, len(b.asked)
}

// forget drops the callers whose buckets are full and who did not ask of late: a
// fresh bucket is the same.
func (l *limiter) forget(now time.Time) {
	for who, b := range l.of {
		if b.tokens.TokensAt(now) >= math.Nextafter(float64(l.burst), 0) && now.Sub(b.asked[len(b.asked)-1]) > time.Minute {
			delete(l.of, who)
		}
	}
}
