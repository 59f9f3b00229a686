// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestPlaces(t *testing.T) {
	t.Parallel()
	mounts := `35 30 0:30 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
36 30 0:30 /kubepods/pod1 /mnt/pod rw shared:7 master:1 - cgroup cgroup rw,memory,cpu
37 30 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
38 30 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
39 30 0:30 /kubepods/pod11 /mnt/other rw - cgroup cgroup rw,memory
x - cgroup
`
	assert.Equal(t, []string{"/sys/fs/cgroup/memory/kubepods/pod1/a", "/mnt/pod/a"}, Places([]byte(mounts), "/kubepods/pod1/a"))
	assert.Equal(t, []string{"/sys/fs/cgroup/memory"}, Places([]byte(mounts), "/"))
	assert.Empty(t, Places(nil, "/"))
	assert.Empty(t, Places([]byte(mounts), "/../outside"))
}

func FuzzPlaces(f *testing.F) {
	f.Add("35 30 0:30 / /sys/fs/cgroup/memory rw,nosuid shared:1 - cgroup cgroup rw,memory\n", "/a/b")
	f.Add("35 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", "/../outside")
	f.Add("36 30 0:30 /a /mnt rw - cgroup cgroup rw,memory\n", "/ab")
	f.Fuzz(func(t *testing.T, mounts, path string) {
		for _, dir := range Places([]byte(mounts), path) { // each is below a mount point
			if !slices.ContainsFunc(strings.Fields(mounts), func(f string) bool {
				if plain, ok := unescape([]byte(f)); ok {
					f = plain
				}
				at := strings.TrimSuffix(filepath.Clean(f), "/")
				return dir == filepath.Clean(f) || strings.HasPrefix(dir, at+"/")
			}) {
				t.Fatalf("%q", dir)
			}
		}
	})
}
