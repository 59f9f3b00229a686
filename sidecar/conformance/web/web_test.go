// SPDX-License-Identifier: Apache-2.0

// Package web holds the web configuration file of sidecar/auth against Prometheus'
// exporter-toolkit itself.
package web

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/memguard/memguard-go/sidecar/auth"
)

// stricter are the reasons for which we refuse what the toolkit takes.
var stricter = []string{
	"holds no certificate", // it verifies against nothing then, and refuses everybody
	"is above 18",          // a guess takes most of a minute of a core
}

// agree requires that both take a file, or both refuse it. strict is the reason for which
// only we do.
func agree(t *testing.T, path, text string) (taken bool, strict string) {
	t.Helper()
	theirs := web.Validate(path)
	_, ours := auth.OpenWeb(path)
	if theirs == nil && ours != nil {
		for _, s := range stricter {
			if strings.Contains(ours.Error(), s) {
				return false, s
			}
		}
	}
	require.Equal(t, theirs == nil, ours == nil, "%s\ntheirs: %v\nours: %v", text, theirs, ours)
	return theirs == nil, ""
}

// TestToolkitsOwnFiles runs over the files that the toolkit tests itself with.
func TestToolkitsOwnFiles(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/prometheus/exporter-toolkit").Output()
	require.NoError(t, err)
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "web", "testdata", "*.y*ml"))
	require.NoError(t, err)
	taken := 0
	for _, f := range files {
		ok, strict := agree(t, f, f)
		assert.Empty(t, strict, f)
		if ok {
			taken++
		}
	}
	t.Logf("%d files, %d of them taken", len(files), taken)
	assert.Greater(t, len(files), 35)
	assert.Greater(t, taken, 15)
}

// pki is a directory with certificates.
type pki struct {
	t   testing.TB
	dir string
	ca  *x509.Certificate
	key *ecdsa.PrivateKey
}

func newPKI(t testing.TB, dir string) *pki {
	p := &pki{t: t, dir: dir}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	var err error
	p.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &p.key.PublicKey, p.key)
	require.NoError(t, err)
	p.ca, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	return p
}

