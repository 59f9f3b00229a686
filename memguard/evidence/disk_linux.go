// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"cmp"
	"io/fs"
	"os"
	"syscall"
)

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

// hold locks a temporary file for as long as it is open. A file system without
// locks leaves it to its age.
func hold(f *os.File) { _ = flock(f, syscall.LOCK_EX) }

// publish gives a temporary file its name and closes it. It is locked until then.
func publish(f *os.File, path string) error {
	err := os.Rename(f.Name(), path)
	return cmp.Or(err, f.Close())
}

// abandoned says whether a temporary file is that of a process that was killed: it
// is not locked. One that is empty may be about to be.
func abandoned(path string, st fs.FileInfo) bool {
	if st.Size() == 0 {
		return old(st)
	}
	live, err := inUse(path)
	return err == nil && !live || err != nil && old(st)
}
