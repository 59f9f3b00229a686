// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/agent"
	"github.com/memguard/memguard-go/memguard/evidence"
	"github.com/memguard/memguard-go/memguard/shed"
	"github.com/memguard/memguard-go/sidecar/audit"
	"github.com/memguard/memguard-go/sidecar/auth"
	"github.com/memguard/memguard-go/sidecar/incident"
	"github.com/memguard/memguard-go/sidecar/target"
	"github.com/memguard/memguard-go/sidecar/watch"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The test binary is also the service, and a sidecar that can be killed.
func TestMain(m *testing.M) {
	switch role, arg, _ := strings.Cut(os.Getenv("MEMGUARD_TEST_ROLE"), " "); role {
	case "":
		os.Exit(m.Run())
	case "service":
		cfg := memguard.Config{}
		switch arg {
		case "whole":
			cfg.MemoryBreaker, cfg.Shed = shed.NewBreaker(shed.BreakerConfig{}), shed.New(shed.Config{})
			cfg.Evidence = &evidence.Store{Dir: os.Getenv("TMPDIR") + "/evidence"}
		case "dry":
			cfg.DryRun = true
		}
		if arg != "none" {
			runtime.GC() // before, nobody knows how much must stay
			_, err := agent.Serve(memguard.Start(cfg), agent.Config{})
			check(err)
		}
		fmt.Println("ready")
		_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends
	case "sidecar":
		dir, pid, _ := strings.Cut(arg, " ")
		n, err := strconv.Atoi(pid)
		check(err)
		s, err := build(dir, slog.New(slog.NewTextHandler(os.Stderr, nil)), n)
		check(err)
		go func() { check(s.watcher.Run(context.Background())) }()
		check(err)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		check(err)
		go func() { check(http.Serve(l, s)) }()
		fmt.Println("http://" + l.Addr().String())
		check(s.Run(context.Background()))
	}
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// shortDir is a directory whose name leaves room for that of a socket.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "mg")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// child starts this binary in a role, and returns the first line that it prints.
func child(t testing.TB, role string, env ...string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), "MEMGUARD_TEST_ROLE="+role), env...)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = t.Output()
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	first, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err, first)
	return cmd, strings.TrimSpace(first)
}

// service starts one whose guard has all its parts ("whole"), none of those that
// are the service's to give ("bare"), that runs dry, or that has no guard ("none").
func service(t testing.TB, kind string) *exec.Cmd {
	t.Helper()
	cmd, first := child(t, "service "+kind, "XDG_RUNTIME_DIR=", "TMPDIR="+shortDir(t))
	require.Equal(t, "ready", first)
	return cmd
}

const (
	alice = "token-of-alice" // may do everything
	bob   = "token-of-bob"   // may read
	carol = "token-of-carol" // may set the GC percent of target app
)

