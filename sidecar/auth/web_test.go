// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/sidecar/internal/reread"
)

func TestWebRefuses(t *testing.T) {
	t.Parallel()
	a, dir := newAuthority(t), t.TempDir()
	cert, key := a.issue(nil)
	_, otherKey := a.issue(nil)
	write(t, dir, "cert.pem", cert)
	write(t, dir, "key.pem", key)
	write(t, dir, "other.pem", otherKey)
	write(t, dir, "ca.pem", a.pem())
	write(t, dir, "empty.pem", []byte("# nothing\n"))
	const pair = "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n"
	for text, want := range map[string]string{
		"tls_server_conf: {}":                                                                     `web.yml: line 1: field tls_server_conf not found`,
		pair + "  mintls: x":                                                                      `web.yml: line 4: field mintls not found`,
		"tls_server_config: [":                                                                    `web.yml: line 1: `,
		"tls_server_config: {cert_file: cert.pem}":                                                `tls_server_config: key or key_file is missing`,
		"tls_server_config: {key_file: key.pem}":                                                  `tls_server_config: cert or cert_file is missing`,
		"tls_server_config: {client_auth_type: NoClientCert}":                                     `cert or cert_file is missing`,
		"tls_server_config: {cert_file: cert.pem, key_file: nope.pem}":                            `key_file: stat ` + dir + `/nope.pem`,
		"tls_server_config: {cert_file: cert.pem, key_file: other.pem}":                           `private key does not match`,
		pair + "  min_version: TLS14":                                                             `min_version: "TLS14" is not one of`,
		pair + "  max_version: SSL3":                                                              `max_version: "SSL3" is not one of`,
		pair + "  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]":                                      `cipher_suites: "TLS_RSA_WITH_RC4_128_SHA" is not known, or not safe`,
		pair + "  curve_preferences: [P256]":                                                      `curve_preferences: "P256" is not one of`,
		pair + "  client_auth_type: Maybe":                                                        `client_auth_type: "Maybe" is not one of`,
		pair + "  client_ca_file: ca.pem":                                                         `client_auth_type asks for no certificate`,
		pair + "  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: empty.pem":         `client_ca holds no certificate`,
		"basic_auth_users: {alice: secret}":                                                       `basic_auth_users: "alice": not a bcrypt hash`,
		"basic_auth_users: {alice: " + strings.Replace(bcryptOf(t, "x"), "$04$", "$19$", 1) + "}": `cost 19 is above 18`,
		"http_server_config: {headers: {X-Other: x}}":                                             `headers: "X-Other" cannot be set`,
		"http_server_config: {headers: {X-Frame-Options: allow}}":                                 `X-Frame-Options: "allow" is not one of`,
		"http_server_config: {http2: perhaps}":                                                    `line 1: cannot unmarshal`,
	} {
		_, err := OpenWeb(write(t, dir, "web.yml", []byte(text)))
		require.ErrorContains(t, err, want, text)
		require.ErrorContains(t, err, "web.yml", text)
	}
	_, err := OpenWeb(dir + "/none.yml")
	require.ErrorContains(t, err, "none.yml: no such file")
}

func TestNilWeb(t *testing.T) {
	t.Parallel()
	var w *Web
	assert.False(t, w.TLS())
	require.NoError(t, w.ReloadError())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	assert.Same(t, l, w.Listener(l))
	rec := httptest.NewRecorder()
	w.Handler(http.NotFoundHandler()).ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
	assert.Equal(t, http.StatusNotFound, rec.Code)
}

func TestWebHeadersAndRate(t *testing.T) {
	t.Parallel()
	w, err := OpenWeb(write(t, t.TempDir(), "web.yml", []byte(`
http_server_config:
  headers: {X-Frame-Options: deny, Strict-Transport-Security: max-age=60}
rate_limit: {burst: 2, interval: 1h}
`)))
	require.NoError(t, err)
	h := w.Handler(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusNoContent) }))
	var codes []int
	for range 3 {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
		codes = append(codes, rec.Code)
		if rec.Code == http.StatusNoContent {
			assert.Equal(t, "deny", rec.Header().Get("X-Frame-Options"))
			assert.Equal(t, "max-age=60", rec.Header().Get("Strict-Transport-Security"))
		}
	}
	assert.Equal(t, []int{204, 204, 429}, codes)
}

// served is a real server with a web configuration file, and the users it saw.
type served struct {
	dir, url string
	web      *Web
	mu       sync.Mutex
	users    []User
	errs     []error
}

func serve(t *testing.T, dir, file string) *served {
	w, err := OpenWeb(write(t, dir, "web.yml", []byte(file)))
	require.NoError(t, err)
	n, err := NewAuthenticator(Config{}, w)
	require.NoError(t, err)
	v := &served{dir: dir, web: w}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: w.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		u, err := n.Authenticate(r)
		v.mu.Lock()
		defer v.mu.Unlock()
		v.users, v.errs = append(v.users, u), append(v.errs, err)
	}))}
	go s.Serve(w.Listener(l))
	t.Cleanup(func() { s.Close() })
	v.url = "https://" + l.Addr().String()
	return v
}

