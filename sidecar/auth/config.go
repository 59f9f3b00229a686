// SPDX-License-Identifier: Apache-2.0

package auth

// Config is who is known and who may do what. The zero Config knows nobody and lets
// everybody read.
type Config struct {
	// TokenFile has lines "sha256:HEX NAME [GROUP,GROUP...]".
	TokenFile string `yaml:"token_file,omitempty" json:"token_file,omitempty"`
	// ServiceAccounts accepts Kubernetes service-account tokens.
	ServiceAccounts *ServiceAccounts `yaml:"service_accounts,omitempty" json:"service_accounts,omitempty"`
	// Peers names the users of unix sockets by their user id.
	Peers []Peer `yaml:"peers,omitempty" json:"peers,omitempty"`

	// OpenReads is what needs neither credential nor rule: "all" (every get, list and
	// watch), "metrics" (GET /metrics) or "none". Empty is "all" where nothing else of
	// this Config is set, else "none".
	OpenReads string `yaml:"open_reads,omitempty" json:"open_reads,omitempty"`
	// Rules allow. What none of them allows is denied.
	Rules []Rule `yaml:"rules,omitempty" json:"rules,omitempty"`
}

// ServiceAccounts says which service-account tokens are accepted, and where the keys
// are that they are checked against. No request goes to the API server for a token.
type ServiceAccounts struct {
	Issuer   string `yaml:"issuer" json:"issuer"`                         // claim iss, letter by letter
	Audience string `yaml:"audience,omitempty" json:"audience,omitempty"` // one of claim aud; default "memguard"

	// Exactly one of the two: a JWKS (RFC 7517) from a file, or from a URL, which is
	// https, or http of this machine.
	JWKSFile string `yaml:"jwks_file,omitempty" json:"jwks_file,omitempty"`
	JWKSURL  string `yaml:"jwks_url,omitempty" json:"jwks_url,omitempty"`
	// For the URL: the CA that signed its certificate (default: the system's), and a
	// file with the sidecar's own token. A caller's token is never sent anywhere.
	CAFile          string `yaml:"ca_file,omitempty" json:"ca_file,omitempty"`
	BearerTokenFile string `yaml:"bearer_token_file,omitempty" json:"bearer_token_file,omitempty"`
}

// Peer is a user id at the other end of a unix socket, and who that is.
type Peer struct {
	UID    int      `yaml:"uid" json:"uid"`
	Name   string   `yaml:"name" json:"name"`
	Groups []string `yaml:"groups,omitempty" json:"groups,omitempty"`
}

// Rule allows some users some verbs on some resources or paths. Every list that says
// what is allowed must be there; "*" alone is everything, and nothing else is a wildcard
// but "RESOURCE/*", every subresource of one resource.
type Rule struct {
	Name string `yaml:"name,omitempty" json:"name,omitempty"` // shown in the audit log as the permission

	// Who: any of the users, or of the groups. "*" in users is everybody who proved
	// who they are; the anonymous are named "system:anonymous".
	Users  []string `yaml:"users,omitempty" json:"users,omitempty"`
	Groups []string `yaml:"groups,omitempty" json:"groups,omitempty"`

	// Verbs are get, list, watch, create, update, delete; with paths the method of
	// HTTP in lower case.
	Verbs []string `yaml:"verbs" json:"verbs"`

	// What: resources ("runtimes", "runtimes/gcpercent", "runtimes/*") in namespaces and
	// of these names (a target's), or paths ("/metrics", "/debug/*") outside the API.
	Resources  []string `yaml:"resources,omitempty" json:"resources,omitempty"`
	Namespaces []string `yaml:"namespaces,omitempty" json:"namespaces,omitempty"`
	Names      []string `yaml:"names,omitempty" json:"names,omitempty"`
	Paths      []string `yaml:"paths,omitempty" json:"paths,omitempty"`
}