func (p *pki) write(name string, b []byte) {
	require.NoError(p.t, os.WriteFile(filepath.Join(p.dir, name), b, 0o600))
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func (p *pki) issue(names ...string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(p.t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "x"}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, p.ca, &key.PublicKey, p.key)
	require.NoError(p.t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// files writes what the drawn files name.
func (p *pki) files() {
	server := p.issue("localhost")
	key, err := x509.MarshalPKCS8PrivateKey(server.PrivateKey)
	require.NoError(p.t, err)
	p.write("cert.pem", block("CERTIFICATE", server.Certificate[0]))
	p.write("key.pem", block("PRIVATE KEY", key))
	p.write("ca.pem", block("CERTIFICATE", p.ca.Raw))
	p.write("empty.pem", []byte("# nothing\n"))
}

func hash(t testing.TB, password string) string {
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	require.NoError(t, err)
	return string(h)
}

// TestFiles draws files of good and bad fields: both must take the same ones.
func TestFiles(t *testing.T) {
	p := newPKI(t, t.TempDir())
	p.files()
	r := mrand.New(mrand.NewPCG(1, 2))
	// Each field with values that are likely, good and bad.
	tlsFields := []struct {
		name   string
		one    int // in how many it is there
		values []string
	}{
		{"cert_file", 1, []string{"cert.pem", "cert.pem", "cert.pem", "cert.pem", "missing.pem", "key.pem", `""`, "~"}},
		{"key_file", 1, []string{"key.pem", "key.pem", "key.pem", "key.pem", "missing.pem", "cert.pem", `""`}},
		{"client_ca_file", 4, []string{"ca.pem", "ca.pem", "missing.pem", "empty.pem", `""`}},
		{"client_auth_type", 2, []string{"NoClientCert", "RequestClientCert", "RequireAnyClientCert", "RequireClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert", `""`, "requireandverifyclientcert", "1"}},
		{"client_allowed_sans", 4, []string{"[a, b]", "[]", "~", "a", "[1]"}},
		{"min_version", 4, []string{"TLS10", "TLS11", "TLS12", "TLS13", "tls12", "1.2", `""`, "~"}},
		{"max_version", 6, []string{"TLS12", "TLS13", "TLS14"}},
		{"cipher_suites", 6, []string{"[TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]", "[]", "~", "[TLS_RSA_WITH_RC4_128_SHA]", "[x]", "TLS_AES_128_GCM_SHA256"}},
		{"curve_preferences", 6, []string{"[X25519, CurveP256]", "[CurveP521, CurveP384]", "[P256]", "[]"}},
		{"prefer_server_cipher_suites", 6, []string{"true", "false", "yes", "no", "off", `"true"`, "1", "~"}},
		{"cert", 30, []string{"x"}},
		{"key", 30, []string{"x"}},
		{"client_ca", 30, []string{"x"}},
		{"certfile", 60, []string{"cert.pem"}},
	}
	top := []struct {
		name   string
		one    int
		values []string
	}{
		{"basic_auth_users", 3, []string{"{alice: " + hash(t, "a") + "}", "{}", "~", "{alice: plain}", "{alice: ~}", "[alice]", `{"": "` + hash(t, "a") + `"}`,
			"{a: " + strings.Replace(hash(t, "a"), "$04$", "$24$", 1) + "}", "{1: " + hash(t, "a") + "}"}},
		{"http_server_config", 3, []string{"{http2: false}", "{http2: yes}", "{http2: maybe}", "{http2: ~}", "{}", "~", "{headers: {X-Frame-Options: deny}}", "{headers: {X-Frame-Options: DENY}}",
			"{headers: {x-frame-options: deny}}", "{headers: {Strict-Transport-Security: anything}}", "{headers: {Server: x}}", "{headers: {X-Content-Type-Options: nosniff, X-XSS-Protection: 1}}", "{headers: ~}", "{header: {}}"}},
		{"rate_limit", 4, []string{"{burst: 1, interval: 1s}", "{interval: 1}", "{interval: 0}", "{interval: 0s}", "{burst: 1.5}", "{burst: -1}", "{interval: -1s}", "{interval: x}", "{burst: ~}", "{rate: 1}"}},
		{"tls_config", 80, []string{"{}"}},
		{"&x y", 120, []string{"*x"}},
	}
	taken, refused, only := 0, 0, map[string]int{}
	for i := range 1500 {
		var b strings.Builder
		if r.IntN(8) > 0 {
			b.WriteString("tls_server_config:\n")
			for _, f := range tlsFields {
				// A file with many fields is almost always bad: most have few.
				if f.one == 1 && r.IntN(20) > 0 || f.one > 1 && r.IntN(2*f.one) == 0 {
					value := f.values[r.IntN(len(f.values))]
					if f.one == 1 && r.IntN(3) > 0 {
						value = f.values[0]
					}
					fmt.Fprintf(&b, "  %s: %s\n", f.name, value)
				}
			}
		}
		for _, f := range top {
			if r.IntN(2*f.one) == 0 {
				fmt.Fprintf(&b, "%s: %s\n", f.name, f.values[r.IntN(len(f.values))])
			}
		}
		if r.IntN(100) == 0 {
			b.WriteString([]string{"---\n", "...\n", "\t", "# end", "tls_server_config: {}\n"}[r.IntN(5)])
		}
		name := fmt.Sprintf("web%d.yml", i%2)
		p.write(name, []byte(b.String()))
		ok, strict := agree(t, filepath.Join(p.dir, name), b.String())
		switch {
		case ok:
			taken++
		case strict == "":
			refused++
		default:
			only[strict]++
		}
	}
	t.Logf("%d taken by both, %d refused by both, by us alone: %v", taken, refused, only)
	assert.Greater(t, taken, 200)
	assert.Greater(t, refused, 200)
	for _, s := range stricter {
		assert.Positive(t, only[s], s)
	}
}

// both starts a server of the toolkit's and one of ours with one file, and a handler that
// asks our Authenticator where the toolkit's asks for a password.
func both(t *testing.T, path string) (theirs, ours string) {
	quiet := log.New(io.Discard, "", 0)
	ok := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &http.Server{Handler: ok, ErrorLog: quiet}
	go web.Serve(l, s, &web.FlagConfig{WebConfigFile: &path}, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { s.Close() })

	w, err := auth.OpenWeb(path)
	require.NoError(t, err)
	n, err := auth.NewAuthenticator(auth.Config{}, w)
	require.NoError(t, err)
	l2, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s2 := &http.Server{ErrorLog: quiet, Handler: w.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if u, err := n.Authenticate(r); err != nil || len(n.Challenges()) > 1 && u.How != auth.HowBasic {
			http.Error(rw, "no", http.StatusUnauthorized)
			return
		}
		ok(rw, r)
	}))}
	go s2.Serve(w.Listener(l2))
	t.Cleanup(func() { s2.Close() })
	return l.Addr().String(), l2.Addr().String()
}