// last is who the last request was from.
func (v *served) last() (User, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.users[len(v.users)-1], v.errs[len(v.errs)-1]
}

// now makes the next use look at the files, as a second would.
func (v *served) now() { time.Sleep(reread.Every + 10*time.Millisecond) }

func clientOf(a *authority, certs ...tls.Certificate) *http.Client {
	return &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: a.pool(), Certificates: certs}}}
}

func get(t *testing.T, c *http.Client, url string) (*http.Response, error) {
	resp, err := c.Get(url)
	if err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	return resp, err
}

func TestMTLS(t *testing.T) {
	t.Parallel()
	server, clients, strangers, dir := newAuthority(t), newAuthority(t), newAuthority(t), t.TempDir()
	cert, key := server.issue(nil)
	write(t, dir, "cert.pem", cert)
	write(t, dir, "key.pem", key)
	write(t, dir, "ca.pem", clients.pem())
	const file = "tls_server_config: {cert_file: cert.pem, key_file: key.pem, client_ca_file: ca.pem, client_auth_type: VerifyClientCertIfGiven%s}\n"
	v := serve(t, dir, fmt.Sprintf(file, ""))

	alice := clientOf(server, clients.client("alice", []string{"ops", "dev"}, nil))
	resp, err := get(t, alice, v.url)
	require.NoError(t, err)
	assert.Equal(t, 2, resp.ProtoMajor, "HTTP/2 is spoken")
	assert.GreaterOrEqual(t, resp.TLS.Version, uint16(tls.VersionTLS13))
	u, err := v.last()
	require.NoError(t, err)
	assert.Equal(t, User{Name: "alice", Groups: []string{"dev", "ops", AuthenticatedGroup}, How: HowMTLS}, u)

	spiffe, _ := url.Parse("spiffe://cluster/ns/default/sa/app")
	_, err = get(t, clientOf(server, clients.client("", nil, func(c *x509.Certificate) { c.URIs = []*url.URL{spiffe} })), v.url)
	require.NoError(t, err)
	u, err = v.last()
	require.NoError(t, err)
	assert.Equal(t, spiffe.String(), u.Name, "without a common name it is the first alternative name")

	_, err = get(t, clientOf(server), v.url)
	require.NoError(t, err)
	u, err = v.last()
	require.NoError(t, err)
	assert.Equal(t, Anonymous(), u)

	for name, c := range map[string]tls.Certificate{
		"another CA's": strangers.client("alice", nil, nil),
		"expired":      clients.client("alice", nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }),
		"a server's":   clients.client("alice", nil, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
	} {
		_, err = get(t, clientOf(server, c), v.url)
		require.Error(t, err, name)
	}
	for name, change := range map[string]func(*x509.Certificate){
		"no name":      func(c *x509.Certificate) { c.Subject.CommonName = "" },
		"control":      func(c *x509.Certificate) { c.Subject.CommonName = "a\nb" },
		"system:anony": func(c *x509.Certificate) { c.Subject.CommonName = AnonymousUser },
	} {
		_, err = get(t, clientOf(server, clients.client("x", nil, change)), v.url)
		require.NoError(t, err)
		_, err = v.last()
		require.ErrorContains(t, err, "the client's certificate names nobody", name)
	}

	// The file turns bad: nothing changes but that it is told.
	write(t, dir, "web.yml", []byte("nonsense: 1\n"))
	v.now()
	_, err = get(t, alice, v.url)
	require.NoError(t, err)
	_, err = v.last()
	require.NoError(t, err)
	require.ErrorContains(t, v.web.ReloadError(), "line 1: field nonsense not found")
	write(t, dir, "web.yml", []byte("basic_auth_users: {}\n"))
	v.now()
	require.ErrorContains(t, v.web.ReloadError(), "restart")
	write(t, dir, "web.yml", []byte(fmt.Sprintf(file, "")))
	v.now()
	require.NoError(t, v.web.ReloadError())

	// A new certificate of the server's is shown to who connects next.
	cert, key = server.issue(func(c *x509.Certificate) { c.Subject.CommonName = "the new one" })
	write(t, dir, "cert.pem", cert)
	v.now()
	_, err = get(t, clientOf(server), v.url)
	require.NoError(t, err, "half a pair is not taken")
	require.ErrorContains(t, v.web.ReloadError(), "private key does not match")
	write(t, dir, "key.pem", key)
	v.now()
	resp, err = get(t, clientOf(server), v.url)
	require.NoError(t, err)
	assert.Equal(t, "the new one", resp.TLS.PeerCertificates[0].Subject.CommonName)

	// Another CA: who is connected already is nobody any more.
	write(t, dir, "ca.pem", strangers.pem())
	v.now()
	_, err = get(t, alice, v.url)
	require.NoError(t, err, "the connection is open still")
	_, err = v.last()
	require.ErrorContains(t, err, "not accepted any more")
	_, err = get(t, clientOf(server, clients.client("alice", nil, nil)), v.url)
	require.Error(t, err)
}

