// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/time/rate"

	"github.com/memguard/memguard-go/sidecar/internal/reread"
)

// webFile is the web configuration file of Prometheus' exporter-toolkit v0.20
// (docs/web-configuration.md there). sidecar/conformance/web holds it against the
// toolkit itself.
type webFile struct {
	TLS   tlsFile           `yaml:"tls_server_config"`
	HTTP  httpFile          `yaml:"http_server_config"`
	Rate  rateFile          `yaml:"rate_limit"`
	Users map[string]string `yaml:"basic_auth_users"` // name to bcrypt hash
}

type tlsFile struct {
	Cert        string   `yaml:"cert"` // PEM
	CertFile    string   `yaml:"cert_file"`
	Key         string   `yaml:"key"`
	KeyFile     string   `yaml:"key_file"`
	ClientCA    string   `yaml:"client_ca"`
	ClientCAs   string   `yaml:"client_ca_file"`
	ClientAuth  string   `yaml:"client_auth_type"`
	AllowedSANs []string `yaml:"client_allowed_sans"` // an empty list allows none, no list all
	MinVersion  string   `yaml:"min_version"`
	MaxVersion  string   `yaml:"max_version"`
	Ciphers     []string `yaml:"cipher_suites"`
	Curves      []string `yaml:"curve_preferences"`
	// Without effect since Go 1.17; the toolkit accepts it too.
	PreferServerCipherSuites bool `yaml:"prefer_server_cipher_suites"`
}

type httpFile struct {
	HTTP2   bool              `yaml:"http2"`
	Headers map[string]string `yaml:"headers"`
}

type rateFile struct {
	Burst    int      `yaml:"burst"`
	Interval interval `yaml:"interval"` // between requests, on average; 0 is no limit
}

// interval is a duration, which may be a number: of nanoseconds, as the toolkit reads it.
type interval time.Duration

// UnmarshalYAML implements yaml.Unmarshaler.
func (i *interval) UnmarshalYAML(n *yaml.Node) error {
	if n.Tag == "!!null" {
		return nil
	}
	d, err := time.ParseDuration(n.Value)
	if count, notInt := strconv.ParseInt(n.Value, 0, 64); notInt == nil && n.Tag == "!!int" {
		d, err = time.Duration(count), nil
	}
	if err != nil {
		return fmt.Errorf("line %d: interval: %w", n.Line, err)
	}
	*i = interval(d)
	return nil
}

// headers are those that may be set, and to what; no value is any value.
var headers = map[string][]string{
	"Strict-Transport-Security": nil,
	"X-Content-Type-Options":    {"nosniff"},
	"X-Frame-Options":           {"deny", "sameorigin"},
	"X-XSS-Protection":          nil,
	"Content-Security-Policy":   nil,
}

// web is a web configuration file as it was read at one time. It does not change.
type web struct {
	users   map[string]string
	headers map[string]string
	limiter *rate.Limiter // nil: no limit
	tls     *tls.Config   // nil: plain HTTP

	// Who may have signed a client's certificate; nil where nobody is known by one.
	clientCAs *x509.CertPool
	sans      []string // nil: any
	verified  *bounded[[32]byte, error]
}

// Web is a web configuration file in the format of Prometheus' exporter-toolkit
// (tls_server_config, http_server_config, basic_auth_users, rate_limit). Use [OpenWeb].
// A nil Web is no file: plain HTTP, nobody known.
//
// A client certificate is a user where client_auth_type verifies it and client_ca_file says
// whose signature counts; where it does not, the handshake takes what any CA of the system
// signed, as the toolkit's does, and nobody is known by it.
//
// Two things are refused that the toolkit takes: a client_ca_file without a certificate in
// it, and bcrypt hashes of a cost above 18.
type Web struct{ file *reread.Value[*web] }

