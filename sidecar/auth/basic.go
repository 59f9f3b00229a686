// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/time/rate"
)

// bcrypt is slow on purpose: 50 ms at cost 10, twice that for each step. So guesses are
// paid for. A password that was right is known from then on; one that was wrong is known
// too. What is neither costs, at most one at a time: a try of its source's, and the time
// that it took of a share of one core. A flood of guesses so costs guessers the right to
// guess, and neither a core nor those who are known.
const (
	maxCost     = 18               // a hash above it takes half a minute and more for each guess
	bcryptShare = 0.05             // of one core, over time
	bcryptBurst = 2 * time.Second  // of one core, at once
	triesEvery  = 5 * time.Second  // for a source that used up its burst
	triesBurst  = 5                //
	maxRight    = 256              // passwords that are remembered as right
	maxWrong    = 4096             // and as wrong
	maxSources  = 1024             // of guesses that are told apart
	waitBcrypt  = 10 * time.Second // in the queue
)

// passwords checks names and passwords against bcrypt hashes.
type passwords struct {
	key          [sha256.Size]byte // of the HMAC that is all that is kept of passwords
	right, wrong bounded[[sha256.Size]byte, struct{}]
	sources      bounded[string, *rate.Limiter]

	turn  chan struct{} // holds one token: who has it may run bcrypt, and owns what follows
	spare time.Duration // what may be used of a core; below zero is a debt
	since time.Time     // when spare was counted
}

func newPasswords() *passwords {
	p := &passwords{turn: make(chan struct{}, 1), spare: bcryptBurst, since: time.Now()}
	p.right.max, p.wrong.max, p.sources.max = maxRight, maxWrong, maxSources
	rand.Read(p.key[:]) // never fails (crypto/rand)
	p.turn <- struct{}{}
	return p
}

// check reports whether it is the user's password. users holds a hash for each name.
func (p *passwords) check(ctx context.Context, users map[string]string, name, password, source string) (bool, error) {
	hash, known := users[name]
	if !known {
		// As long as for a known user, so that time does not tell who is known.
		hash = nobody(users)
	}
	id := p.id(name, hash, password)
	if _, ok := p.right.get(id); ok { // never of who is not known
		return true, nil
	}
	if _, ok := p.wrong.get(id); ok {
		return false, nil
	}
	tries := p.sources.getOr(source, func() *rate.Limiter { return rate.NewLimiter(rate.Every(triesEvery), triesBurst) })
	if r := tries.Reserve(); r.Delay() > 0 {
		wait := r.Delay()
		r.Cancel()
		return false, &Error{How: HowBasic, Reason: "too many passwords were tried from this address: wait", RetryAfter: wait}
	}

	ctx, cancel := context.WithTimeout(ctx, waitBcrypt)
	defer cancel()
	select {
	case <-p.turn:
	case <-ctx.Done():
		return false, &Error{How: HowBasic, Reason: "too many passwords are being tried: wait", RetryAfter: time.Second, Err: ctx.Err()}
	}
	defer func() { p.turn <- struct{}{} }()
	now := time.Now()
	p.spare = min(bcryptBurst, p.spare+time.Duration(float64(now.Sub(p.since))*bcryptShare))
	p.since = now
	if p.spare <= 0 {
		wait := time.Duration(float64(-p.spare)/bcryptShare) + time.Second
		return false, &Error{How: HowBasic, Reason: "too many passwords were tried: wait", RetryAfter: wait}
	}
	err := bcrypt.CompareHashAndPassword([]byte(hash), []byte(password))
	p.spare -= time.Since(now)
	yes := func() struct{} { return struct{}{} }
	if err != nil || !known {
		p.wrong.getOr(id, yes)
		return false, nil
	}
	p.right.getOr(id, yes)
	return true, nil
}

// id stands for a name, a hash and a password. A new hash makes all old answers void.
func (p *passwords) id(name, hash, password string) (sum [sha256.Size]byte) {
	mac := hmac.New(sha256.New, p.key[:])
	for _, s := range []string{name, hash, password} {
		mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s))))
		mac.Write([]byte(s))
	}
	mac.Sum(sum[:0])
	return sum
}

// nobody is a hash that costs as much as the dearest of the users'.
func nobody(users map[string]string) string {
	cost := bcrypt.MinCost
	for _, h := range users {
		if c, err := bcrypt.Cost([]byte(h)); err == nil {
			cost = max(cost, c)
		}
	}
	return fmt.Sprintf("$2a$%02d$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi", cost)
}

// sourceOf is what guesses are counted by: an address, or the network of an IPv6 address,
// of which one guesser has 2^64.
func sourceOf(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return remote
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.String()
		}
	}
	return addr.String()
}
