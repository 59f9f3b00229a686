// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const maps = `00400000-00401000 r--p 00000000 fe:01 1057        /usr/bin/service
7f6c5c000000-7f6c5c080000 rw-s 00000000 fe:01 99          /var/lib/mem guard/blackbox-20261121T000001.000000000Z-orders.box
7f6c5d000000-7f6c5d080000 rw-s 00000000 fe:01 98          /var/lib/a/../a/blackbox-x.box
7f6c5d000000-7f6c5d080000 rw-s 00000000 fe:01 98          /var/lib/b/blackbox-x.box (deleted)
7f6c5d000000-7f6c5d080000 rw-s 00000000 fe:01 98          /var/lib/c\012/blackbox-x.box
7ffd5d000000-7ffd5d021000 rw-p 00000000 00:00 0           [stack]
`

func TestBoxDirs(t *testing.T) {
	t.Parallel()
	assert.Equal(t, []string{"/var/lib/mem guard", "/var/lib/a"}, boxDirs([]byte(maps)))
}

func FuzzBoxDirs(f *testing.F) {
	f.Add([]byte(maps))
	f.Add([]byte("/blackbox-.box"))
	f.Fuzz(func(t *testing.T, b []byte) {
		seen := map[string]bool{}
		for _, dir := range boxDirs(b) {
			assert.True(t, filepath.IsAbs(dir))
			assert.Equal(t, filepath.Clean(dir), dir)
			assert.False(t, seen[dir])
			assert.False(t, strings.ContainsAny(dir, "\n\\"))
			seen[dir] = true
		}
	})
}

func FuzzParseNumber(f *testing.F) {
	f.Add([]byte("low 0\noom_kill 7\n"), "oom_kill")
	f.Add([]byte("max\n"), "")
	f.Fuzz(func(t *testing.T, b []byte, line string) {
		if n, ok := parseNumber(b, line).Get(); ok {
			assert.True(t, strings.Contains(string(b), "max") || strings.ContainsAny(string(b), "0123456789"), "%d", n)
		}
	})
}

// A link in a process's root stays within that root.
func TestOpenBeneath(t *testing.T) {
	t.Parallel()
	root, outside := t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), nil, 0o600))
	require.NoError(t, os.MkdirAll(filepath.Join(root, "var/box"), 0o700))
	require.NoError(t, os.Symlink(outside, filepath.Join(root, "var/link")))
	require.NoError(t, os.Symlink("/var/box", filepath.Join(root, "var/inner")))
	require.NoError(t, os.Symlink("../../../../../../../../.."+outside, filepath.Join(root, "var/up")))
	require.NoError(t, os.WriteFile(filepath.Join(root, "var/file"), nil, 0o600))
	for _, bad := range []string{"/var/link", "/var/up", "/var/none", "/var/file"} {
		_, err := openBeneath(root, bad)
		assert.Error(t, err, bad)
	}
	for _, good := range []string{"/var/box", "/var/inner", "/var/../var/box"} {
		f, err := openBeneath(root, good)
		require.NoError(t, err, good)
		f.Close()
	}
}
