// SPDX-License-Identifier: Apache-2.0

// Package auth says who a request is from, and what they may do.
//
// An [Authenticator] turns a request into a [User]: by client certificate, bearer
// token (hashes in a file), Kubernetes service-account token (checked here, against
// the issuer's keys), user name and password, or the user id at the other end of a
// unix socket. A credential that is wrong is an [Error]; no credential is the
// anonymous user. An [Authorizer] holds static rules against what is asked. What no
// rule allows is denied; writes always need a rule.
//
// Files (token hashes, the web configuration, certificates, keys) are looked at again
// when they are used, at most once a second, and take effect when they changed. One
// that turned bad leaves the old one in force, and ReloadError says so.
package auth

import (
	"fmt"
	"time"
)

// APIGroup is the API group that rules speak of.
const APIGroup = "memguard.dev"

// Names as Kubernetes gives them.
const (
	AnonymousUser        = "system:anonymous"
	AnonymousGroup       = "system:unauthenticated"
	AuthenticatedGroup   = "system:authenticated" // everybody who proved who they are, by whichever method
	ExtraPodName         = "authentication.kubernetes.io/pod-name"
	ExtraPodUID          = "authentication.kubernetes.io/pod-uid"
	ExtraNodeName        = "authentication.kubernetes.io/node-name"
	ExtraNodeUID         = "authentication.kubernetes.io/node-uid"
	ExtraCredentialID    = "authentication.kubernetes.io/credential-id"
	serviceAccountPrefix = "system:serviceaccount:"
	serviceAccountsGroup = "system:serviceaccounts"
)

// How a user was authenticated.
type How string

// The methods. A request that carries an Authorization header is judged by that
// alone; else by its client certificate, else by the peer of the unix socket.
const (
	HowToken     How = "token"     // bearer token whose SHA-256 is in the token file
	HowJWKS      How = "jwks"      // Kubernetes service-account token
	HowBasic     How = "basic"     // basic_auth_users of the web configuration file
	HowMTLS      How = "mtls"      // client certificate that a configured CA signed
	HowPeer      How = "peer"      // user id at the other end of a unix socket
	HowAnonymous How = "anonymous" // nothing was presented
)

// User is who a request is from. Names are what others wrote into certificates,
// tokens and files: escape them wherever they are shown.
type User struct {
	Name   string
	UID    string // of the service account; empty for others
	Groups []string
	Extra  map[string][]string // as in Kubernetes' user info: pod, node, credential id
	How    How
}

// Anonymous is who presents nothing.
func Anonymous() User {
	return User{Name: AnonymousUser, Groups: []string{AnonymousGroup}, How: HowAnonymous}
}

// Error says why a credential was refused. Its text never holds the credential. The
// answer to it is 401; where RetryAfter is set the credential was not judged at all,
// and the answer is 429.
type Error struct {
	How        How
	Reason     string        // what is wrong and what to do
	RetryAfter time.Duration // ask again after this; 0: asking again will not help
	Err        error         // the cause; nil if Reason says it all
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("auth: %s: %s: %v", e.How, e.Reason, e.Err)
	}
	return fmt.Sprintf("auth: %s: %s", e.How, e.Reason)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
