// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// failing makes system calls of this process fail with EIO from now on (seccomp(2)).
func failing(calls ...uint32) error {
	stmt := func(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }
	prog := []unix.SockFilter{stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, 0)} // seccomp_data.nr
	for _, nr := range calls {
		prog = append(prog,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: nr},
			stmt(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ERRNO|uint32(unix.EIO)))
	}
	prog = append(prog, stmt(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ALLOW))
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	f := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&f)))
	if errno != 0 {
		return errno
	}
	return nil
}

// eioChild appends a record, then others to a disk that fails, and says what came of it.
func eioChild(path string, calls ...uint32) {
	l, err := OpenLog(LogConfig{Path: path})
	if err == nil {
		err = l.Append(event(1))
	}
	if err == nil {
		err = failing(calls...)
	}
	if err != nil {
		fmt.Println("no seccomp:", err)
		return
	}
	for n := range 2 {
		fmt.Printf("append: %v; dirty: %t\n", l.Append(event(2+n)), l.file.dirty)
	}
}

// TestProcessSyncFails: a record counts when fsync said so, and not before.
func TestProcessSyncFails(t *testing.T) {
	for calls, want := range map[string]struct {
		said string
		left []int
	}{
		// What was written is cut off: the next fsync would not tell that it was lost.
		"fsync": {strings.Repeat("append: audit: log: sync PATH: input/output error; dirty: false\n", 2), []int{1}},
		// It cannot be cut off either: nothing is written behind it.
		"fsync,ftruncate": {"append: audit: log: sync PATH: input/output error\ntruncate PATH: input/output error; dirty: true\n" +
			"append: audit: log: truncate PATH: input/output error; dirty: true\n", []int{1, 2}},
	} {
		path := filepath.Join(t.TempDir(), "audit.log")
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), "MEMGUARD_AUDIT_CHILD="+path, "MEMGUARD_AUDIT_EIO="+calls)
		out, err := child.CombinedOutput()
		require.NoError(t, err, "%s", out)
		if strings.HasPrefix(string(out), "no seccomp") {
			t.Skipf("system calls cannot be made to fail: %s", out)
		}
		assert.Equal(t, strings.ReplaceAll(want.said, "PATH", path), string(out))
		assert.Equal(t, want.left, numbers(t, path))
	}
}