// TestServers makes the same requests to both: what the handshake agrees on, and what the
// answer is, must be the same.
func TestServers(t *testing.T) {
	p := newPKI(t, t.TempDir())
	p.files()
	stranger := newPKI(t, t.TempDir())
	files := map[string]string{
		"plain":        "basic_auth_users: {alice: " + hash(t, "secret") + "}\nhttp_server_config: {headers: {X-Frame-Options: deny}}\n",
		"empty":        "",
		"tls":          "tls_server_config: {cert_file: cert.pem, key_file: key.pem}\n",
		"http1":        "tls_server_config: {cert_file: cert.pem, key_file: key.pem}\nhttp_server_config: {http2: false}\n",
		"tls12":        "tls_server_config: {cert_file: cert.pem, key_file: key.pem, max_version: TLS12, cipher_suites: [TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256], prefer_server_cipher_suites: true}\nhttp_server_config: {http2: false}\n",
		"tls13":        "tls_server_config: {cert_file: cert.pem, key_file: key.pem, min_version: TLS13, curve_preferences: [CurveP384]}\n",
		"tls10":        "tls_server_config: {cert_file: cert.pem, key_file: key.pem, min_version: TLS10}\n",
		"request":      "tls_server_config: {cert_file: cert.pem, key_file: key.pem, client_auth_type: RequestClientCert}\n",
		"any":          "tls_server_config: {cert_file: cert.pem, key_file: key.pem, client_auth_type: RequireAnyClientCert}\n",
		"if given":     "tls_server_config: {cert_file: cert.pem, key_file: key.pem, client_auth_type: VerifyClientCertIfGiven, client_ca_file: ca.pem}\n",
		"verify":       "tls_server_config: {cert_file: cert.pem, key_file: key.pem, client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem}\nbasic_auth_users: {alice: " + hash(t, "secret") + "}\n",
		"sans":         "tls_server_config: {cert_file: cert.pem, key_file: key.pem, client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem, client_allowed_sans: [good]}\n",
		"sans, if":     "tls_server_config: {cert_file: cert.pem, key_file: key.pem, client_auth_type: VerifyClientCertIfGiven, client_ca_file: ca.pem, client_allowed_sans: [good]}\n",
		"no sans":      "tls_server_config: {cert_file: cert.pem, key_file: key.pem, client_auth_type: RequireAnyClientCert, client_allowed_sans: []}\n",
		"sans, no one": "tls_server_config: {cert_file: cert.pem, key_file: key.pem, client_allowed_sans: [good]}\n",
	}
	clients := map[string][]tls.Certificate{
		"nobody": nil, "good": {p.issue("good")}, "another": {p.issue("bad")}, "a stranger": {stranger.issue("good")},
	}
	pool := x509.NewCertPool()
	pool.AddCert(p.ca)
	type seen struct {
		Failed  bool
		Version uint16
		Cipher  uint16
		Curve   tls.CurveID
		Proto   string
		Code    int
		Frame   string
	}
	outcomes := map[seen]int{}
	for name, text := range files {
		path := filepath.Join(p.dir, strings.ReplaceAll(name, " ", "")+".yml")
		p.write(filepath.Base(path), []byte(text))
		theirs, ours := both(t, path)
		for who, certs := range clients {
			for _, max := range []uint16{tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
				for _, password := range []string{"", "secret", "wrong"} {
					ask := func(addr string) (s seen) {
						scheme := "https"
						if !strings.Contains(text, "tls_server_config") {
							scheme = "http"
						}
						transport := &http.Transport{ForceAttemptHTTP2: true, DisableKeepAlives: true, TLSClientConfig: &tls.Config{
							RootCAs: pool, MinVersion: tls.VersionTLS10, MaxVersion: max,
							GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
								if len(certs) == 0 {
									return &tls.Certificate{}, nil
								}
								return &certs[0], nil // whichever CAs the server names
							},
						}}
						req, err := http.NewRequest("GET", scheme+"://"+addr, nil)
						require.NoError(t, err)
						if password != "" {
							req.SetBasicAuth("alice", password)
						}
						resp, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(req)
						if err != nil {
							return seen{Failed: true}
						}
						defer resp.Body.Close()
						s = seen{Proto: resp.Proto, Code: resp.StatusCode, Frame: resp.Header.Get("X-Frame-Options")}
						if resp.TLS != nil {
							s.Version, s.Cipher, s.Curve = resp.TLS.Version, resp.TLS.CipherSuite, resp.TLS.CurveID
						}
						return s
					}
					if password != "" && !strings.Contains(text, "alice") {
						continue // they do not look at it
					}
					want, got := ask(theirs), ask(ours)
					assert.Equal(t, want, got, "%s: %s, up to %x, password %q", name, who, max, password)
					outcomes[got]++
				}
			}
		}
	}
	assert.Greater(t, len(outcomes), 8, "%v", outcomes)
}