// TestNoCANoUser: a certificate that any CA of the system may have signed is nobody's.
func TestNoCANoUser(t *testing.T) {
	t.Parallel()
	a, dir := newAuthority(t), t.TempDir()
	cert, key := a.issue(nil)
	write(t, dir, "cert.pem", cert)
	write(t, dir, "key.pem", key)
	write(t, dir, "ca.pem", a.pem())
	for _, how := range []string{"RequestClientCert", "RequireAnyClientCert", "RequestClientCert, client_ca_file: ca.pem"} {
		v := serve(t, dir, "tls_server_config: {cert_file: cert.pem, key_file: key.pem, client_auth_type: "+how+"}\n")
		_, err := get(t, clientOf(a, a.client("alice", nil, nil)), v.url)
		require.NoError(t, err)
		u, err := v.last()
		require.NoError(t, err)
		assert.Equal(t, Anonymous(), u, how)
	}
	w, err := OpenWeb(write(t, dir, "web.yml", []byte("tls_server_config: {cert_file: cert.pem, key_file: key.pem, client_auth_type: VerifyClientCertIfGiven}\n")))
	require.NoError(t, err)
	assert.Nil(t, w.file.Get().clientCAs)
}

func TestAllowedSANs(t *testing.T) {
	t.Parallel()
	a, dir := newAuthority(t), t.TempDir()
	cert, key := a.issue(nil)
	write(t, dir, "cert.pem", cert)
	write(t, dir, "key.pem", key)
	write(t, dir, "ca.pem", a.pem())
	file := "tls_server_config: {cert_file: cert.pem, key_file: key.pem, client_ca_file: ca.pem, client_auth_type: RequireAndVerifyClientCert, client_allowed_sans: [%s]}\n"
	v := serve(t, dir, fmt.Sprintf(file, "good.example, 192.0.2.7, ops@example.org"))
	san := func(change func(*x509.Certificate)) *http.Client { return clientOf(a, a.client("x", nil, change)) }
	good := a.client("x", nil, func(c *x509.Certificate) { c.DNSNames = []string{"other", "good.example"} })
	for name, c := range map[string]*http.Client{
		"DNS":   clientOf(a, good),
		"IP":    san(func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 7)} }),
		"email": san(func(c *x509.Certificate) { c.EmailAddresses = []string{"ops@example.org"} }),
	} {
		_, err := get(t, c, v.url)
		require.NoError(t, err, name)
	}
	for name, c := range map[string]*http.Client{
		"none":    san(nil),
		"another": san(func(c *x509.Certificate) { c.DNSNames = []string{"bad.example"} }),
		"nothing": clientOf(a),
	} {
		_, err := get(t, c, v.url)
		require.Error(t, err, name)
	}

	// A session that is resumed is judged too.
	tickets := clientOf(a, good)
	transport := tickets.Transport.(*http.Transport)
	transport.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	transport.DisableKeepAlives = true
	resumed := false
	for range 3 {
		resp, err := get(t, tickets, v.url)
		require.NoError(t, err)
		resumed = resumed || resp.TLS.DidResume
	}
	assert.True(t, resumed)
	write(t, dir, "web.yml", []byte(fmt.Sprintf(file, "somebody.else")))
	v.now()
	_, err := get(t, tickets, v.url)
	require.Error(t, err)
}

// FuzzWeb: a file that is taken gives safe settings.
func FuzzWeb(f *testing.F) {
	a := newAuthority(f)
	cert, key := a.issue(nil)
	files := map[string][]byte{"/d/cert.pem": cert, "/d/key.pem": key, "/d/ca.pem": a.pem()}
	f.Add([]byte("tls_server_config: {cert_file: cert.pem, key_file: key.pem, client_ca_file: ca.pem, client_auth_type: RequireAndVerifyClientCert, client_allowed_sans: []}"))
	f.Add([]byte("tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n  min_version: TLS10\n  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n  curve_preferences: [X25519]\n"))
	f.Add([]byte("basic_auth_users: {a: " + bcryptOf(f, "x") + "}\nhttp_server_config: {http2: false, headers: {X-XSS-Protection: \"1\"}}\nrate_limit: {burst: 1, interval: 1s}"))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("tls_server_config:\nbasic_auth_users: ~\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := parseWeb(b, "/d", func(path string) ([]byte, error) {
			if b, ok := files[path]; ok {
				return b, nil
			}
			return nil, fmt.Errorf("%s: no such file", path)
		})
		if err != nil {
			require.Nil(t, w)
			return
		}
		for name := range w.headers {
			require.Contains(t, headers, name)
		}
		if w.tls == nil {
			require.Nil(t, w.clientCAs)
			return
		}
		require.Len(t, w.tls.Certificates, 1)
		require.Equal(t, w.tls.ClientAuth >= tls.VerifyClientCertIfGiven && w.tls.ClientCAs != nil, w.clientCAs != nil)
		if w.clientCAs != nil && w.sans != nil {
			require.NotNil(t, w.tls.VerifyConnection)
		}
	})
}
