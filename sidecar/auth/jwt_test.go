// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// issuer signs tokens as a cluster does. Keys are made once: RSA takes long.
type issuer struct {
	rsa   *rsa.PrivateKey
	ecdsa *ecdsa.PrivateKey
}

var theIssuer = sync.OnceValue(func() *issuer {
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return &issuer{r, e}
})

const iss = "https://kubernetes.default.svc"

func (i *issuer) jwks(t testing.TB, ids ...string) []byte {
	set := jose.JSONWebKeySet{}
	for _, id := range ids {
		k := jose.JSONWebKey{Key: &i.rsa.PublicKey, KeyID: id, Algorithm: "RS256", Use: "sig"}
		if strings.HasPrefix(id, "ec") {
			k.Key, k.Algorithm = &i.ecdsa.PublicKey, "ES256"
		}
		set.Keys = append(set.Keys, k)
	}
	b, err := json.Marshal(set)
	require.NoError(t, err)
	return b
}

// good are the claims of a bound token.
func good(now time.Time) map[string]any {
	return map[string]any{
		"iss": iss, "aud": []string{"memguard"}, "sub": "system:serviceaccount:default:app", "jti": "c-1",
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(),
		"kubernetes.io": map[string]any{
			"namespace":      "default",
			"serviceaccount": map[string]any{"name": "app", "uid": "sa-uid"},
			"pod":            map[string]any{"name": "app-0", "uid": "pod-uid"},
			"node":           map[string]any{"name": "n1", "uid": "node-uid"},
		},
	}
}

func (i *issuer) sign(t testing.TB, alg jose.SignatureAlgorithm, key any, id string, claims map[string]any) string {
	opts := (&jose.SignerOptions{}).WithType("JWT")
	if id != "" {
		opts = opts.WithHeader("kid", id)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts)
	require.NoError(t, err)
	text, err := jwt.Signed(s).Claims(claims).Serialize()
	require.NoError(t, err)
	return text
}

// with returns the claims with one of them changed; nil takes it out.
func with(claims map[string]any, name string, value any) map[string]any {
	claims = maps.Clone(claims)
	if claims[name] = value; value == nil {
		delete(claims, name)
	}
	return claims
}

func bearer(n *Authenticator, token string) (User, error) {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return n.Authenticate(r)
}

