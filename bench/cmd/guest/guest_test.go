// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestConsole(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		console, want string
		status        int
	}{
		"a program":       {"SeaBIOS\r\n\x1b[2J" + beginMark + "\r\nhello\r\n\r\nworld\r\n" + endMark + "3\r\nreboot\r\n", "hello\n\nworld\n", 3},
		"no last newline": {beginMark + "\nhel", "hel\n", -1},
		"a panic":         {"Kernel panic\r\n", "", -1},
		"nothing":         {"", "", -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			status, err := copyConsole(&b, strings.NewReader(test.console), false)
			require.NoError(t, err)
			assert.Equal(t, test.status, status)
			assert.Equal(t, test.want, b.String())
		})
	}
}

// The image is one that cpio(1) reads.
func TestImage(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("no cpio here to read the image with")
	}
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "host"), []byte("12345"), 0o600))
	require.NoError(t, writeImage(image, []file{{name: "args", text: "a\x00b"}, {name: "init", from: filepath.Join(dir, "host")}}))
	in, err := os.Open(image)
	require.NoError(t, err)
	defer in.Close()
	c := exec.Command(path, "-i", "--quiet")
	c.Stdin, c.Dir = in, t.TempDir()
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for name, want := range map[string]string{"args": "a\x00b", "init": "12345"} {
		got, err := os.ReadFile(filepath.Join(c.Dir, name))
		require.NoError(t, err)
		assert.Equal(t, want, string(got))
	}
	assert.DirExists(t, filepath.Join(c.Dir, "proc"))
}

// kernelOf is the kernel to boot, of MEMGUARD_GUEST_KERNEL.
func kernelOf(t *testing.T) string {
	kernel := os.Getenv("MEMGUARD_GUEST_KERNEL")
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil || kernel == "" {
		t.Skip("set MEMGUARD_GUEST_KERNEL to a kernel, with qemu-system-x86_64 installed")
	}
	return kernel
}

// What only version 2 has is tested in such a machine.
func TestBootTests(t *testing.T) {
	kernel := kernelOf(t)
	tests := filepath.Join(t.TempDir(), "tests")
	c := exec.Command("go", "test", "-c", "-o", tests, "../../../sidecar/internal/brink")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
	status, err := hostMain(t.Context(), []string{"--kernel", kernel, "--", tests, "-test.v", "-test.run=Warn"})
	require.NoError(t, err)
	assert.Zero(t, status)
}

// A real machine: with a kernel in MEMGUARD_GUEST_KERNEL.
func TestBoot(t *testing.T) {
	kernel := kernelOf(t)
	status, err := hostMain(t.Context(), []string{"--kernel", kernel, "--", "../oomlab", "run", "gogc-off-drip", "--guard", "plain", "--limit", "64MiB"})
	require.NoError(t, err)
	assert.Zero(t, status)
}
