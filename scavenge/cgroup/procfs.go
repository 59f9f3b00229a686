// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"strings"
)

// membership says where a process stands in the hierarchy that accounts its
// memory, from /proc/PID/cgroup (cgroups(7)). Both paths are relative to the
// root of the reader's cgroup namespace, and climb with "/.." out of it.
type membership struct {
	memory string // version 1 path of the memory controller; "" when it is not on version 1
	v2     string // path in the unified hierarchy; "" when there is none
}

// parseMembership reads /proc/PID/cgroup. Each line is
//
//	hierarchy-ID:controller-list:cgroup-path
//
// where the path may hold colons. Version 2 is 0::/path; a version 1
// hierarchy with "memory" in its list takes the controller away from it.
// It returns the number of lines that do not have this form.
func parseMembership(text []byte) (m membership, bad int) {
	for rest := text; len(rest) > 0; {
		var line []byte
		line, rest = cutLine(rest)
		id, tail, ok1 := bytes.Cut(line, colon)
		controllers, path, ok2 := bytes.Cut(tail, colon)
		if !ok1 || !ok2 || len(path) == 0 || path[0] != '/' {
			bad++
			continue
		}
		if string(id) == "0" && len(controllers) == 0 {
			m.v2 = string(path)
		} else if hasItem(controllers, "memory") {
			m.memory = string(path)
		}
	}
	return m, bad
}

// mount is one mounted cgroup hierarchy.
type mount struct {
	version int    // 1 (with the memory controller) or 2
	root    string // the directory of the hierarchy that is mounted, relative to the reader's cgroup namespace
	point   string // where, relative to the process's root directory
}

// parseMounts returns the mounts of /proc/PID/mountinfo that may carry the
// memory controller, in the file's order. Each line is
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//	(1)(2)(3)   (4)   (5)      (6)      (7)   (8) (9)   (10)         (11)
//
// with (4) the root of the mount in its file system, (5) the mount point, (7)
// any number of optional fields, (8) their end, (9) the type, (11) the options
// of the super block, where version 1 names its controllers
// (proc_pid_mountinfo(5)). It returns the number of lines without this form.
func parseMounts(text []byte) (mounts []mount, bad int) {
	for rest := text; len(rest) > 0; {
		var line []byte
		line, rest = cutLine(rest)
		m, ok := parseMount(line)
		if !ok {
			bad++
		} else if m.version != 0 {
			mounts = append(mounts, m)
		}
	}
	return mounts, bad
}

func parseMount(line []byte) (m mount, ok bool) {
	head, tail, ok := bytes.Cut(line, []byte(" - "))
	if !ok {
		return mount{}, false
	}
	fstype, tail, ok := bytes.Cut(tail, space)
	if !ok {
		return mount{}, false
	}
	for range 3 {
		if _, head, ok = bytes.Cut(head, space); !ok {
			return mount{}, false
		}
	}
	root, head, ok1 := bytes.Cut(head, space)
	point, _, ok2 := bytes.Cut(head, space)
	if !ok1 || !ok2 {
		return mount{}, false
	}
	switch string(fstype) {
	case "cgroup2":
		m.version = 2
	case "cgroup":
		_, options, ok := bytes.Cut(tail, space) // behind the source (10)
		if !ok {
			return mount{}, false
		}
		if !hasItem(options, "memory") {
			return mount{}, true
		}
		m.version = 1
	default:
		return mount{}, true
	}
	m.root, ok1 = unescape(root)
	m.point, ok2 = unescape(point)
	if !ok1 || !ok2 || !strings.HasPrefix(m.root, "/") || !strings.HasPrefix(m.point, "/") {
		return mount{}, false
	}
	return m, true
}

// unescape undoes the kernel's mangling of space, tab, newline and backslash
// as three octal digits (fs/proc_namespace.c, mangle).
func unescape(b []byte) (string, bool) {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b), true
	}
	var out strings.Builder
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' {
			out.WriteByte(b[i])
			continue
		}
		if i+3 >= len(b) {
			return "", false
		}
		var c int
		for _, d := range b[i+1 : i+4] {
			if d < '0' || d > '7' {
				return "", false
			}
			c = c*8 + int(d-'0')
		}
		if c > 0xff {
			return "", false
		}
		out.WriteByte(byte(c))
		i += 3
	}
	return out.String(), true
}

// exiting reports whether /proc/PID/stat shows a process that is on its way
// out. Such a one keeps its pid, but version 1 shows it in "/"
// (kernel/cgroup/cgroup.c, proc_cgroup_show): the group of somebody else.
//
// The name (2) may hold anything, so the fields are counted from the last ")":
// state (3), and in flags (9) the bit PF_EXITING (include/linux/sched.h).
func exiting(stat []byte) bool {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return false
	}
	fields := bytes.Fields(stat[i+1:])
	if len(fields) < 7 {
		return false
	}
	const pfExiting = 0x4
	flags, ok := parseUint(fields[6])
	return string(fields[0]) == "Z" || string(fields[0]) == "X" || ok && flags&pfExiting != 0
}

// hasItem reports whether the comma-separated list holds item.
func hasItem(list []byte, item string) bool {
	for len(list) > 0 {
		var one []byte
		one, list, _ = bytes.Cut(list, comma)
		if string(one) == item {
			return true
		}
	}
	return false
}

var (
	colon = []byte(":")
	comma = []byte(",")
)
