// SPDX-License-Identifier: Apache-2.0

package evidence

import "syscall"

// freeDisk returns how many bytes an ordinary user may still write to the disk
// of a directory.
func freeDisk(dir string) (int64, bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil || st.Blocks == 0 {
		return 0, false // a file system that does not count has no blocks
	}
	return int64(min(st.Bavail, 1<<40) * uint64(max(st.Frsize, 1))), true
}

// inMemory says whether what is written to a directory is memory that the
// kernel cannot take back: a tmpfs. It is charged to the cgroup of the writer.
func inMemory(dir string) bool {
	const tmpfs, ramfs = 0x01021994, 0x858458f6 // statfs(2)
	var st syscall.Statfs_t
	return syscall.Statfs(dir, &st) == nil && (uint32(st.Type) == tmpfs || uint32(st.Type) == ramfs)
}
