// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
)

func TestBasic(t *testing.T) {
	t.Parallel()
	web, err := OpenWeb(write(t, t.TempDir(), "web.yml", []byte("basic_auth_users:\n  alice: "+bcryptOf(t, "secret")+"\n")))
	require.NoError(t, err)
	n, err := NewAuthenticator(Config{}, web)
	require.NoError(t, err)
	assert.Equal(t, []string{`Bearer realm="memguard"`, `Basic realm="memguard"`}, n.Challenges())
	ask := func(name, password string) (User, error) {
		r := httptest.NewRequest("GET", "/", nil)
		r.SetBasicAuth(name, password)
		return n.Authenticate(r)
	}
	u, err := ask("alice", "secret")
	require.NoError(t, err)
	assert.Equal(t, User{Name: "alice", Groups: []string{AuthenticatedGroup}, How: HowBasic}, u)
	_, wrong := ask("alice", "guess")
	_, unknown := ask("mallory", "secret")
	require.EqualError(t, wrong, "auth: basic: the name or the password is wrong")
	assert.Equal(t, wrong, unknown, "who is known is not told")
}

// TestBcryptFlood: guesses come to cost nothing but a refusal, from one address and from
// many, and who is known already is not refused.
func TestBcryptFlood(t *testing.T) {
	t.Parallel()
	users := map[string]string{"alice": bcryptOf(t, "secret")}
	p := newPasswords()
	ok, err := p.check(t.Context(), users, "alice", "secret", "192.0.2.1")
	require.NoError(t, err)
	require.True(t, ok)

	refused := 0
	for i := range 1000 {
		_, err := p.check(t.Context(), users, "alice", fmt.Sprint(i), "203.0.113.7")
		var e *Error
		if errors.As(err, &e) {
			refused++
			assert.Positive(t, e.RetryAfter)
		}
	}
	assert.Equal(t, 1000-triesBurst, refused, "one address has its tries")

	p.spare, p.since = 3*time.Millisecond, time.Now() // a cost of 4 takes about 1 ms
	runs := 0
	for i := range 2000 {
		_, err := p.check(t.Context(), users, "bob", fmt.Sprint(i), fmt.Sprintf("198.51.%d.%d", i/256, i%256))
		if err == nil {
			runs++
		}
	}
	assert.Positive(t, runs)
	assert.Less(t, runs, 200, "all addresses together have a share of a core")

	for range 10 {
		ok, err = p.check(t.Context(), users, "alice", "secret", "203.0.113.7")
		require.NoError(t, err)
		require.True(t, ok, "who is known is not refused, even from there")
	}
	users = map[string]string{"alice": bcryptOf(t, "other")}
	p.spare = time.Second
	ok, err = p.check(t.Context(), users, "alice", "secret", "192.0.2.9")
	require.NoError(t, err)
	assert.False(t, ok, "a new hash ends what was remembered")

	assert.LessOrEqual(t, len(p.wrong.m), maxWrong)
	assert.LessOrEqual(t, len(p.sources.m), maxSources)
}

func TestNobodyCostsAsMuch(t *testing.T) {
	t.Parallel()
	h, err := bcrypt.GenerateFromPassword([]byte("x"), 6)
	require.NoError(t, err)
	cost, err := bcrypt.Cost([]byte(nobody(map[string]string{"a": bcryptOf(t, "x"), "b": string(h)})))
	require.NoError(t, err)
	assert.Equal(t, 6, cost)
	assert.ErrorIs(t, bcrypt.CompareHashAndPassword([]byte(nobody(nil)), []byte("x")), bcrypt.ErrMismatchedHashAndPassword)
}

func TestSourceOf(t *testing.T) {
	t.Parallel()
	for remote, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1", "[::ffff:192.0.2.1]:80": "192.0.2.1",
		"[2001:db8::1]:80": "2001:db8::/64", "[fe80::1%eth0]:80": "fe80::/64", "@": "@", "": "",
	} {
		assert.Equal(t, want, sourceOf(remote), remote)
	}
}