// build makes a server for the targets app, app1 and so on, which are watched when
// its watcher runs.
func build(dir string, log *slog.Logger, pids ...int) (s *Server, err error) {
	var tokens strings.Builder
	for _, token := range []string{alice, bob, carol} {
		sum := sha256.Sum256([]byte(token))
		fmt.Fprintf(&tokens, "sha256:%s %s\n", hex.EncodeToString(sum[:]), strings.TrimPrefix(token, "token-of-"))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(dir+"/tokens", []byte(tokens.String()), 0o600); err != nil {
		return nil, err
	}
	all := []string{"*"}
	cfg := auth.Config{
		TokenFile: dir + "/tokens", OpenReads: "none",
		Rules: []auth.Rule{
			{Users: []string{"alice"}, Verbs: all, Resources: all, Namespaces: all, Names: all},
			{Users: []string{"bob"}, Verbs: []string{"get", "list", "watch"}, Resources: all, Namespaces: all, Names: all},
			{Users: []string{"carol"}, Verbs: []string{"update"}, Resources: []string{"runtimes/gcpercent"}, Namespaces: all, Names: []string{"app"}},
			{Users: all, Verbs: []string{"get"}, Paths: []string{"/openapi/v3"}},
			{Users: []string{"alice"}, Verbs: []string{"post"}, Paths: []string{"/-/reload"}},
		},
	}
	c := Config{Writes: true, StateDir: dir + "/state", Logger: log, Limits: Limits{WritesPerMinute: 6e6, WriteBurst: 1e6}}
	if c.Auth, err = auth.NewAuthenticator(cfg, nil); err != nil {
		return nil, err
	}
	if c.Authz, err = auth.NewAuthorizer(cfg); err != nil {
		return nil, err
	}
	if c.Policy, err = audit.OpenPolicy(""); err != nil {
		return nil, err
	}
	if c.Audit, err = audit.OpenLog(audit.LogConfig{Path: dir + "/audit.log"}); err != nil {
		return nil, err
	}
	if c.Incidents, err = incident.OpenStore(dir+"/incidents", incident.Limits{}); err != nil {
		return nil, err
	}
	w := watch.Config{Interval: 100 * time.Millisecond, Hold: -1, Logger: log}
	for i, pid := range pids {
		w.Rules = append(w.Rules, target.Rule{Name: strings.TrimSuffix(fmt.Sprint("app", i), "0"), PID: pid})
	}
	if c.Watcher, err = watch.New(w); err != nil {
		return nil, err
	}
	if s, err = New(c); err != nil {
		return nil, err
	}
	return s, nil
}

// rig is a server in this process.
type rig struct {
	*Server
	t   testing.TB
	dir string
	url string
}

// beside is a server beside some processes, when it has looked at them.
func beside(t testing.TB, pids ...int) *rig {
	t.Helper()
	return besideIn(t, shortDir(t), pids...)
}

// besideIn is beside with the state of an earlier one.
func besideIn(t testing.TB, dir string, pids ...int) *rig {
	t.Helper()
	s, err := build(dir, slog.New(slog.NewTextHandler(t.Output(), nil)), pids...)
	require.NoError(t, err)
	h := httptest.NewServer(s)
	ctx, cancel := context.WithCancel(context.Background())
	ended, watched := make(chan error), make(chan error)
	go func() { ended <- s.Run(ctx) }()
	w := s.watcher
	go func() { watched <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-ended)
		assert.NoError(t, <-watched)
		h.CloseClientConnections()
		h.Close()
		assert.NoError(t, s.audit.Close())
	})
	for i := range pids {
		require.Eventually(t, func() bool {
			st := s.watcher.Targets()
			return i < len(st) && st[i].Guard != nil
		}, time.Minute, 5*time.Millisecond)
	}
	return &rig{s, t, dir, h.URL}
}

// handed waits until a target's agent has been found.
func (r *rig) handed(name string) *agent.Client {
	r.t.Helper()
	var c *agent.Client
	require.Eventually(r.t, func() bool {
		var err error
		c, _, err = r.watcher.Agent(name)
		return err == nil
	}, time.Minute, 5*time.Millisecond)
	return c
}

const at = "/apis/memguard.dev/v1alpha1/namespaces/default"

// answered is an answer.
type answered struct {
	code   int
	header http.Header
	body   []byte
	json   map[string]any
}

func (a *answered) message() string { s, _ := a.json["message"].(string); return s }

// ask sends a request; header are names and values.
func (r *rig) ask(token, method, path, body string, header ...string) *answered {
	r.t.Helper()
	a, err := send(r.url, token, method, path, body, header...)
	require.NoError(r.t, err)
	return a
}

func send(url, token, method, path, body string, header ...string) (*answered, error) {
	req, err := http.NewRequest(method, url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	a := &answered{code: resp.StatusCode, header: resp.Header}
	if a.body, err = io.ReadAll(resp.Body); err != nil {
		return nil, err
	}
	_ = json.Unmarshal(a.body, &a.json)
	return a, nil
}

// refused checks that an answer is a metav1.Status that says what to do.
func (r *rig) refused(a *answered, code int, reason, says string) {
	r.t.Helper()
	require.Equal(r.t, code, a.code, "%s", a.body)
	assert.Equal(r.t, "application/json", a.header.Get("Content-Type"))
	assert.Equal(r.t, "Status", a.json["kind"])
	assert.Equal(r.t, "v1", a.json["apiVersion"])
	assert.Equal(r.t, "Failure", a.json["status"])
	assert.EqualValues(r.t, code, a.json["code"])
	assert.Equal(r.t, reason, a.json["reason"])
	assert.Contains(r.t, a.message(), says)
}

// audited are the events in the audit log of one id, or all.
func audited(t testing.TB, dir, id string) (es []audit.Event) {
	t.Helper()
	files, err := filepath.Glob(dir + "/audit*")
	require.NoError(t, err)
	for _, f := range files {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		for l := range strings.Lines(string(b)) {
			var e audit.Event
			if json.Unmarshal([]byte(l), &e) == nil && e.AuditID != "" && (id == "" || e.AuditID == id) {
				es = append(es, e)
			}
		}
	}
	return es
}

// stages are those of an answer's audit events, in order.
func (r *rig) stages(a *answered) (out []audit.Stage) {
	r.t.Helper()
	for _, e := range audited(r.t, r.dir, a.header.Get("Audit-Id")) {
		out = append(out, e.Stage)
	}
	return out
}
