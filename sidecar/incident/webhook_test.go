// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// start runs a poster until the test ends, or stop is called.
func start(t *testing.T, p *Poster) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = p.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

func add(t *testing.T, s *Store, seconds int) string {
	t.Helper()
	id, err := s.Add(ended(seconds), nil)
	require.NoError(t, err)
	return id
}

// A real server with TLS of its own authority that fails first.
func TestWebhook(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var mu sync.Mutex
	var posts []Post
	calls, got := 0, make(chan struct{}, 10)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		calls++
		b, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		assert.Equal(t, http.MethodPost, r.Method)
		assert.Equal(t, "Bearer s3cret", r.Header.Get("Authorization"))
		assert.Equal(t, "application/json", r.Header.Get("Content-Type"))
		if calls == 1 {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
			return
		}
		var p Post
		assert.NoError(t, json.Unmarshal(b, &p), string(b))
		assert.Equal(t, p.ID, r.Header.Get("Idempotency-Key"))
		posts = append(posts, p)
		got <- struct{}{}
	}))
	defer server.Close()
	ca, token := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "token")
	writeFile(t, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	writeFile(t, token, "s3cret\n")
	s := openStore(t, filepath.Join(dir, "store"), Limits{})
	p, err := NewPoster(s, []Hook{{URL: server.URL + "/hook", TokenFile: token, CAFile: ca, Link: "https://sidecar/incidents/"}}, nil)
	require.NoError(t, err)
	start(t, p)
	r, files := New(leaked(t), Meta{Namespace: "shop", Pod: "orders-1"})
	id, err := s.Add(r, files)
	require.NoError(t, err)
	<-got
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, posts, 1)
	sum := r.Summary()
	assert.Equal(t, Post{Version: 1, Summary: sum, Link: "https://sidecar/incidents/" + id}, posts[0])
	assert.Equal(t, OOMKill, posts[0].Cause)
	assert.Contains(t, posts[0].Verdict, "main.(*cache).add")
}

// The token goes nowhere but where it is meant to.
func TestWebhookRedirect(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("redirected with %q", r.Header) }))
	defer other.Close()
	asked := make(chan struct{}, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		asked <- struct{}{}
	}))
	defer server.Close()
	dir := t.TempDir()
	writeFile(t, dir+"/token", "s3cret")
	s := openStore(t, dir+"/store", Limits{})
	p, err := NewPoster(s, []Hook{{URL: server.URL + "/secret-path", TokenFile: dir + "/token"}}, nil)
	require.NoError(t, err)
	start(t, p)
	add(t, s, 0)
	<-asked
	require.Eventually(t, func() bool { return p.Stats()[0].Failed == 1 }, 10*time.Second, time.Millisecond)
	st := p.Stats()[0]
	assert.Contains(t, st.Error, "redirects are not followed")
	assert.Equal(t, 1, st.Pending)
	assert.NotContains(t, fmt.Sprint(st), "secret-path")
}

// tripper is a server that is a function, so that time can be the test's.
type tripper func(*http.Request) (int, http.Header, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) {
	code, h, err := f(r)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: code, Status: fmt.Sprint(code), Header: h, Body: io.NopCloser(strings.NewReader("")), Request: r}, nil
}

// poster is one with a webhook for each function.
func poster(t *testing.T, s *Store, servers ...tripper) *Poster {
	var hooks []Hook
	for i := range servers {
		hooks = append(hooks, Hook{URL: fmt.Sprintf("http://127.0.0.1/%d", i)})
	}
	p, err := NewPoster(s, hooks, nil)
	require.NoError(t, err)
	for i, h := range p.current() {
		h.client = &http.Client{Transport: servers[i], Timeout: postTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	return p
}

// A server that is down for an hour gets all in order, and one that is well does
// not wait for it.
func TestProcessWebhookOutage(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var tries []time.Duration
		var down, well []string
		s := openStore(t, dir, Limits{})
		p := poster(t, s, func(r *http.Request) (int, http.Header, error) {
			tries = append(tries, time.Since(begin))
			if time.Since(begin) < time.Hour {
				return 0, nil, errors.New("connection refused")
			}
			down = append(down, r.Header.Get("Idempotency-Key"))
			return 200, nil, nil
		}, func(r *http.Request) (int, http.Header, error) {
			well = append(well, r.Header.Get("Idempotency-Key"))
			return 204, nil, nil
		})
		stop := start(t, p)
		var ids []string
		for i := range 5 {
			ids = append(ids, add(t, s, i))
		}
		synctest.Wait()
		assert.Equal(t, ids, well)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		assert.Equal(t, ids, down)
		failures := len(tries) - 5
		assert.Greater(t, failures, 10)
		assert.Less(t, failures, 25)
		for i := 2; i < failures; i++ {
			assert.GreaterOrEqual(t, 3*(tries[i]-tries[i-1]), 2*(tries[i-1]-tries[i-2]), "the base does not shrink, and the rest is under half of it")
			assert.LessOrEqual(t, tries[i]-tries[i-1], mostBackoff*3/2)
		}
		st := p.Stats()
		assert.Equal(t, PostStats{Host: "127.0.0.1", Posted: 5, Failed: uint64(failures)}, st[0])
		assert.Equal(t, PostStats{Host: "127.0.0.1", Posted: 5}, st[1])
		stop()
	})
}

