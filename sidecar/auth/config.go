// SPDX-License-Identifier: Apache-2.0

package auth

// Config is who is known and who may do what. The zero Config knows nobody and lets
// everybody read.
type Config struct {
	// TokenFile has lines "sha256:HEX NAME [GROUP,GROUP...]".
	TokenFile string `yaml:"token_file,omitempty" json:"token_file,omitempty" doc:"lines sha256:HEX NAME [GROUP,GROUP], HEX being the SHA-256 of a token"`
	// ServiceAccounts accepts Kubernetes service-account tokens.
	ServiceAccounts *ServiceAccounts `yaml:"service_accounts,omitempty" json:"service_accounts,omitempty" doc:"accepts service-account tokens of Kubernetes"`
	// Peers names the users of unix sockets by their user id.
	Peers []Peer `yaml:"peers,omitempty" json:"peers,omitempty" doc:"who is who at web.socket"`

	// OpenReads is what needs neither credential nor rule: "all" (every get, list and
	// watch), "metrics" (GET /metrics) or "none". Empty is "all" where nothing else of
	// this Config is set, else "none".
	OpenReads string `yaml:"open_reads,omitempty" json:"open_reads,omitempty" doc:"what needs no credential: all, metrics or none; all on loopback where nothing else of auth is set, metrics on another address, none with web.config_file"`
	// Rules allow. What none of them allows is denied.
	Rules []Rule `yaml:"rules,omitempty" json:"rules,omitempty" doc:"what is allowed; what no rule allows is denied"`
}

// ServiceAccounts says which service-account tokens are accepted, and where the keys
// are that they are checked against. No request goes to the API server for a token.
type ServiceAccounts struct {
	Issuer   string `yaml:"issuer" json:"issuer" doc:"claim iss, letter by letter"`
	Audience string `yaml:"audience,omitempty" json:"audience,omitempty" doc:"one of claim aud; memguard"`

	// Exactly one of the two: a JWKS (RFC 7517) from a file, or from a URL, which is
	// https, or http of this machine.
	JWKSFile string `yaml:"jwks_file,omitempty" json:"jwks_file,omitempty" doc:"the issuer's keys (RFC 7517); this or jwks_url"`
	JWKSURL  string `yaml:"jwks_url,omitempty" json:"jwks_url,omitempty" doc:"where to fetch them: https, or http of this machine"`
	// For the URL: the CA that signed its certificate (default: the system's), and a
	// file with the sidecar's own token. A caller's token is never sent anywhere.
	CAFile          string `yaml:"ca_file,omitempty" json:"ca_file,omitempty" doc:"certificates that the URL is checked with; the system's"`
	BearerTokenFile string `yaml:"bearer_token_file,omitempty" json:"bearer_token_file,omitempty" doc:"token to fetch them with"`
}

// Peer is a user id at the other end of a unix socket, and who that is.
type Peer struct {
	UID    int      `yaml:"uid" json:"uid" doc:"of the process at the other end"`
	Name   string   `yaml:"name" json:"name" doc:"of the user that it is"`
	Groups []string `yaml:"groups,omitempty" json:"groups,omitempty" doc:"of that user"`
}

// Rule allows some users some verbs on some resources or paths. Every list that says
// what is allowed must be there; "*" alone is everything, and nothing else is a wildcard
// but "RESOURCE/*", every subresource of one resource.
type Rule struct {
	Name string `yaml:"name,omitempty" json:"name,omitempty" doc:"shown in the audit log"` // shown in the audit log as the permission

	// Who: any of the users, or of the groups. "*" in users is everybody who proved
	// who they are; the anonymous are named "system:anonymous".
	Users  []string `yaml:"users,omitempty" json:"users,omitempty" doc:"names; * alone is everybody who proved who they are"`
	Groups []string `yaml:"groups,omitempty" json:"groups,omitempty" doc:"any of these, or any of the users"`

	// Verbs are get, list, watch, create, update, delete; with paths the method of
	// HTTP in lower case.
	Verbs []string `yaml:"verbs" json:"verbs" doc:"get, list, watch, create, update, delete; with paths the method of HTTP in lower case; * alone is all"`

	// What: resources ("runtimes", "runtimes/gcpercent", "runtimes/*") in namespaces and
	// of these names (a target's), or paths ("/metrics", "/debug/*") outside the API.
	Resources  []string `yaml:"resources,omitempty" json:"resources,omitempty" doc:"such as runtimes, runtimes/gcpercent, runtimes/*, incidents, events; * alone is all"`
	Namespaces []string `yaml:"namespaces,omitempty" json:"namespaces,omitempty" doc:"* alone is all"`
	Names      []string `yaml:"names,omitempty" json:"names,omitempty" doc:"of targets; * alone is all"`
	Paths      []string `yaml:"paths,omitempty" json:"paths,omitempty" doc:"outside the API, such as /metrics or /-/reload"`
}
