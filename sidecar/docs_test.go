// SPDX-License-Identifier: Apache-2.0

package sidecar_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/memguard/memguard-go/sidecar"
	"github.com/memguard/memguard-go/sidecar/config"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// blocks are the code blocks of a language in a text.
func blocks(text, language string) (out []string) {
	for {
		_, rest, ok := strings.Cut(text, "\n```"+language+"\n")
		if !ok {
			return out
		}
		block, after, _ := strings.Cut(rest, "```\n")
		out = append(out, block)
		text = after
	}
}

// The configuration in the documentation is right, with the token that is made as it
// says there; and it is all that its orders need.
func TestDocumentedConfiguration(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"sh", "base64", "sha256sum"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	b, err := os.ReadFile("../docs/sidecar.md")
	require.NoError(t, err)
	files := blocks(string(b), "yaml")
	require.Len(t, files, 1)
	dir := t.TempDir()
	path := filepath.Join(dir, "sidecar.yaml")
	require.NoError(t, os.WriteFile(path, []byte("state_dir: state\n"+files[0]), 0o600))
	made := false
	for _, script := range blocks(string(b), "sh") {
		if strings.Contains(script, "sha256sum") {
			c := exec.Command("sh", "-euc", script)
			c.Dir = dir
			out, err := c.CombinedOutput()
			require.NoError(t, err, "%s", out)
			made = true
		}
	}
	require.True(t, made, "it does not say how to make a token")
	c, err := config.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, c.Complete(func(string) string { return "" }))
	require.NoError(t, sidecar.Check(c))
	assert.True(t, c.Writes.Enabled)
	tokens, err := os.ReadFile(filepath.Join(dir, "tokens"))
	require.NoError(t, err)
	assert.Regexp(t, `^sha256:[0-9a-f]{64} alice sre\n$`, string(tokens))
}
