// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/memguard/memguard-go/sidecar/internal/reread"
)

const (
	maxJWKS      = 1 << 20          // bytes of a key set
	maxKeys      = 64               // of a key set
	fetchTimeout = 5 * time.Second  // of a key set
	fetchEvery   = 10 * time.Second // at most, however many tokens name an unknown key
	keysOld      = 5 * time.Minute  // fetched again when used after this; a key that is taken out ends then
	minRSA       = 2048             // bits
	maxRSA       = 8192             // bits: what a larger one costs to verify is its sender's choice
)

// keySet holds public keys by key id. Several may have one id.
type keySet map[string][]any // *rsa.PublicKey, or *ecdsa.PublicKey on P-256

// parseKeys reads a JWKS (RFC 7517). Keys that are not for RS256 or ES256 are left out:
// an issuer may have others for others.
func parseKeys(b []byte) (keySet, error) {
	var doc struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("not a JWKS: %w", err)
	}
	if len(doc.Keys) > maxKeys {
		return nil, fmt.Errorf("%d keys are more than %d", len(doc.Keys), maxKeys)
	}
	keys := keySet{}
	var last error
	for i, raw := range doc.Keys {
		var k jose.JSONWebKey
		if err := k.UnmarshalJSON(raw); err != nil {
			last = fmt.Errorf("keys[%d]: %w", i, err)
			continue
		}
		switch key := k.Key.(type) {
		case *rsa.PublicKey:
			if bits := key.N.BitLen(); bits < minRSA || bits > maxRSA {
				last = fmt.Errorf("keys[%d]: an RSA key of %d bits is not in [%d, %d]", i, bits, minRSA, maxRSA)
				continue
			}
		case *ecdsa.PublicKey:
			if key.Curve != elliptic.P256() {
				last = fmt.Errorf("keys[%d]: its curve is not P-256", i)
				continue
			}
		default:
			last = fmt.Errorf("keys[%d]: not a public RSA or EC key", i)
			continue
		}
		if k.Use == "" || k.Use == "sig" {
			keys[k.KeyID] = append(keys[k.KeyID], k.Key)
		}
	}
	if len(keys) == 0 {
		if last == nil {
			last = errors.New("the list is empty")
		}
		return nil, fmt.Errorf("no key for RS256 or ES256: %w", last)
	}
	return keys, nil
}

// source gives the keys of an id: from a file that is read again when it changes, or
// from a URL.
type source struct {
	file *reread.Value[keySet] // nil: the rest is used

	config ServiceAccounts
	mu     sync.Mutex
	keys   keySet        // nil: none were ever fetched
	got    time.Time     // when
	tried  time.Time     // when a fetch began last
	err    error         // of the last fetch
	done   chan struct{} // closed when the fetch under way is over; nil if none is
}

func newSource(c ServiceAccounts) (*source, error) {
	s := &source{config: c}
	if (c.JWKSFile == "") == (c.JWKSURL == "") {
		return nil, errors.New("auth: service_accounts: exactly one of jwks_file and jwks_url must be set")
	}
	if c.JWKSFile != "" {
		if c.CAFile != "" || c.BearerTokenFile != "" {
			return nil, errors.New("auth: service_accounts: ca_file and bearer_token_file are for jwks_url")
		}
		file, err := reread.New(func(read reread.Read) (keySet, error) {
			b, err := read(c.JWKSFile)
			if err != nil {
				return nil, fmt.Errorf("auth: jwks_file: %w", err)
			}
			keys, err := parseKeys(b)
			if err != nil {
				return nil, fmt.Errorf("auth: jwks_file: %s: %w", c.JWKSFile, err)
			}
			return keys, nil
		})
		s.file = file
		return s, err
	}
	u, err := url.Parse(c.JWKSURL)
	if err != nil {
		return nil, fmt.Errorf("auth: service_accounts: jwks_url: %w", err)
	}
	// Who can change the keys on their way is every user.
	if u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return nil, fmt.Errorf("auth: service_accounts: jwks_url: %q is not an https URL", u.Redacted())
	}
	if _, err := s.client(); err != nil {
		return nil, err
	}
	return s, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// find returns the keys of an id. It waits for a fetch that may bring them.
func (s *source) find(ctx context.Context, id string) ([]any, error) {
	if s.file != nil {
		return s.file.Get()[id], nil
	}
	s.mu.Lock()
	found := s.keys[id]
	s.fetchIfDue(len(found) == 0)
	done := s.done
	s.mu.Unlock()
	if len(found) > 0 || done == nil {
		return found, s.failed(found)
	}
	select {
	case <-done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	found = s.keys[id]
	s.mu.Unlock()
	return found, s.failed(found)
}

// failed is why there are no keys at all.
func (s *source) failed(found []any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(found) == 0 && s.keys == nil {
		return s.err
	}
	return nil
}

// fetchIfDue begins a fetch if the keys are old, or if one is wanted that is not there,
// and the last fetch is long enough ago. s.mu is held.
func (s *source) fetchIfDue(wanted bool) {
	now := time.Now()
	if s.done != nil || now.Sub(s.tried) < fetchEvery || !wanted && now.Sub(s.got) < keysOld {
		return
	}
	done := make(chan struct{})
	s.done, s.tried = done, now
	go func() { // not the caller's: who gives up must not stop the fetch for others
		keys, err := s.fetch()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.err = err; err == nil {
			s.keys, s.got = keys, time.Now()
		}
		s.done = nil
		close(done)
	}()
}

// Err says why the keys are not what the file or the URL has now. It begins the first
// fetch, and the next one when the keys are old.
func (s *source) Err() error {
	if s.file != nil {
		return s.file.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetchIfDue(s.keys == nil)
	return s.err
}

func (s *source) fetch() (keySet, error) {
	keys, err := s.get()
	if err != nil {
		return nil, fmt.Errorf("auth: jwks_url: %w", err)
	}
	return keys, nil
}

func (s *source) get() (keySet, error) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	client, err := s.client()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.config.JWKSURL, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	if path := s.config.BearerTokenFile; path != "" {
		b, err := os.ReadFile(path) // each time: Kubernetes renews it
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(b)))
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		hint := ""
		if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
			hint = ": the API server shows its keys to who may read /openid/v1/jwks: set bearer_token_file"
		}
		return nil, fmt.Errorf("GET %s: %s%s", req.URL.Redacted(), resp.Status, hint)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxJWKS+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxJWKS {
		return nil, fmt.Errorf("GET %s: more than %d bytes", req.URL.Redacted(), maxJWKS)
	}
	return parseKeys(b)
}

// client makes a client of the CA file as it is now. Fetches are rare; no connection is kept.
func (s *source) client() (*http.Client, error) {
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 64 << 10,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if path := s.config.CAFile; path != "" {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("auth: service_accounts: ca_file: %w", err)
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("auth: service_accounts: ca_file: %s holds no certificate", path)
		}
	}
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("it redirects: write the URL that the keys are at") // our token goes nowhere else
	}}, nil
}
