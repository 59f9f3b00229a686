// SPDX-License-Identifier: Apache-2.0

// Package config reads the sidecar's configuration: one YAML file, which flags
// and the environment may go without in the common cases.
package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/memguard/memguard-go/sidecar/auth"
	"github.com/memguard/memguard-go/sidecar/target"
	"go.yaml.in/yaml/v3"
)

// Config is what the file says. Paths in it are relative to the file. The doc
// tags are the descriptions in the JSON schema.
type Config struct {
	Namespace string        `yaml:"namespace" doc:"namespace in the paths of the API and in the audit log; $POD_NAMESPACE, else default"`
	StateDir  string        `yaml:"state_dir" doc:"directory, of mode 0700, for incidents, the journal of overrides and the audit log; $STATE_DIRECTORY, else $XDG_STATE_HOME/memguard or ~/.local/state/memguard"`
	Interval  time.Duration `yaml:"interval" doc:"time between two looks at a target at rest; 1s"`
	ExitHold  time.Duration `yaml:"exit_hold" doc:"how long the end of a Go process may be held up so that its state can be read; 700ms; 0s or less: not at all"`
	OOMHold   bool          `yaml:"oom_hold" doc:"whether the kernel's kill for the limit of a Go process's own cgroup is held up as well, for exit_hold (700ms where that is off), by setting memory.oom_control near the limit: in cgroup version 1, with the right to write it; docs/sidecar.md says what that may do to the service; false"`
	Targets   []target.Rule `yaml:"targets" doc:"what to watch"`
	ExecState string        `yaml:"exec_state" doc:"state directory of memguard exec, whose services' standard error and exit status are read there; none"`
	PodInfo   string        `yaml:"pod_info" doc:"directory of a downward-API volume with the files namespace, name, uid, container and node; else the variables POD_NAMESPACE, POD_NAME and so on"`
	Web       Web           `yaml:"web" doc:"where to listen"`
	Auth      auth.Config   `yaml:"auth" doc:"who is known, and who may do what"`
	Writes    Writes        `yaml:"writes" doc:"orders to services"`
	Audit     Audit         `yaml:"audit" doc:"the record of writes and of refused calls"`
	Incidents Incidents     `yaml:"incidents" doc:"the store of incident reports"`
	Webhooks  []Webhook     `yaml:"webhooks" doc:"where incidents are posted to"`
}

// Web says where the sidecar listens.
type Web struct {
	Listen     string `yaml:"listen" doc:"TCP address; 127.0.0.1:9779; none: no TCP"`
	ConfigFile string `yaml:"config_file" doc:"TLS and basic authentication, in the format of Prometheus' exporter-toolkit"`
	Socket     string `yaml:"socket" doc:"path of a unix socket, of mode 0600 in a directory of mode 0700, or with auth.peers open to all, who are known by their uid; without: no socket"`
}

// Writes says whether services may be given orders through the API.
type Writes struct {
	Enabled   bool    `yaml:"enabled" doc:"whether there are any; false"`
	PerMinute float64 `yaml:"per_minute" doc:"writes of one caller in a minute, above 0; 10" above:"0"`
	Burst     int     `yaml:"burst" doc:"writes of one caller at once; 10" min:"1"`
}

// Audit says how the audit log is kept.
type Audit struct {
	Log        string `yaml:"log" doc:"file; audit.log in state_dir"`
	PolicyFile string `yaml:"policy_file" doc:"audit.k8s.io/v1 Policy; none: writes with their bodies and answers, and no reads"`
	MaxSize    Size   `yaml:"max_size" doc:"of a file before it is rotated, 64KiB or more; 16MiB" min:"65536"`
	MaxAgeDays int    `yaml:"max_age_days" doc:"of rotated files; 30; 0: no limit" min:"0"`
	MaxFiles   int    `yaml:"max_files" doc:"rotated files that are kept; 10" min:"1"`
}

// Incidents says how many incident reports are kept.
type Incidents struct {
	MaxCount int  `yaml:"max_count" doc:"reports that are kept; 100" min:"1"`
	MaxSize  Size `yaml:"max_size" doc:"of all of them, 1MiB or more; 256MiB" min:"1048576"`
}

// Webhook is an address that incidents are posted to.
type Webhook struct {
	URL       string `yaml:"url" doc:"http or https address"`
	TokenFile string `yaml:"token_file" doc:"bearer token to post with"`
	CAFile    string `yaml:"ca_file" doc:"certificates that the server is checked with"`
	Link      string `yaml:"link" doc:"address that an incident's id is put behind to make a link to it; none: no link"`
}

// None switches off what has a default: web.listen.
const None = "none"

// DefaultListen is where the sidecar listens if nothing else is said.
const DefaultListen = "127.0.0.1:9779"

// Default is what is so without a file: every number has its default here, so that one
// that is written as 0 is 0.
func Default() *Config {
	return &Config{
		Interval: time.Second, ExitHold: 700 * time.Millisecond,
		Writes:    Writes{PerMinute: 10, Burst: 10},
		Audit:     Audit{MaxSize: 16 << 20, MaxAgeDays: 30, MaxFiles: 10},
		Incidents: Incidents{MaxCount: 100, MaxSize: 256 << 20},
	}
}

