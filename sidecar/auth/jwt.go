// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"cmp"
	"context"
	"errors"
	"regexp"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	defaultAudience = "memguard"
	leeway          = 10 * time.Second // by which clocks of two machines may differ
)

// serviceAccounts checks Kubernetes service-account tokens as the API server does
// (k8s.io/kubernetes, pkg/serviceaccount), but for what only it can know: whether the
// pod and the account are still there. So a token lives as long as it says.
type serviceAccounts struct {
	issuer, audience string
	keys             *source
}

// claims of a bound service-account token.
type claims struct {
	jwt.Claims
	Kubernetes struct {
		Namespace      string `json:"namespace"`
		ServiceAccount object `json:"serviceaccount"`
		Pod            object `json:"pod"`
		Node           object `json:"node"`
	} `json:"kubernetes.io"`
}

type object struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

func newServiceAccounts(c ServiceAccounts) (*serviceAccounts, error) {
	if c.Issuer == "" {
		return nil, errors.New("auth: service_accounts: issuer is missing: write the claim iss of a token")
	}
	keys, err := newSource(c)
	if err != nil {
		return nil, err
	}
	return &serviceAccounts{c.Issuer, cmp.Or(c.Audience, defaultAudience), keys}, nil
}

// verify says whose token it is. Nothing of a token is believed, and nothing of it said to
// its sender, before its signature is.
func (a *serviceAccounts) verify(ctx context.Context, presented string) (User, error) {
	refuse := func(reason string, err error) (User, error) {
		return User{}, &Error{How: HowJWKS, Reason: reason, Err: err}
	}
	// Only these two: no "none", and no HMAC whose secret would be the public key.
	t, err := jwt.ParseSigned(presented, []jose.SignatureAlgorithm{jose.RS256, jose.ES256})
	if err != nil {
		return refuse("not a token signed with RS256 or ES256", nil)
	}
	id := t.Headers[0].KeyID
	if id == "" {
		return refuse("the token does not name its key (kid)", nil)
	}
	keys, err := a.keys.find(ctx, id)
	if err != nil {
		return User{}, &Error{How: HowJWKS, Reason: "the issuer's keys cannot be had", RetryAfter: fetchEvery, Err: err}
	}
	var c claims
	verified := false
	for _, key := range keys {
		c = claims{}
		if verified = t.Claims(key, &c) == nil; verified {
			break
		}
	}
	if !verified {
		return refuse("no key of the issuer's verifies the token", nil)
	}
	switch {
	case c.Expiry == nil:
		return refuse("the token never expires (exp): ask for one that is bound to an audience", nil)
	case len(c.Audience) == 0:
		return refuse("the token is for no audience (aud): ask for one for "+a.audience, nil)
	}
	if err := c.ValidateWithLeeway(jwt.Expected{Issuer: a.issuer, AnyAudience: jwt.Audience{a.audience}}, leeway); err != nil {
		return refuse("the token is not for here or not for now", err)
	}
	return c.user()
}

// label is a name of a namespace (RFC 1123 label), subdomain one of most other objects. They
// hold no ":", so that a user's name has one reading.
var (
	label     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	subdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)
)

// user is what the API server makes of the claims
// (k8s.io/apiserver/pkg/authentication/serviceaccount, ServiceAccountInfo.UserInfo).
func (c *claims) user() (User, error) {
	k := &c.Kubernetes
	if !label.MatchString(k.Namespace) || !subdomain.MatchString(k.ServiceAccount.Name) {
		return User{}, &Error{How: HowJWKS, Reason: "the token is not of a service account (claim kubernetes.io)"}
	}
	u := User{
		Name:   serviceAccountPrefix + k.Namespace + ":" + k.ServiceAccount.Name,
		UID:    k.ServiceAccount.UID,
		Groups: []string{serviceAccountsGroup, serviceAccountsGroup + ":" + k.Namespace, AuthenticatedGroup},
		Extra:  map[string][]string{},
		How:    HowJWKS,
	}
	if c.Subject != u.Name {
		return User{}, &Error{How: HowJWKS, Reason: "the token's subject (sub) is not its service account"}
	}
	if k.Pod.Name != "" && k.Pod.UID != "" {
		u.Extra[ExtraPodName] = []string{k.Pod.Name}
		u.Extra[ExtraPodUID] = []string{k.Pod.UID}
	}
	if k.Node.Name != "" {
		u.Extra[ExtraNodeName] = []string{k.Node.Name}
		if k.Node.UID != "" {
			u.Extra[ExtraNodeUID] = []string{k.Node.UID}
		}
	}
	if c.ID != "" {
		u.Extra[ExtraCredentialID] = []string{"JTI=" + c.ID}
	}
	return u, nil
}
