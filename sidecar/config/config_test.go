// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func noEnv(string) string { return "" }

func TestDefaults(t *testing.T) {
	t.Parallel()
	c, err := Parse([]byte("targets: [{name: orders, exe: /app/orders}]\n"))
	require.NoError(t, err)
	require.NoError(t, c.Complete(func(k string) string {
		return map[string]string{"STATE_DIRECTORY": "/var/lib/memguard:/x", "POD_NAMESPACE": "shop"}[k]
	}))
	assert.Equal(t, "shop", c.Namespace)
	assert.Equal(t, "/var/lib/memguard", c.StateDir)
	assert.Equal(t, "/var/lib/memguard/audit.log", c.Audit.Log)
	assert.Equal(t, DefaultListen, c.Web.Listen)
	assert.True(t, c.Loopback())
	assert.False(t, c.Writes.Enabled, "no order is given unless somebody wants it")
	assert.False(t, c.OOMHold, "no setting of a cgroup is changed unless somebody wants it")
	assert.Equal(t, time.Second, c.Interval)
}

func TestStateDir(t *testing.T) {
	t.Parallel()
	for want, env := range map[string]map[string]string{
		"/s":                       {"STATE_DIRECTORY": "/s", "XDG_STATE_HOME": "/x", "HOME": "/h"},
		"/x/memguard":              {"XDG_STATE_HOME": "/x", "HOME": "/h"},
		"/h/.local/state/memguard": {"XDG_STATE_HOME": "relative", "HOME": "/h"},
		"":                         {"HOME": "/"},
	} {
		assert.Equal(t, want, StateDir(func(k string) string { return env[k] }))
	}
}

// A sidecar that the network reaches shows metrics to everybody, and nothing else.
func TestNetwork(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]string{"0.0.0.0:1": "metrics", ":1": "metrics", "[::1]:1": "", "localhost:1": "", None: ""} {
		c := &Config{}
		c.Web.Listen = listen
		_ = c.Complete(noEnv)
		assert.Equal(t, want, c.Auth.OpenReads, listen)
		c.Auth.OpenReads, c.Web.ConfigFile = "", "web.yml"
		_ = c.Complete(noEnv)
		assert.Equal(t, "none", c.Auth.OpenReads, "a file with passwords or certificates")
	}
}

func TestWrong(t *testing.T) {
	t.Parallel()
	const ok = "state_dir: /s\ntargets: [{name: a, exe: /a}]\n"
	for name, test := range map[string]struct{ text, want string }{
		"unknown field":    {ok + "wbe: {}\n", "line 3: field wbe not found"},
		"unknown below":    {ok + "web:\n  listne: x\n", "line 4: field listne not found"},
		"wrong type":       {ok + "interval: soon\n", "line 3: cannot unmarshal !!str `soon`: want a time such as 10s"},
		"no unit":          {ok + "interval: 5\n", "line 3: cannot unmarshal !!int `5`: want a time such as 10s"},
		"no list":          {"targets: {name: a}\n", "line 1: cannot unmarshal !!map: want a list"},
		"no mapping":       {ok + "web: off\n", "line 3: cannot unmarshal !!str `off`: want fields with values"},
		"no boolean":       {ok + "writes: {enabled: 1}\n", "line 3: cannot unmarshal !!int `1`: want true or false"},
		"long socket":      {ok + "web: {socket: /" + strings.Repeat("s", 107) + "}\n", "web.socket: a path of 108 bytes"},
		"size":             {ok + "audit: {max_size: 3 furlongs}\n", "line 3: want a size such as 16MiB"},
		"huge size":        {ok + "audit: {max_size: 999999999999GiB}\n", "line 3: 999999999999GiB is too much"},
		"two documents":    {ok + "---\nnamespace: b\n", "more than one document"},
		"not YAML":         {"a: [\n", "line 1"},
		"a list":           {"- a\n", "line 1: cannot unmarshal !!seq"},
		"namespace":        {ok + "namespace: A/B\n", `namespace: "A/B": want lower-case`},
		"no target":        {"state_dir: /s\n", "targets: none"},
		"target":           {"state_dir: /s\ntargets: [{name: a}]\n", "targets: "},
		"interval":         {ok + "interval: 1ms\n", "interval: 1ms: want 100ms to 1m"},
		"hold":             {ok + "exit_hold: 1h\n", "exit_hold: 1h0m0s: want at most 10s"},
		"listen":           {ok + "web: {listen: nowhere}\n", `web.listen: "nowhere": want host:port`},
		"port":             {ok + "web: {listen: ':99999'}\n", "want a port from 0 to 65535"},
		"nobody could ask": {ok + "web: {listen: none}\n", "web: neither listen nor socket"},
		"rule":             {ok + "auth: {rules: [{users: [a]}]}\n", "auth: "},
		"writes":           {ok + "writes: {enabled: true}\n", "writes.enabled: no auth.rules"},
		"not a number":     {ok + "writes: {per_minute: .nan}\n", "writes.per_minute: NaN: want more than 0"},
		"no bound":         {ok + "writes: {per_minute: .inf}\n", "writes.per_minute: +Inf: want more than 0"},
		"for ever":         {ok + "audit: {max_age_days: 106752}\n", "audit.max_age_days: 106752: want 1 to 100000, or 0"},
		"a peer":           {ok + "auth: {peers: [{name: a}]}\n", "auth.peers[0].uid: is missing"},
		"webhook":          {ok + "webhooks: [{url: 'file:///etc/passwd'}]\n", "webhooks[0].url: "},
		"no state":         {"targets: [{name: a, exe: /a}]\n", "state_dir: say where"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := Parse([]byte(test.text))
			if err == nil {
				err = c.Complete(noEnv)
			}
			require.ErrorContains(t, err, test.want)
			assert.NotRegexp(t, `config\.|\[\]|time\.Duration`, err.Error(), "a type of ours")
		})
	}
}

