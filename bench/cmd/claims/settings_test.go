// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	enabled = thp + "enabled"
	choice  = "always [madvise] never\n"
)

// tree is a root directory with these kernel settings in it.
func tree(t *testing.T, files map[string]string) (root string) {
	root = t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return root
}

func read(t *testing.T, root, file string) string {
	k := settings{root: root}
	v, err := k.value(file)
	require.NoError(t, err)
	return v
}

func TestSettings(t *testing.T) {
	t.Parallel()
	root := tree(t, map[string]string{overcommit: "0\n", enabled: choice})
	k := settings{root: root}
	require.NoError(t, k.set(Setting{enabled, "madvise"}))
	assert.Empty(t, k.old, "as wanted already: not written")
	b, err := os.ReadFile(filepath.Join(root, enabled))
	require.NoError(t, err)
	assert.Equal(t, choice, string(b))

	require.NoError(t, k.set(Setting{enabled, "never"}))
	require.NoError(t, k.set(Setting{overcommit, "1"}))
	require.NoError(t, k.set(Setting{overcommit, "2"}))
	assert.Equal(t, "2", read(t, root, overcommit))
	require.NoError(t, k.restore())
	assert.Equal(t, "0", read(t, root, overcommit))
	assert.Equal(t, "madvise", read(t, root, enabled))

	require.Error(t, k.set(Setting{"proc/sys/vm/nonsense", "1"}))
	assert.NoFileExists(t, filepath.Join(root, "proc/sys/vm/nonsense"))
}

// What cannot be put back is said, with its value, and does not stop the rest.
func TestSettingsRestoreFails(t *testing.T) {
	t.Parallel()
	root := tree(t, map[string]string{overcommit: "0\n", enabled: choice})
	k := settings{root: root}
	require.NoError(t, k.set(Setting{overcommit, "1"}))
	require.NoError(t, k.set(Setting{enabled, "never"}))
	require.NoError(t, os.Remove(filepath.Join(root, enabled)))
	assert.ErrorContains(t, k.restore(), enabled+` not put back to "madvise"`)
	assert.Equal(t, "0", read(t, root, overcommit))
}

// quick is an experiment that takes no time, under these settings.
func quick(to ...Setting) Claim {
	i := slices.IndexFunc(all, func(c Claim) bool { return c.Name == "discarded-make" })
	c := all[i]
	c.Variants = []Variant{{Kernel: to}}
	return c
}

func testEngine(t *testing.T, root string) *engine {
	self, err := os.Executable()
	require.NoError(t, err)
	return &engine{self: self, root: root, touch: true, log: new(bytes.Buffer)}
}

// Whatever happens in an experiment, the settings are put back.
func TestEngineRestores(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*Claim)
		cancel bool
		panics bool
		want   func(*testing.T, Result)
	}{
		"verdict": {
			change: func(*Claim) {},
			want:   func(t *testing.T, r Result) { assert.Equal(t, False, r.Verdict) },
		},
		"the process fails": {
			change: func(c *Claim) { c.Name = "nonsense" },
			want:   func(t *testing.T, r Result) { assert.Contains(t, r.Error, "no experiment") },
		},
		"the next setting is not there": {
			change: func(c *Claim) {
				c.Variants[0].Kernel = append(c.Variants[0].Kernel, Setting{"sys/nonsense", "1"})
			},
			want: func(t *testing.T, r Result) {
				assert.Contains(t, r.Skipped, "a kernel setting that may not be changed here")
				assert.Empty(t, r.Error)
			},
		},
		"the judge does not understand": {
			change: func(c *Claim) {
				c.judge = func([]json.RawMessage) (Verdict, string, error) { return "", "", assert.AnError }
			},
			want: func(t *testing.T, r Result) { assert.Equal(t, assert.AnError.Error(), r.Error) },
		},
		"cancelled": {
			change: func(*Claim) {},
			cancel: true,
			want:   func(t *testing.T, r Result) { assert.Contains(t, r.Error, "canceled") },
		},
		"panic": {
			change: func(c *Claim) {
				c.judge = func([]json.RawMessage) (Verdict, string, error) { panic("in a judge") }
			},
			panics: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := tree(t, map[string]string{overcommit: "0\n", enabled: choice})
			e := testEngine(t, root)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tt.cancel {
				cancel()
			}
			c := quick(Setting{overcommit, "1"}, Setting{enabled, "always"})
			tt.change(&c)
			test := func() {
				r, err := e.run(ctx, &c)
				require.NoError(t, err)
				tt.want(t, r)
			}
			if tt.panics {
				require.Panics(t, test)
			} else {
				test()
			}
			assert.Equal(t, "0", read(t, root, overcommit))
			assert.Equal(t, "madvise", read(t, root, enabled))
			assert.Contains(t, e.log.(*bytes.Buffer).String(), "/"+overcommit+" is 0; will be 1 for a few seconds and then put back")
		})
	}
}

