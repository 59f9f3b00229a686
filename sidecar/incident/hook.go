// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	postTimeout = 10 * time.Second // of one attempt
	mostToken   = 64 << 10
	mostAnswer  = 64 << 10 // of a body is read, so that the connection can be used again
)

// Hook is a webhook: where incidents are told. Their summaries are posted as JSON: see
// [Post].
type Hook struct {
	URL       string // http or https
	TokenFile string // whose content is the bearer token, read anew for each attempt; empty is none
	CAFile    string // certificates in PEM that may have signed the server's; empty is those of the system
	Link      string // what a report's ID is put behind to make a link to it; empty is no link
}

// Post is the body of a webhook's request. The incident's ID is also the header
// Idempotency-Key: after a failure one may come twice.
type Post struct {
	Version int `json:"version"` // 1
	Summary
	Link string `json:"link,omitempty"` // to the report
}

// Check says what is wrong with a webhook: its URL, or a file that cannot be read.
// The URL itself, which may be a secret, is not in the error.
func (w Hook) Check() error {
	u, err := url.Parse(w.URL)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return fmt.Errorf("want an http or https URL with a host, not %q", u.Scheme+"://"+u.Host)
	case u.User != nil:
		return fmt.Errorf("%s: a password in a URL ends in logs; use a token file", u.Host)
	case w.TokenFile != "" && u.Scheme != "https" && !loopback(u.Hostname()):
		return fmt.Errorf("%s: a token goes over https only", u.Host)
	}
	if w.TokenFile != "" {
		if _, err := readToken(w.TokenFile); err != nil {
			return fmt.Errorf("%s: %w", u.Host, err)
		}
	}
	if _, err := w.connect(); err != nil {
		return fmt.Errorf("%s: %w", u.Host, err)
	}
	return nil
}

func loopback(host string) bool { return host == "localhost" || host == "127.0.0.1" || host == "::1" }

// key tells the webhook from others in the store.
func (w Hook) key() string {
	sum := sha256.Sum256([]byte(w.URL))
	return hex.EncodeToString(sum[:8])
}

func (w Hook) host() string {
	u, err := url.Parse(w.URL)
	if err != nil {
		return "?"
	}
	return u.Host
}

// connect makes the client.
func (w Hook) connect() (*http.Client, error) {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: postTimeout, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
	}
	if w.CAFile != "" {
		pem, err := os.ReadFile(w.CAFile)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: no certificate in PEM", w.CAFile)
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: t, Timeout: postTimeout,
		// A redirect would take the token elsewhere, or make a GET of the POST.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

// hook is a webhook at work, in one goroutine.
type hook struct {
	Hook
	wake   chan struct{}
	client *http.Client    // nil: not yet made
	stuck  map[string]bool // told of, and the mark could not be removed

	mu    sync.Mutex
	stats PostStats
}

func newHook(w Hook) *hook {
	return &hook{Hook: w, wake: make(chan struct{}, 1), stuck: map[string]bool{}, stats: PostStats{Host: w.host()}}
}

func (h *hook) hangUp() {
	if h.client != nil {
		h.client.CloseIdleConnections()
	}
}

// refused is an answer that will be the same the next time.
type refused struct{ status string }

func (e *refused) Error() string { return e.status }

// tell posts one incident once. After an error again is how long the server asked us
// to wait.
func (h *hook) tell(ctx context.Context, s *Store, id string) (again time.Duration, err error) {
	r, err := s.Get(id)
	switch {
	case errors.Is(err, ErrNoIncident):
		return 0, err
	case err != nil:
		return 0, &refused{err.Error()}
	}
	post := Post{Version: 1, Summary: r.Summary()}
	if h.Link != "" {
		post.Link = h.Link + id
	}
	body, err := json.Marshal(post)
	if err != nil {
		return 0, &refused{err.Error()}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(body))
	if err != nil {
		return 0, &refused{err.Error()}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "memguard")
	req.Header.Set("Idempotency-Key", id)
	if h.TokenFile != "" {
		token, err := readToken(h.TokenFile)
		if err != nil {
			return 0, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if h.client == nil {
		if h.client, err = h.connect(); err != nil {
			return 0, err
		}
	}
	resp, err := h.client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL
		}
		return 0, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, mostAnswer))
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusGone, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return 0, &refused{"answered " + resp.Status}
	}
	if resp.StatusCode/100 == 3 {
		return 0, fmt.Errorf("answered %s: redirects are not followed", resp.Status)
	}
	if resp.StatusCode/100 != 2 {
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return time.Duration(min(max(seconds, 0), 3600)) * time.Second, fmt.Errorf("answered %s", resp.Status)
	}
	return 0, nil
}

func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, mostToken))
	token := strings.TrimSpace(string(b))
	if err == nil && (token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f })) {
		err = fmt.Errorf("%s: want one token of printable characters", path)
	}
	return token, err
}