// All that is wrong is said at once.
func TestAllWrong(t *testing.T) {
	t.Parallel()
	err := (&Config{Namespace: "A", Interval: 1}).Complete(noEnv)
	for _, want := range []string{"namespace: ", "interval: ", "targets: ", "state_dir: "} {
		assert.ErrorContains(t, err, want)
	}
}

func TestReadFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "sidecar.yaml")
	require.NoError(t, os.WriteFile(path, []byte("state_dir: state\ntargets: [{name: a, stderr: a.log}, {name: b, stderr: 'unix:/run/b'}, {name: c}]\nauth: {token_file: /etc/tokens}\nwebhooks: [{url: 'http://h/', ca_file: ca.pem}]\n"), 0o600))
	c, err := ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(dir, "state"), c.StateDir)
	assert.Equal(t, filepath.Join(dir, "a.log"), c.Targets[0].Stderr)
	assert.Equal(t, "unix:/run/b", c.Targets[1].Stderr)
	assert.Empty(t, c.Targets[2].Stderr)
	assert.Equal(t, "/etc/tokens", c.Auth.TokenFile)
	assert.Equal(t, filepath.Join(dir, "ca.pem"), c.Webhooks[0].CAFile)

	require.NoError(t, os.WriteFile(path, []byte("stat_dir: x\n"), 0o600))
	_, err = ReadFile(path)
	require.EqualError(t, err, "config: "+path+": unmarshal errors:\n  line 1: field stat_dir not found")
	_, err = ReadFile(filepath.Join(dir, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = ReadFile(dir)
	require.EqualError(t, err, "config: "+dir+": not a regular file")
	require.NoError(t, os.WriteFile(path, make([]byte, 2*maxBytes), 0o600))
	_, err = ReadFile(path)
	require.EqualError(t, err, "config: "+path+": longer than 1048576 bytes")
}

// Every field that the file may have is in the schema, by the same name.
func TestSchema(t *testing.T) {
	t.Parallel()
	var s map[string]any
	require.NoError(t, json.Unmarshal(Schema(), &s))
	n := 0
	var walk func(reflect.Type, map[string]any)
	walk = func(typ reflect.Type, s map[string]any) {
		if typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		switch typ.Kind() {
		case reflect.Slice:
			walk(typ.Elem(), s["items"].(map[string]any))
		case reflect.Struct:
			properties := s["properties"].(map[string]any)
			assert.Len(t, properties, typ.NumField(), typ)
			assert.Equal(t, false, s["additionalProperties"])
			for i := range typ.NumField() {
				name, _, _ := strings.Cut(typ.Field(i).Tag.Get("yaml"), ",")
				require.NotEmpty(t, name, "%v.%s", typ, typ.Field(i).Name)
				require.Contains(t, properties, name)
				assert.NotEmpty(t, properties[name].(map[string]any)["description"], "%v.%s", typ, name)
				n++
				walk(typ.Field(i).Type, properties[name].(map[string]any))
			}
		}
	}
	walk(reflect.TypeFor[Config](), s)
	assert.Greater(t, n, 40)
}

// A number that is written as 0 is refused by its name, or is 0 and means what the
// schema says of it: it is never the default.
func TestZero(t *testing.T) {
	t.Parallel()
	means := map[string]string{"exit_hold": "0s or less: not at all", "audit.max_age_days": "0: no limit", "auth.peers[0].uid": "of the process at the other end"}
	n := 0
	var walk func(typ reflect.Type, at, doc string)
	walk = func(typ reflect.Type, at, doc string) {
		if typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		zero := "0"
		switch {
		case typ == reflect.TypeFor[time.Duration]():
			zero = "0s"
		case typ.Kind() == reflect.Slice && typ.Elem().Kind() == reflect.Struct:
			walk(typ.Elem(), at+"[0]", doc)
			return
		case typ.Kind() == reflect.Struct:
			for i := range typ.NumField() {
				name, _, _ := strings.Cut(typ.Field(i).Tag.Get("yaml"), ",")
				walk(typ.Field(i).Type, strings.TrimPrefix(at+"."+name, "."), typ.Field(i).Tag.Get("doc"))
			}
			return
		case !typ.ConvertibleTo(reflect.TypeFor[float64]()):
			return // no number
		}
		n++
		text := "state_dir: /s\n"
		if !strings.HasPrefix(at, "targets") {
			text += "targets: [{name: a, exe: /a}]\n"
		}
		fields := at + ": " + zero
		if i := strings.LastIndexByte(at, '.'); i >= 0 {
			fields = at[i+1:] + ": " + zero
			for _, part := range slices.Backward(strings.Split(at[:i], ".")) {
				switch list, ok := strings.CutSuffix(part, "[0]"); {
				case ok && list == "targets":
					fields = list + ": [{name: a, exe: /a, " + fields + "}]"
				case ok:
					fields = list + ": [{name: a, " + fields + "}]"
				default:
					fields = part + ": {" + fields + "}"
				}
			}
		}
		c, err := Parse([]byte(text + fields))
		if err == nil {
			err = c.Complete(noEnv)
		}
		if says, ok := means[at]; ok {
			require.NoError(t, err, at)
			assert.Contains(t, doc, says)
		} else {
			require.ErrorContains(t, err, at+": ", "%s", fields)
		}
	}
	walk(reflect.TypeFor[Config](), "", "")
	assert.Equal(t, 12, n, "all numbers")

	c, err := Parse([]byte("exit_hold: 0s\naudit: {max_age_days: 0}\n"))
	require.NoError(t, err)
	_ = c.Complete(noEnv)
	assert.Zero(t, c.ExitHold)
	assert.Zero(t, c.Audit.MaxAgeDays)
	assert.Equal(t, 10, c.Audit.MaxFiles, "the others have their defaults")
	c, err = Parse([]byte("exit_hold:\nwrites:\naudit: {max_files: }\n"))
	require.NoError(t, err)
	assert.Equal(t, Default(), c, "nothing is not 0")
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("targets: [{name: orders, exe: /app/orders}]\nwebhooks: [{url: http://h/}]\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("{audit: {max_size: 1GiB}, auth: {rules: [{users: ['*'], verbs: [get], paths: [/metrics]}]}}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse(text)
		if err != nil {
			return
		}
		if c.Complete(noEnv) == nil { // what is fine stays so
			again := *c
			require.NoError(t, again.Complete(noEnv))
			require.Equal(t, *c, again)
		}
	})
}