// ReadFile reads a file. The error names it, and the line where one is wrong.
func ReadFile(path string) (*Config, error) {
	b, err := read(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	c, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("config: %s: %w", path, err)
	}
	dir := filepath.Dir(path)
	for _, p := range c.paths() {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	return c, nil
}

// maxBytes is how long a file may be.
const maxBytes = 1 << 20

// read reads a regular file: a pipe would be waited for, by every later reload and
// by the end of the sidecar too. Of one that is too long it reads enough to tell.
func read(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxBytes+1))
}

// inType is the Go type at the end of what yaml says of a line.
var inType = regexp.MustCompile(`(?m) (?:in type|into) ([^ ]+)$`)

// plainly says what is wrong in words of the file: our types are nothing to who wrote
// it, but what kind of value is wanted is.
func plainly(err error) error {
	return errors.New(inType.ReplaceAllStringFunc(strings.TrimPrefix(err.Error(), "yaml: "), func(s string) string {
		kind := inType.FindStringSubmatch(s)[1]
		switch {
		case strings.HasPrefix(s, " in type"):
			return ""
		case kind == "time.Duration":
			return ": want a time such as 10s"
		case strings.HasPrefix(kind, "[]"):
			return ": want a list"
		case kind == "bool":
			return ": want true or false"
		case kind == "string":
			return ": want a text"
		case kind == "int", kind == "float64":
			return ": want a number"
		}
		return ": want fields with values"
	}))
}

// Parse reads the text of a file, over [Default]. Nothing else in it is completed or
// checked yet: see Complete.
func Parse(text []byte) (*Config, error) {
	if len(text) > maxBytes {
		return nil, fmt.Errorf("longer than %d bytes", maxBytes)
	}
	c := Default()
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && !errors.Is(err, io.EOF) { // EOF: an empty file
		return nil, plainly(err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one document: take out the line ---")
	}
	if err := given(text); err != nil {
		return nil, err
	}
	return c, nil
}

// given refuses numbers of list entries, which have no defaults, that do not say what
// they seem to: a condition of 0 would be none, and who is at a socket without a uid root.
func given(text []byte) error {
	var is struct {
		Targets []struct{ PID, Port *int }
		Auth    struct{ Peers []struct{ UID *int } }
	}
	if err := yaml.Unmarshal(text, &is); err != nil {
		return plainly(err)
	}
	var errs []error
	for i, t := range is.Targets {
		if t.PID != nil && *t.PID == 0 {
			errs = append(errs, fmt.Errorf("targets[%d].pid: 0 is no process: leave it out for any", i))
		}
		if t.Port != nil && *t.Port == 0 {
			errs = append(errs, fmt.Errorf("targets[%d].port: 0 is no port: leave it out for any", i))
		}
	}
	for i, p := range is.Auth.Peers {
		if p.UID == nil {
			errs = append(errs, fmt.Errorf("auth.peers[%d].uid: is missing", i))
		}
	}
	return errors.Join(errs...)
}

// paths are the files and directories that the configuration names.
func (c *Config) paths() []*string {
	ps := []*string{&c.StateDir, &c.ExecState, &c.PodInfo, &c.Web.ConfigFile, &c.Web.Socket, &c.Auth.TokenFile, &c.Audit.Log, &c.Audit.PolicyFile}
	if a := c.Auth.ServiceAccounts; a != nil {
		ps = append(ps, &a.JWKSFile, &a.CAFile, &a.BearerTokenFile)
	}
	for i := range c.Targets {
		if !strings.HasPrefix(c.Targets[i].Stderr, "unix:") { // in package stderr's words
			ps = append(ps, &c.Targets[i].Stderr)
		}
	}
	for i := range c.Webhooks {
		ps = append(ps, &c.Webhooks[i].TokenFile, &c.Webhooks[i].CAFile)
	}
	return ps
}

// Complete fills in what depends on the environment and checks everything that can be checked
// without touching anything. All that is wrong is in the error, each with its
// place in the file.
func (c *Config) Complete(getenv func(string) string) error {
	c.Namespace = cmp.Or(c.Namespace, getenv("POD_NAMESPACE"), "default")
	c.Web.Listen = cmp.Or(c.Web.Listen, DefaultListen)
	c.StateDir = cmp.Or(c.StateDir, StateDir(getenv))
	if c.StateDir != "" {
		c.Audit.Log = cmp.Or(c.Audit.Log, filepath.Join(c.StateDir, "audit.log"))
	}
	if c.Auth.OpenReads == "" {
		switch { // else by package auth: everything, unless somebody is known
		case c.Web.ConfigFile != "":
			c.Auth.OpenReads = "none" // who sets passwords or certificates means them for all
		case !c.Loopback():
			c.Auth.OpenReads = "metrics" // the network is not to read profiles
		}
	}
	return c.check()
}

// IncidentsDir is where in the state directory the incidents are.
const IncidentsDir = "incidents"

// StateDir is where state is kept if nobody says; "" if there is no such place.
func StateDir(getenv func(string) string) string {
	if dir, _, _ := strings.Cut(getenv("STATE_DIRECTORY"), ":"); dir != "" { // systemd.exec(5)
		return dir
	}
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "memguard")
	}
	if dir := getenv("HOME"); filepath.IsAbs(dir) && dir != "/" {
		return filepath.Join(dir, ".local", "state", "memguard")
	}
	return ""
}