func TestServiceAccountToken(t *testing.T) {
	t.Parallel()
	i := theIssuer()
	path := write(t, t.TempDir(), "jwks.json", i.jwks(t, "rs", "ec"))
	n, err := NewAuthenticator(Config{ServiceAccounts: &ServiceAccounts{Issuer: iss, JWKSFile: path}}, nil)
	require.NoError(t, err)
	now := time.Now()

	// What k8s.io/apiserver/pkg/authentication/serviceaccount makes of it.
	want := User{
		Name: "system:serviceaccount:default:app", UID: "sa-uid", How: HowJWKS,
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"},
		Extra: map[string][]string{
			"authentication.kubernetes.io/pod-name": {"app-0"}, "authentication.kubernetes.io/pod-uid": {"pod-uid"},
			"authentication.kubernetes.io/node-name": {"n1"}, "authentication.kubernetes.io/node-uid": {"node-uid"},
			"authentication.kubernetes.io/credential-id": {"JTI=c-1"},
		},
	}
	for _, token := range []string{i.sign(t, jose.RS256, i.rsa, "rs", good(now)), i.sign(t, jose.ES256, i.ecdsa, "ec", good(now))} {
		u, err := bearer(n, token)
		require.NoError(t, err)
		assert.Equal(t, want, u)
	}

	sign := func(claims map[string]any) string { return i.sign(t, jose.RS256, i.rsa, "rs", claims) }
	k8s := func(ns, name any) map[string]any {
		return map[string]any{"namespace": ns, "serviceaccount": map[string]any{"name": name}}
	}
	der, err := x509.MarshalPKIXPublicKey(&i.rsa.PublicKey)
	require.NoError(t, err)
	parts := strings.Split(sign(good(now)), ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"rs"}`)) + "." + parts[1] + "."
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	for _, tt := range []struct{ name, token, want string }{
		{"no signature", none, "RS256 or ES256"},
		{"HMAC with the public key", i.sign(t, jose.HS256, der, "rs", good(now)), "RS256 or ES256"},
		{"another RSA algorithm", i.sign(t, jose.RS512, i.rsa, "rs", good(now)), "RS256 or ES256"},
		{"PSS", i.sign(t, jose.PS256, i.rsa, "rs", good(now)), "RS256 or ES256"},
		{"the other kind's key", i.sign(t, jose.ES256, i.ecdsa, "rs", good(now)), "no key of the issuer's"},
		{"a key that nobody knows", i.sign(t, jose.ES256, other, "ec", good(now)), "no key of the issuer's"},
		{"an unknown key id", i.sign(t, jose.RS256, i.rsa, "x", good(now)), "no key of the issuer's"},
		{"no key id", i.sign(t, jose.RS256, i.rsa, "", good(now)), "does not name its key"},
		{"another signature", parts[0] + "." + parts[1] + "." + strings.Split(sign(with(good(now), "jti", "c-2")), ".")[2], "no key of the issuer's"},
		{"expired", sign(with(good(now), "exp", now.Add(-leeway-2*time.Second).Unix())), "expired"},
		{"expires never", sign(with(good(now), "exp", nil)), "never expires"},
		{"not yet", sign(with(good(now), "nbf", now.Add(leeway+time.Minute).Unix())), "not valid yet"},
		{"issued tomorrow", sign(with(good(now), "iat", now.Add(time.Hour).Unix())), "issued in the future"},
		{"another issuer", sign(with(good(now), "iss", iss+"/")), "invalid issuer"},
		{"no issuer", sign(with(good(now), "iss", nil)), "invalid issuer"},
		{"for another", sign(with(good(now), "aud", []string{iss})), "invalid audience"},
		{"for nobody", sign(with(good(now), "aud", nil)), "no audience"},
		{"for nobody, as a list", sign(with(good(now), "aud", []string{})), "no audience"},
		{"not of a service account", sign(with(good(now), "kubernetes.io", nil)), "not of a service account"},
		{"a name with a second reading", sign(with(with(good(now), "kubernetes.io", k8s("a:b", "c")), "sub", "system:serviceaccount:a:b:c")), "not of a service account"},
		{"another subject", sign(with(good(now), "sub", "system:serviceaccount:kube-system:app")), "subject"},
		{"no subject", sign(with(good(now), "sub", nil)), "subject"},
		{"a claim of another type", sign(with(good(now), "kubernetes.io", "x")), "no key of the issuer's"},
		{"not a token", "a.b.c", "RS256 or ES256"},
	} {
		_, err := bearer(n, tt.token)
		var e *Error
		require.ErrorAs(t, err, &e, tt.name)
		assert.Equal(t, HowJWKS, e.How, tt.name)
		assert.Zero(t, e.RetryAfter, tt.name)
		assert.Contains(t, err.Error(), tt.want, tt.name)
		assert.NotContains(t, err.Error(), tt.token, tt.name)
	}
	_, err = bearer(n, sign(with(good(now), "exp", now.Add(-leeway/2).Unix())))
	require.NoError(t, err, "clocks may differ a little")
	_, err = bearer(n, sign(with(good(now), "aud", "memguard")))
	require.NoError(t, err, "one audience need not be a list")
	_, err = bearer(n, sign(with(good(now), "pad", strings.Repeat("x", maxCredential))))
	require.ErrorContains(t, err, "at most 16384 bytes")
}

func TestJWKSFileIsReread(t *testing.T) {
	t.Parallel()
	i, dir := theIssuer(), t.TempDir()
	path := write(t, dir, "jwks.json", i.jwks(t, "old"))
	synctest.Test(t, func(t *testing.T) {
		n, err := NewAuthenticator(Config{ServiceAccounts: &ServiceAccounts{Issuer: iss, JWKSFile: path}}, nil)
		require.NoError(t, err)
		write(t, dir, "jwks.json", i.jwks(t, "new"))
		time.Sleep(2 * time.Second)
		_, err = bearer(n, i.sign(t, jose.RS256, i.rsa, "new", good(time.Now())))
		require.NoError(t, err)
		_, err = bearer(n, i.sign(t, jose.RS256, i.rsa, "old", good(time.Now())))
		require.Error(t, err, "a key that is taken out verifies nothing")
		write(t, dir, "jwks.json", []byte("{"))
		time.Sleep(2 * time.Second)
		_, err = bearer(n, i.sign(t, jose.RS256, i.rsa, "new", good(time.Now())))
		require.NoError(t, err)
		require.ErrorContains(t, n.ReloadError(), "jwks.json: not a JWKS")
	})
}

func TestParseKeys(t *testing.T) {
	t.Parallel()
	i := theIssuer()
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	one := func(key any, use string) []byte {
		b, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key, KeyID: "k", Use: use}}})
		require.NoError(t, err)
		return b
	}
	for want, b := range map[string][]byte{
		"not a JWKS":                        []byte("<html>"),
		"the list is empty":                 []byte(`{"keys":[]}`),
		"RSA key of 1024 bits":              one(&small.PublicKey, ""),
		"curve is not P-256":                one(&p384.PublicKey, ""),
		"keys[0]: not a public RSA or EC":   one([]byte("a secret of 32 bytes, symmetric.."), ""),
		"no key for RS256 or ES256: the":    one(&i.rsa.PublicKey, "enc"),
		"go-jose/go-jose: unsupported key ": []byte(`{"keys":[{"kty":"XX"}]}`),
		"65 keys are more than 64":          []byte(`{"keys":[` + strings.Repeat(`{},`, 64) + `{}]}`),
	} {
		_, err := parseKeys(b)
		require.ErrorContains(t, err, want)
	}
	private, err := parseKeys(one(i.rsa, ""))
	require.Error(t, err, "a private key has no place in a JWKS: %v", private)

	// One key that is not for us does not keep the others out.
	mixed := bytes.Replace(i.jwks(t, "rs"), []byte(`{"keys":[`), []byte(`{"keys":[{"kty":"XX"},`), 1)
	keys, err := parseKeys(mixed)
	require.NoError(t, err)
	assert.Len(t, keys["rs"], 1)
}

// TestJWKSURL runs against a real server with TLS: who it asks, how often, and what it does
// when the server is gone.
func TestJWKSURL(t *testing.T) {
	t.Parallel()
	i, dir := theIssuer(), t.TempDir()
	var asked atomic.Int32
	var answer atomic.Pointer[func(http.ResponseWriter, *http.Request)]
	serve := func(f func(http.ResponseWriter, *http.Request)) { answer.Store(&f) }
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		(*answer.Load())(w, r)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	a := newAuthority(t)
	ca := write(t, dir, "ca.pem", a.pem()) // another one's
	config := ServiceAccounts{Issuer: iss, JWKSURL: s.URL, CAFile: ca, BearerTokenFile: write(t, dir, "token", []byte("own-token\n"))}
	keysOf := func(ids ...string) func(http.ResponseWriter, *http.Request) {
		b := i.jwks(t, ids...)
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer own-token" {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			_, _ = w.Write(b)
		}
	}
	serve(keysOf("one"))
	n, err := NewAuthenticator(Config{ServiceAccounts: &config}, nil)
	require.NoError(t, err, "it starts without keys")
	token := func(id string) string { return i.sign(t, jose.RS256, i.rsa, id, good(time.Now())) }
	// later lets the next fetch begin at once.
	later := func() {
		src := n.accounts.keys
		src.mu.Lock()
		defer src.mu.Unlock()
		src.tried = time.Now().Add(-fetchEvery)
	}

	var e *Error
	_, err = bearer(n, token("one"))
	require.ErrorAs(t, err, &e)
	assert.Positive(t, e.RetryAfter, "it was not judged")
	require.ErrorContains(t, err, "certificate signed by unknown authority")
	require.ErrorContains(t, n.ReloadError(), "unknown authority")
	assert.Zero(t, asked.Load())

	write(t, dir, "ca.pem", pemOf(s.Certificate()))
	later()
	_, err = bearer(n, token("one"))
	require.NoError(t, err)
	require.NoError(t, n.ReloadError())
	assert.EqualValues(t, 1, asked.Load())

	// A flood of unknown keys is one fetch at most.
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() { _, err := bearer(n, token("two")); assert.Error(t, err) })
	}
	wait.Wait()
	assert.EqualValues(t, 1, asked.Load())
	later()
	serve(keysOf("one", "two"))
	for range 50 {
		wait.Go(func() { _, err := bearer(n, token("two")); assert.NoError(t, err) })
	}
	wait.Wait()
	assert.EqualValues(t, 2, asked.Load())

	// Whatever the server does then, the keys stay, and the reason is told.
	for want, f := range map[string]func(http.ResponseWriter, *http.Request){
		"500 Internal Server Error": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"set bearer_token_file":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) },
		"more than 1048576 bytes":   func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, maxJWKS+1)) },
		"it redirects":              func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, s.URL+"/x", http.StatusFound) },
		"not a JWKS":                func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"no key for RS256 or ES256": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"keys":[]}`)) },
	} {
		serve(f)
		later()
		_, err = bearer(n, token("three"))
		require.ErrorContains(t, err, "no key of the issuer's")
		require.ErrorContains(t, n.ReloadError(), want)
		_, err = bearer(n, token("one"))
		require.NoError(t, err, want)
	}
	require.NoError(t, os.Remove(config.BearerTokenFile))
	later()
	_, err = bearer(n, token("three"))
	require.Error(t, err)
	require.ErrorContains(t, n.ReloadError(), "no such file")

	// A key that the issuer takes out is no key when the keys are fetched again.
	write(t, dir, "token", []byte("own-token"))
	serve(keysOf("two"))
	later()
	n.accounts.keys.mu.Lock()
	n.accounts.keys.got = time.Now().Add(-keysOld)
	n.accounts.keys.mu.Unlock()
	_, err = bearer(n, token("one"))
	require.NoError(t, err, "old keys serve while new ones are fetched")
	require.Eventually(t, func() bool { _, err := bearer(n, token("one")); return err != nil }, 10*time.Second, 10*time.Millisecond)
}

func TestServiceAccountsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bad := write(t, dir, "bad.pem", []byte("x"))
	for want, c := range map[string]ServiceAccounts{
		"issuer is missing":          {JWKSFile: bad},
		"exactly one of":             {Issuer: iss},
		"exactly one of jwks_file":   {Issuer: iss, JWKSFile: bad, JWKSURL: "https://x/"},
		"are for jwks_url":           {Issuer: iss, JWKSFile: bad, CAFile: bad},
		"bad.pem: not a JWKS":        {Issuer: iss, JWKSFile: bad},
		`"http://10.0.0.1/" is not`:  {Issuer: iss, JWKSURL: "http://10.0.0.1/"},
		`"file:///etc/x" is not an`:  {Issuer: iss, JWKSURL: "file:///etc/x"},
		`"https:///keys" is not an`:  {Issuer: iss, JWKSURL: "https:///keys"},
		"jwks_url: parse":            {Issuer: iss, JWKSURL: "https://x:y:z"},
		"bad.pem holds no certifica": {Issuer: iss, JWKSURL: "https://x/", CAFile: bad},
		"http://u:xxxxx@x/":          {Issuer: iss, JWKSURL: "http://u:secret@x/"},
	} {
		_, err := NewAuthenticator(Config{ServiceAccounts: &c}, nil)
		require.ErrorContains(t, err, want)
	}
	_, err := NewAuthenticator(Config{ServiceAccounts: &ServiceAccounts{Issuer: iss, JWKSURL: "http://127.0.0.1:1/"}}, nil)
	require.NoError(t, err, "no one is between us and ourselves")
}