// Without leave nothing is touched; where the kernel refuses it is said politely.
func TestEngineRefuses(t *testing.T) {
	t.Parallel()
	root := tree(t, map[string]string{overcommit: "0\n"})
	c := quick(Setting{overcommit, "1"})
	e := testEngine(t, root)
	e.touch = false
	r, err := e.run(t.Context(), &c)
	require.NoError(t, err)
	assert.Contains(t, r.Skipped, "--touch-kernel")
	assert.Empty(t, r.Verdict)
	assert.Empty(t, e.log.(*bytes.Buffer).String())
	assert.Equal(t, "0", read(t, root, overcommit))

	// A system without it, as a container that hides /proc/sys.
	e = testEngine(t, t.TempDir())
	r, err = e.run(t.Context(), &c)
	require.NoError(t, err)
	assert.Contains(t, r.Skipped, "may not be changed here")

	if os.Getuid() == 0 {
		return // nothing that has a mode is refused to root
	}
	require.NoError(t, os.Chmod(filepath.Join(root, overcommit), 0o400))
	r, err = testEngine(t, root).run(t.Context(), &c)
	require.NoError(t, err)
	assert.Contains(t, r.Skipped, "permission denied")
}

// interruptedArg makes the test binary a run of the program on a tree of settings.
const interruptedArg = "interrupted"

// slow takes a second, so that a signal can come in between.
func slow() Claim {
	i := slices.IndexFunc(all, func(c Claim) bool { return c.Name == "spike-stays" })
	c := all[i]
	c.Variants = []Variant{{Kernel: []Setting{{overcommit, "1"}}}}
	return c
}

func interrupted() int {
	return program{[]Claim{slow()}, os.Getenv("TEST_ROOT")}.run([]string{"--touch-kernel"}, os.Stdout, os.Stderr)
}

// A signal in the middle of an experiment: everything is put back before the end.
func TestSignal(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	require.NoError(t, err)
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			root := tree(t, map[string]string{overcommit: "0\n"})
			c := exec.Command(self, interruptedArg)
			c.Env = append(os.Environ(), "TEST_ROOT="+root)
			var stderr bytes.Buffer
			c.Stderr = &stderr
			require.NoError(t, c.Start())
			changed := eventually(time.Minute, func() bool { return read(t, root, overcommit) == "1" })
			if err := c.Process.Signal(signal); err != nil {
				_ = c.Process.Kill()
				_ = c.Wait()
				t.Skip("this system cannot send it: ", err)
			}
			_ = c.Wait()
			assert.True(t, changed, "%s", stderr.String())
			assert.Equal(t, exitBlind, c.ProcessState.ExitCode(), "%s", stderr.String())
			assert.Contains(t, stderr.String(), "interrupted in spike-stays")
			assert.Equal(t, "0", read(t, root, overcommit))
		})
	}
}
