// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/memguard/memguard-go/sidecar/internal/reread"
)

// maxCredential bounds an Authorization header, in bytes. A service-account token has
// about 1,200.
const maxCredential = 16 << 10

// Authenticator knows users by their credentials. Use [NewAuthenticator]. It is safe for
// concurrent use, and has no goroutine but that which fetches keys, for at most 5 s.
type Authenticator struct {
	tokens    *reread.Value[[]token] // nil: no token file
	accounts  *serviceAccounts       // nil: none are accepted
	peers     map[int]User
	web       *Web
	passwords *passwords
}

// NewAuthenticator reads the files that c names. web adds client certificates and
// passwords; it may be nil. Keys behind a URL are fetched when they are first asked for,
// so that a sidecar starts without them.
func NewAuthenticator(c Config, web *Web) (*Authenticator, error) {
	n := &Authenticator{web: web, peers: map[int]User{}, passwords: newPasswords()}
	var errs []error
	var err error
	if c.TokenFile != "" {
		n.tokens, err = reread.New(func(read reread.Read) ([]token, error) {
			b, err := read(c.TokenFile)
			if err != nil {
				return nil, fmt.Errorf("auth: token_file: %w", err)
			}
			return parseTokens(c.TokenFile, b)
		})
		errs = append(errs, err)
	}
	if c.ServiceAccounts != nil {
		n.accounts, err = newServiceAccounts(*c.ServiceAccounts)
		errs = append(errs, err)
	}
	if len(c.Peers) > 0 {
		errs = append(errs, peersUnsupported)
	}
	for i, p := range c.Peers {
		errs = append(errs, n.addPeer(i, p))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return n, nil
}

// overflowUID is who the kernel cannot name: every user that this user namespace does not
// map (user_namespaces(7), /proc/sys/kernel/overflowuid).
const overflowUID = 65534

func (n *Authenticator) addPeer(i int, p Peer) error {
	if p.UID < 0 || p.UID == overflowUID {
		return fmt.Errorf("auth: peers[%d]: uid %d is nobody's: 65534 is everybody that the kernel cannot name", i, p.UID)
	}
	if _, twice := n.peers[p.UID]; twice {
		return fmt.Errorf("auth: peers[%d]: uid %d again", i, p.UID)
	}
	u := User{Name: p.Name, Groups: append(p.Groups[:len(p.Groups):len(p.Groups)], AuthenticatedGroup), How: HowPeer}
	for _, name := range append([]string{u.Name}, u.Groups...) {
		if err := checkName(name); err != nil {
			return fmt.Errorf("auth: peers[%d]: %w", i, err)
		}
	}
	n.peers[p.UID] = u
	return nil
}

// Authenticate says who a request is from. Without any credential that is [Anonymous];
// with one that is wrong it is an *[Error]. The user's lists are shared: do not change them.
func (n *Authenticator) Authenticate(r *http.Request) (User, error) {
	if h := r.Header["Authorization"]; len(h) > 0 {
		if len(h) > 1 || len(h[0]) > maxCredential {
			return User{}, &Error{How: HowAnonymous, Reason: fmt.Sprintf("send one Authorization header of at most %d bytes", maxCredential)}
		}
		scheme, _, _ := strings.Cut(h[0], " ")
		switch strings.ToLower(scheme) {
		case "bearer":
			return n.bearer(r, strings.TrimSpace(h[0][len(scheme):]))
		case "basic":
			return n.basic(r)
		}
		return User{}, &Error{How: HowAnonymous, Reason: "send Authorization: Bearer TOKEN, or Basic"}
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && n.web != nil {
		if w := n.web.file.Get(); w.clientCAs != nil {
			return w.client(r.TLS)
		}
	}
	if c, ok := CallerOf(r.Context()); ok {
		if u, ok := n.peers[c.UID]; ok {
			return u, nil
		}
	}
	return Anonymous(), nil
}

func (n *Authenticator) bearer(r *http.Request, presented string) (User, error) {
	if presented == "" {
		return User{}, &Error{How: HowToken, Reason: "the token is empty"}
	}
	if n.tokens != nil {
		if u, ok := findToken(n.tokens.Get(), presented); ok {
			return u, nil
		}
	}
	// Two dots are a token that tells where it comes from.
	if n.accounts != nil && strings.Count(presented, ".") == 2 {
		return n.accounts.verify(r.Context(), presented)
	}
	return User{}, &Error{How: HowToken, Reason: "the token is not known here"}
}

func (n *Authenticator) basic(r *http.Request) (User, error) {
	name, password, ok := r.BasicAuth()
	if !ok {
		return User{}, &Error{How: HowBasic, Reason: "not a name and a password"}
	}
	var users map[string]string
	if n.web != nil {
		users = n.web.file.Get().users
	}
	if len(users) == 0 {
		return User{}, &Error{How: HowBasic, Reason: "no passwords are accepted here (basic_auth_users)"}
	}
	ok, err := n.passwords.check(r.Context(), users, name, password, sourceOf(r.RemoteAddr))
	if err != nil {
		return User{}, err
	}
	if !ok {
		return User{}, &Error{How: HowBasic, Reason: "the name or the password is wrong"}
	}
	return User{Name: name, Groups: []string{AuthenticatedGroup}, How: HowBasic}, nil
}

// Challenges are the values of WWW-Authenticate for an answer 401.
func (n *Authenticator) Challenges() []string {
	challenges := []string{`Bearer realm="memguard"`}
	if n.web != nil && len(n.web.file.Get().users) > 0 {
		challenges = append(challenges, `Basic realm="memguard"`)
	}
	return challenges
}

// ReloadError says which file turned bad since the start while its old content stays in
// force, and why keys could not be fetched; nil if all is well.
func (n *Authenticator) ReloadError() error {
	errs := []error{n.web.ReloadError()}
	if n.tokens != nil {
		errs = append(errs, n.tokens.Err())
	}
	if n.accounts != nil {
		errs = append(errs, n.accounts.keys.Err())
	}
	return errors.Join(errs...)
}