// FuzzAuthenticate: whatever a client sends, it is refused or nobody; only tokens that the
// issuer signed are somebody.
func FuzzAuthenticate(f *testing.F) {
	i := theIssuer()
	dir := f.TempDir()
	web, err := OpenWeb(write(f, dir, "web.yml", []byte("basic_auth_users:\n  alice: "+bcryptOf(f, "never guessed")+"\n")))
	require.NoError(f, err)
	n, err := NewAuthenticator(Config{
		TokenFile:       write(f, dir, "tokens", []byte(hash("never guessed")+" bob\n")),
		ServiceAccounts: &ServiceAccounts{Issuer: iss, JWKSFile: write(f, dir, "jwks.json", i.jwks(f, "rs", "ec"))},
	}, web)
	require.NoError(f, err)
	expired := with(good(time.Now()), "exp", 1)
	f.Add("Bearer "+i.sign(f, jose.RS256, i.rsa, "rs", expired), "")
	f.Add("Bearer "+i.sign(f, jose.ES256, i.ecdsa, "ec", expired), "Bearer x")
	f.Add("bearer eyJhbGciOiJub25lIn0.e30.", "")
	f.Add("Basic YWxpY2U6eA==", "")
	f.Add("Basic", "")
	f.Add("Bearer ..", "")
	f.Add("Bearer \x00.\xff.=", "")
	f.Fuzz(func(t *testing.T, first, second string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Authorization"] = []string{first}
		if second != "" {
			r.Header["Authorization"] = append(r.Header["Authorization"], second)
		}
		_, err := n.Authenticate(r)
		var e *Error
		require.True(t, errors.As(err, &e), "%v", err)
		require.NotEmpty(t, e.Reason)
		if len(first) > 40 {
			require.NotContains(t, err.Error(), first[10:])
		}
	})
}

// FuzzKeys: a key set that is taken holds keys that RS256 or ES256 can verify with.
func FuzzKeys(f *testing.F) {
	f.Add(theIssuer().jwks(f, "rs", "ec"))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"EC","crv":"P-256","x":"","y":""}]}`))
	f.Add([]byte(`{"keys":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := parseKeys(b)
		if err != nil {
			return
		}
		require.NotEmpty(t, keys)
		for _, list := range keys {
			for _, k := range list {
				switch k := k.(type) {
				case *rsa.PublicKey:
					require.GreaterOrEqual(t, k.N.BitLen(), minRSA)
				case *ecdsa.PublicKey:
					require.Equal(t, elliptic.P256(), k.Curve)
				default:
					require.Fail(t, "another key", "%T", k)
				}
			}
		}
	})
}
