// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/memguard/memguard-go/sidecar/config"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// memguardBinary is built once, as the Dockerfile builds it.
func memguardBinary(t *testing.T) string {
	t.Helper()
	built.Do(func() {
		m := regexp.MustCompile(`(?m)^RUN (CGO_ENABLED=0 go build .*) -o /memguard (\S+)$`).FindStringSubmatch(read(t, "Dockerfile"))
		require.NotNil(t, m)
		c := exec.Command("sh", "-c", m[1]+" -o "+filepath.Join(built.dir, "memguard")+" "+m[2])
		c.Dir = "../.."
		out, err := c.CombinedOutput()
		require.NoError(t, err, "%s", out)
	})
	return filepath.Join(built.dir, "memguard")
}

var built struct {
	sync.Once
	dir string
}

func TestMain(m *testing.M) {
	var err error
	if built.dir, err = os.MkdirTemp("", "deploy"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(built.dir)
	os.Exit(code)
}

func TestSystemdUnit(t *testing.T) {
	t.Parallel()
	analyze := tool(t, "systemd-analyze")
	unit := read(t, "systemd/memguard@.service")
	run(t, "", analyze, "security", "--offline=true", "--threshold=15", "systemd/memguard@.service") // of 100: 1.5

	// It names a program that is not installed here.
	const bin = "/usr/local/bin/memguard"
	require.Equal(t, 2, strings.Count(unit, "="+bin+" sidecar "))
	path := filepath.Join(t.TempDir(), "memguard@.service")
	require.NoError(t, os.WriteFile(path, []byte(strings.ReplaceAll(unit, bin, "/bin/true")), 0o600))
	out := run(t, "", analyze, "verify", "--man=no", path)
	assert.NotContains(t, out, "memguard@", "systemd would ignore something")
}

// instructions are a Dockerfile's, of the last stage.
func instructions(t *testing.T) map[string][]string {
	last := map[string][]string{}
	for line := range strings.Lines(read(t, "Dockerfile")) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word == "FROM" {
			clear(last)
		}
		if word != "" && word != "#" {
			last[word] = append(last[word], rest)
		}
	}
	return last
}

// The image needs nothing but its binary, its user may write nowhere, and the
// configuration of the example pod is right.
func TestImage(t *testing.T) {
	t.Parallel()
	last := instructions(t)
	assert.Equal(t, []string{"scratch"}, last["FROM"])
	assert.Equal(t, []string{"65532:65532"}, last["USER"])
	assert.Empty(t, last["RUN"], "there is no shell")
	_, port, err := net.SplitHostPort(config.DefaultListen)
	require.NoError(t, err)
	assert.Equal(t, []string{port}, last["EXPOSE"])
	assert.Equal(t, []string{`["/memguard", "sidecar"]`}, last["ENTRYPOINT"])
	assert.Equal(t, []string{`["--config", "/etc/memguard/sidecar.yaml"]`}, last["CMD"])

	if os.Getuid() != 0 {
		t.Skip("not root: chroot(2) needs it")
	}
	root, err := os.MkdirTemp("", "image")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(root) })
	require.NoError(t, os.Chmod(root, 0o755))
	bin, err := os.ReadFile(memguardBinary(t))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(root, "memguard"), bin, 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(root, "etc/memguard"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "etc/memguard/sidecar.yaml"), []byte(podConfig(t)), 0o644))
	c := exec.Command("/memguard", "sidecar", "--config", "/etc/memguard/sidecar.yaml", "--check")
	c.Dir, c.Env = "/", podEnv(t)
	c.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// pods are the documents of the example, as they are.
func pods(t *testing.T) (docs []map[string]any) {
	for d := yaml.NewDecoder(strings.NewReader(read(t, "kubernetes/pod.yaml"))); ; {
		var doc map[string]any
		if d.Decode(&doc) != nil {
			break
		}
		docs = append(docs, doc)
	}
	require.Len(t, docs, 2)
	return docs
}

// at is what is at a place in a document; nil where there is nothing.
func at(doc any, path ...string) any {
	for _, key := range path {
		m, _ := doc.(map[string]any)
		doc = m[key]
	}
	return doc
}

// podEnv is the environment of the sidecar in the example.
func podEnv(t *testing.T) (env []string) {
	inits, _ := at(pods(t)[1], "spec", "initContainers").([]any)
	require.Len(t, inits, 1)
	vars, _ := at(inits[0], "env").([]any)
	for _, v := range vars {
		env = append(env, fmt.Sprintf("%v=%v", at(v, "name"), at(v, "value")))
	}
	return env
}

func podConfig(t *testing.T) string {
	text, ok := at(pods(t)[0], "data", "sidecar.yaml").(string)
	require.True(t, ok)
	return text
}

// What Pod Security "restricted" asks for, and what the sidecar does.
func TestPod(t *testing.T) {
	t.Parallel()
	spec := at(pods(t)[1], "spec")
	assert.Equal(t, true, at(spec, "shareProcessNamespace"))
	assert.Equal(t, false, at(spec, "automountServiceAccountToken"))
	assert.Equal(t, true, at(spec, "securityContext", "runAsNonRoot"))
	assert.Equal(t, 65532, at(spec, "securityContext", "runAsUser"))
	assert.Equal(t, "RuntimeDefault", at(spec, "securityContext", "seccompProfile", "type"))
	inits, _ := at(spec, "initContainers").([]any)
	containers, _ := at(spec, "containers").([]any)
	require.Len(t, inits, 1)
	for _, c := range append(containers, inits...) {
		assert.Equal(t, false, at(c, "securityContext", "allowPrivilegeEscalation"))
		assert.Equal(t, true, at(c, "securityContext", "readOnlyRootFilesystem"))
		assert.Equal(t, []any{"ALL"}, at(c, "securityContext", "capabilities", "drop"))
		assert.Nil(t, at(c, "securityContext", "capabilities", "add"))
		assert.Nil(t, at(c, "securityContext", "runAsUser"), "both have the pod's")
		assert.NotNil(t, at(c, "resources", "limits", "memory"))
	}
	sidecar := inits[0]
	assert.Equal(t, "Always", at(sidecar, "restartPolicy"), "else it is no sidecar")
	assert.Nil(t, at(sidecar, "readinessProbe"), "it would take the service out of its load balancer")

	c, err := config.Parse([]byte(podConfig(t)))
	require.NoError(t, err)
	for _, v := range podEnv(t) {
		if dir, ok := strings.CutPrefix(v, "MEMGUARD_STATE_DIR="); ok {
			c.StateDir = dir
		}
	}
	require.NoError(t, c.Complete(func(string) string { return "" }))
	_, port, err := net.SplitHostPort(c.Web.Listen)
	require.NoError(t, err)
	ports, _ := at(sidecar, "ports").([]any)
	require.Len(t, ports, 1)
	assert.Equal(t, "memguard", at(ports[0], "name"), "kubernetes/scrape.yaml goes by it")
	assert.EqualValues(t, port, strings.TrimSpace(yamlText(t, at(ports[0], "containerPort"))))
	mounts, _ := at(sidecar, "volumeMounts").([]any)
	writable := ""
	for _, m := range mounts {
		if at(m, "readOnly") == nil {
			writable, _ = at(m, "mountPath").(string)
		}
	}
	assert.Equal(t, writable, filepath.Dir(c.StateDir), "below it the sidecar makes a directory that is its own")
	assert.False(t, c.Writes.Enabled)
	assert.EqualValues(t, "metrics", c.Auth.OpenReads)
}

func yamlText(t *testing.T, v any) string {
	b, err := yaml.Marshal(v)
	require.NoError(t, err)
	return string(b)
}