// What was not posted before a restart is posted after it, and what was is not.
func TestProcessWebhookRestart(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, dir, Limits{})
		add(t, s, 0) // before there was a webhook
		var got []string
		hear := func(r *http.Request) (int, http.Header, error) {
			got = append(got, r.Header.Get("Idempotency-Key"))
			return 200, nil, nil
		}
		p := poster(t, s, hear)
		stop := start(t, p)
		first := add(t, s, 1)
		synctest.Wait()
		assert.Equal(t, []string{first}, got)
		stop()
		second, third := add(t, s, 2), add(t, s, 3)
		require.NoError(t, s.Close())

		s = openStore(t, dir, Limits{})
		stop = start(t, poster(t, s, hear))
		synctest.Wait()
		assert.Equal(t, []string{first, second, third}, got)
		stop()

		// A webhook that is no more leaves nothing to be told to its successor.
		p = poster(t, s)
		add(t, s, 4)
		p.SetHooks([]Hook{{URL: "http://127.0.0.1/0"}})
		assert.Zero(t, p.Stats()[0].Pending)
	})
}

func TestProcessWebhookBounds(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, dir, Limits{Count: mostPending + 7})
		var mu sync.Mutex
		var got []string
		heard := func() []string {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(got)
		}
		p := poster(t, s, func(r *http.Request) (int, http.Header, error) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, r.Header.Get("Idempotency-Key"))
			switch len(got) {
			case 1:
				return 429, http.Header{"Retry-After": {"600"}}, nil
			case 2:
				return 422, nil, nil
			}
			return 200, nil, nil
		})
		var ids []string
		for i := range mostPending + 10 {
			ids = append(ids, add(t, s, i))
		}
		begin := time.Now()
		stop := start(t, p)
		synctest.Wait()
		assert.Equal(t, ids[10:11], heard(), "three had to make room in the store, and seven were too many")
		assert.Equal(t, uint64(10), p.Stats()[0].Dropped)
		time.Sleep(599 * time.Second)
		synctest.Wait()
		assert.Len(t, heard(), 1, "as the server asked")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		assert.Equal(t, append(ids[10:11:11], ids[10:]...), heard())
		assert.Equal(t, PostStats{Host: "127.0.0.1", Posted: mostPending - 1, Failed: 1, Dropped: 11}, p.Stats()[0], "one that the server will not have holds up none")
		assert.Less(t, time.Since(begin), time.Hour)
		stop()
	})
}

func TestProcessSetHooks(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, dir, Limits{})
		var got int
		p := poster(t, s, func(*http.Request) (int, http.Header, error) { got++; return 200, nil, nil })
		stop := start(t, p)
		add(t, s, 0)
		synctest.Wait()
		require.Equal(t, 1, got)
		same := p.current()[0]
		p.SetHooks([]Hook{same.Hook, same.Hook})
		assert.Equal(t, []*hook{same}, p.current(), "is not disturbed, nor there twice")
		p.SetHooks(nil)
		add(t, s, 1)
		synctest.Wait()
		assert.Equal(t, 1, got)
		assert.Empty(t, p.Stats())
		stop()
	})
}

func TestHookCheck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, dir+"/token", "a b")
	writeFile(t, dir+"/empty", "\n")
	writeFile(t, dir+"/ca", "no certificate")
	for want, h := range map[string]Hook{
		"not a URL":                   {URL: "http://h/%zz?secret"},
		"want an http or https URL":   {URL: "ftp://h/secret"},
		"with a host":                 {URL: "https:///secret"},
		"a password in a URL":         {URL: "https://u:secret@h/"},
		"over https only":             {URL: "http://h/secret", TokenFile: dir + "/token"},
		"want one token":              {URL: "https://h/secret", TokenFile: dir + "/token"},
		"want one token of printable": {URL: "https://h/secret", TokenFile: dir + "/empty"},
		"none: no such file":          {URL: "https://h/secret", TokenFile: dir + "/none"},
		"no certificate in PEM":       {URL: "https://h/secret", CAFile: dir + "/ca"},
	} {
		err := h.Check()
		require.ErrorContains(t, err, want)
		assert.NotContains(t, err.Error(), "secret")
	}
	s := openStore(t, dir+"/store", Limits{})
	_, err := NewPoster(s, []Hook{{URL: "x"}}, nil)
	require.ErrorContains(t, err, "webhook 1: want an http")
	require.NoError(t, s.Close())
	reader, err := ReadStore(dir + "/store")
	require.NoError(t, err)
	_, err = NewPoster(reader, nil, nil)
	require.ErrorIs(t, err, ErrReadOnly)
}

// Whatever fails and succeeds in whatever order: the base grows to its bound and
// shrinks at a success only, and no wait is shorter than it or half as long again.
func TestBackoff(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var b backoff
		var waits []time.Duration
		last := time.Duration(0)
		for range 60 {
			if rnd.IntN(12) == 0 {
				b.succeeded()
				last, waits = 0, nil
				continue
			}
			d := b.failed(rnd.Float64())
			require.GreaterOrEqual(t, b.base, last, "seed %d", seed)
			require.GreaterOrEqual(t, b.base, min(firstBackoff<<min(len(waits), 20), mostBackoff), "seed %d", seed)
			require.LessOrEqual(t, b.base, mostBackoff)
			require.GreaterOrEqual(t, d, b.base)
			require.Less(t, d, b.base*3/2)
			last, waits = b.base, append(waits, d)
		}
		if len(waits) > 12 {
			slices.Sort(waits)
			require.NotEqual(t, waits[len(waits)-1], waits[len(waits)-2], "there is chance in it")
		}
	}
}

// Nothing of a URL but its host is ever logged.
func TestWebhookKeepsSecrets(t *testing.T) {
	t.Parallel()
	var h Hook
	h.URL = "http://127.0.0.1:1/services/T0/SECRET"
	s := openStore(t, t.TempDir(), Limits{})
	id := add(t, s, 0)
	_, err := newHook(h).tell(t.Context(), s, id)
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "SECRET")
	assert.False(t, bytes.Contains([]byte(h.key()), []byte("SECRET")))
}
