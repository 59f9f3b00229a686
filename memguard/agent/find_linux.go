// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// sockets are the places where the agent of a process may listen, as this
// process sees them: below the root of the other's mount namespace
// (/proc/PID/root), under the pid and the user that it has in its own
// namespaces.
func sockets(pid int) ([]string, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return nil, err
	}
	name, uids, err := identity(status)
	if err != nil {
		return nil, fmt.Errorf("%s/status: %w", dir, err)
	}
	uidMap, _ := os.ReadFile(dir + "/uid_map") // without user namespaces there is none
	environ, _ := os.ReadFile(dir + "/environ")
	var paths []string
	for _, base := range bases(func(key string) string { return lookup(environ, key) }) {
		for _, uid := range uids {
			at := filepath.Join(base, dirName(inside(uidMap, uid)), strconv.Itoa(name)+".sock")
			paths = append(paths, dir+"/root"+at)
			if _, err := os.Stat(dir + "/root/"); err != nil { // not allowed to look there: it may be our own
				paths = append(paths, at)
			}
		}
	}
	return paths, nil
}

// identity reads of proc_pid_status(5) the pid that the process has in its own
// PID namespace, and its effective and real user as seen from here.
func identity(status []byte) (pid int, uids []int, err error) {
	for line := range strings.Lines(string(status)) {
		key, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		switch {
		case key == "Pid" && pid == 0 && len(fields) == 1:
			pid, err = strconv.Atoi(fields[0])
		case key == "NSpid" && len(fields) > 0: // since Linux 4.1; the innermost is last
			pid, err = strconv.Atoi(fields[len(fields)-1])
		case key == "Uid" && len(fields) == 4: // real, effective, saved, filesystem
			for _, f := range []string{fields[1], fields[0]} {
				uid, err := strconv.Atoi(f)
				if err != nil {
					return 0, nil, err
				}
				if len(uids) == 0 || uids[0] != uid {
					uids = append(uids, uid)
				}
			}
		}
		if err != nil {
			return 0, nil, err
		}
	}
	if pid <= 0 || len(uids) == 0 {
		return 0, nil, fmt.Errorf("no pid or no user in it")
	}
	return pid, uids, nil
}

// inside is what a user is called in a user namespace, by its uid_map
// (user_namespaces(7)): lines of first uid inside, first uid as seen from here,
// and how many.
func inside(uidMap []byte, uid int) int {
	for line := range strings.Lines(string(uidMap)) {
		var in, out, n int
		if _, err := fmt.Sscan(line, &in, &out, &n); err == nil && uid >= out && uid-out < n {
			return in + uid - out
		}
	}
	return uid
}

// lookup is getenv in the bytes of /proc/PID/environ.
func lookup(environ []byte, key string) string {
	for kv := range bytes.SplitSeq(environ, []byte{0}) {
		if v, ok := strings.CutPrefix(string(kv), key+"="); ok {
			return v
		}
	}
	return ""
}

// gone reports whether there is no such process any more.
func gone(pid int) bool {
	if err := syscall.Kill(pid, 0); err == syscall.ESRCH {
		return true
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	i := bytes.LastIndexByte(b, ')')
	return os.IsNotExist(err) || err == nil && i >= 0 && i+2 < len(b) && b[i+2] == 'Z'
}