// OpenWeb reads the file and the certificates that it names; relative paths are
// relative to the file. The error names the file and the line or the field.
func OpenWeb(path string) (*Web, error) {
	var first *web
	file, err := reread.New(func(read reread.Read) (*web, error) {
		b, err := read(path)
		if err != nil {
			return nil, fmt.Errorf("auth: web configuration: %w", err)
		}
		next, err := parseWeb(b, filepath.Dir(path), read)
		if err == nil && first != nil && (next.tls == nil) != (first.tls == nil) {
			err = errors.New("tls_server_config: TLS is turned on or off at the start only: restart")
		}
		if err != nil {
			return nil, fmt.Errorf("auth: %s: %w", path, err)
		}
		if first == nil {
			first = next
		}
		return next, nil
	})
	if err != nil {
		return nil, err
	}
	return &Web{file}, nil
}

// TLS reports whether the file makes the server speak TLS.
func (w *Web) TLS() bool { return w != nil && w.file.Get().tls != nil }

// Listener makes the connections of l speak TLS where the file says so, with HTTP/2
// unless the file refuses it; else it returns l. Hand it to http.Server.Serve.
func (w *Web) Listener(l net.Listener) net.Listener {
	if !w.TLS() {
		return l
	}
	return tls.NewListener(l, &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			// The same until the file changes: a session is resumed only under the
			// configuration that it began under.
			return w.file.Get().tls, nil
		},
	})
}

// Handler adds the headers that the file says to every answer, and refuses what is
// above its rate limit. It does not authenticate: [Authenticator] does.
func (w *Web) Handler(next http.Handler) http.Handler {
	if w == nil {
		return next
	}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		now := w.file.Get()
		if now.limiter != nil && !now.limiter.Allow() {
			rw.Header().Set("Retry-After", "1")
			http.Error(rw, "above the rate limit of the web configuration file: wait", http.StatusTooManyRequests)
			return
		}
		for name, value := range now.headers {
			rw.Header().Set(name, value)
		}
		next.ServeHTTP(rw, r)
	})
}

// ReloadError says what is wrong with the file while its old content stays in force.
func (w *Web) ReloadError() error {
	if w == nil {
		return nil
	}
	return w.file.Err()
}

// parseWeb judges a file. dir is what relative paths are relative to.
func parseWeb(b []byte, dir string, read reread.Read) (*web, error) {
	f := webFile{TLS: tlsFile{MinVersion: "TLS12", MaxVersion: "TLS13"}, HTTP: httpFile{HTTP2: true}}
	if err := reread.YAML(b, &f); err != nil {
		return nil, err
	}
	for _, path := range []*string{&f.TLS.CertFile, &f.TLS.KeyFile, &f.TLS.ClientCAs} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
	w := &web{users: f.Users, headers: f.HTTP.Headers}
	for name, hash := range f.Users {
		cost, err := bcrypt.Cost([]byte(hash))
		if err != nil {
			return nil, fmt.Errorf("basic_auth_users: %q: not a bcrypt hash: %w", name, err)
		}
		if cost > maxCost {
			return nil, fmt.Errorf("basic_auth_users: %q: a bcrypt hash of cost %d is above %d: a guess would take most of a minute of a core", name, cost, maxCost)
		}
	}
	for name, value := range f.HTTP.Headers {
		allowed, ok := headers[name]
		if !ok {
			return nil, fmt.Errorf("http_server_config: headers: %q cannot be set", name)
		}
		if len(allowed) > 0 && !slices.Contains(allowed, value) {
			return nil, fmt.Errorf("http_server_config: headers: %s: %q is not one of %q", name, value, allowed)
		}
	}
	if f.Rate.Interval != 0 {
		w.limiter = rate.NewLimiter(rate.Every(time.Duration(f.Rate.Interval)), f.Rate.Burst)
	}
	if err := w.setTLS(f.TLS, f.HTTP.HTTP2, read); err != nil {
		return nil, fmt.Errorf("tls_server_config: %w", err)
	}
	return w, nil
}
