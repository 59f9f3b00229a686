// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// place is where the memory of a process is accounted.
type place struct {
	version int
	path    string // in the hierarchy, as /proc/PID/cgroup gives it
	dir     string // the group's directory
	top     string // the mount point above it (or dir itself)
	psi     string // memory.pressure of the group when the controller is on version 1; may be ""
}

// view is a mount namespace: how one process sees the cgroup hierarchies.
type view struct {
	root   string // its root directory, from here
	mounts []mount
}

// locate finds the place of pid; 0 is the calling process.
//
// /proc/PID/cgroup has a path relative to the hierarchy's root (or to our
// cgroup namespace's), /proc/PID/mountinfo which part of the hierarchy is
// mounted where. The target's mounts come first, through /proc/PID/root: in a
// container that is usually the only place where its group can be seen. They
// need the rights of ptrace(2); without them our own mounts must do.
func locate(proc string, pid int) (place, error) {
	self := filepath.Join(proc, "self")
	base := self
	if pid != 0 {
		base = filepath.Join(proc, strconv.Itoa(pid))
	}
	m, err := readMembership(base, pid)
	if err != nil {
		return place{}, err
	}
	p := place{version: 1, path: m.memory}
	if p.path == "" {
		p.version, p.path = 2, m.v2
	}
	if p.path == "" {
		return place{}, fmt.Errorf("%w in %s/cgroup", ErrNoController, base)
	}

	var views []view
	var errs []error
	if pid != 0 && !sameMounts(self, base) {
		views, errs = addView(views, errs, base, filepath.Join(base, "root"))
	}
	// Our own root is named by the link, "/" unless a test says otherwise:
	// directories then have the names that a person knows.
	if root, err := os.Readlink(filepath.Join(self, "root")); err != nil {
		errs = append(errs, err)
	} else {
		views, errs = addView(views, errs, self, root)
	}

	dir, top, err := find(views, p.version, p.path, pid)
	if err != nil {
		err = fmt.Errorf("%w: %s", err, p.path)
		for _, e := range errs { // one line for a person
			err = fmt.Errorf("%w; %w", err, e)
		}
		return place{}, err
	}
	p.dir, p.top = dir, top
	switch p.version {
	case 1:
		if dir, _, err := find(views, 2, m.v2, pid); err == nil && !isRealRoot(dir) {
			p.psi = filepath.Join(dir, "memory.pressure")
		}
	case 2:
		p.dir, err = accountingDir(dir, top)
	}
	return p, err
}

func readMembership(base string, pid int) (membership, error) {
	text, err := os.ReadFile(filepath.Join(base, "cgroup"))
	if err != nil {
		if _, serr := os.Stat(base); errors.Is(err, syscall.ESRCH) || errors.Is(serr, fs.ErrNotExist) {
			return membership{}, fmt.Errorf("%w: %d", ErrNoProcess, pid)
		}
		if errors.Is(err, fs.ErrNotExist) { // a kernel without cgroups
			return membership{}, fmt.Errorf("%w: %w", ErrNoController, err)
		}
		return membership{}, err
	}
	// Read after the path: whoever is not exiting now was not before.
	if stat, err := os.ReadFile(filepath.Join(base, "stat")); err == nil && exiting(stat) {
		return membership{}, fmt.Errorf("%w: %d is exiting", ErrNoProcess, pid)
	}
	m, bad := parseMembership(text)
	if m == (membership{}) && bad > 0 {
		return membership{}, fmt.Errorf("%s: no line of the form id:controllers:/path", filepath.Join(base, "cgroup"))
	}
	return m, nil
}

// sameMounts reports whether two processes see the same files under the same
// names. It is false when that cannot be told.
func sameMounts(a, b string) bool {
	for _, link := range []string{"ns/mnt", "root"} {
		x, err1 := os.Readlink(filepath.Join(a, link))
		y, err2 := os.Readlink(filepath.Join(b, link))
		if err1 != nil || err2 != nil || x != y {
			return false
		}
	}
	return true
}

func addView(views []view, errs []error, base, root string) ([]view, []error) {
	text, err := os.ReadFile(filepath.Join(base, "mountinfo"))
	if err != nil {
		return views, append(errs, err)
	}
	mounts, _ := parseMounts(text)
	return append(views, view{root, mounts}), errs
}

// find returns the directory of a group and the mount point above it.
func find(views []view, version int, path string, pid int) (dir, top string, err error) {
	if path == "" {
		return "", "", ErrNoController
	}
	mounted := false
	for _, v := range views {
		for _, m := range v.mounts {
			if m.version != version {
				continue
			}
			mounted = true
			rel, ok := below(m.root, path)
			if !ok {
				continue // this mount shows another part of the hierarchy
			}
			top = filepath.Join(v.root, m.point)
			dir = filepath.Join(top, rel)
			if isGroup(dir, version) {
				return dir, top, nil
			}
		}
	}
	// No mount has the path where it should be: guess, but take only a group
	// that says itself that the process is in it.
	if pid == 0 {
		pid = os.Getpid()
	}
	for _, v := range views {
		for _, m := range v.mounts {
			if m.version != version {
				continue
			}
			top = filepath.Join(v.root, m.point)
			for _, dir := range guesses(top, m.root, path) {
				if isGroup(dir, version) && holds(dir, pid) {
					return dir, top, nil
				}
			}
		}
	}
	switch {
	case strings.HasSuffix(path, deletedMark):
		return "", "", ErrGone
	case mounted:
		return "", "", fmt.Errorf("%w: no mount of cgroup v%d shows the group", ErrNoController, version)
	}
	return "", "", fmt.Errorf("%w: cgroup v%d is not mounted", ErrNoController, version)
}

// placeOf returns the place of the group with the directory dir.
func placeOf(dir string) (place, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return place{}, err
	}
	p := place{version: 2, dir: dir, top: dir}
	if isGroup(dir, 1) {
		p.version = 1
	} else if !isGroup(dir, 2) {
		if _, err := os.Stat(dir); err != nil {
			return place{}, err
		}
		return place{}, fmt.Errorf("%w: %s is not a memory cgroup", ErrNoController, dir)
	}
	for isGroup(filepath.Dir(p.top), p.version) {
		p.top = filepath.Dir(p.top)
	}
	p.path = "/" + strings.TrimPrefix(strings.TrimPrefix(dir, p.top), "/")
	if p.version == 2 {
		p.dir, err = accountingDir(dir, p.top)
	}
	return p, err
}

// guesses returns where under the mount point top the group may be.
func guesses(top, root, path string) (dirs []string) {
	// A container that was given the host's mount in its own cgroup namespace:
	// the root of the mount is above the namespace's, the way down to us has
	// as many names as there are dots, but they are not said.
	up, down := root, path
	for climbs(up) && climbs(down) && strings.HasPrefix(up, "/..") && strings.HasPrefix(down, "/..") {
		up, down = up[len("/.."):], down[len("/.."):]
	}
	if depth := strings.Count(up, "/.."); depth > 0 && up == strings.Repeat("/..", depth) && !climbs(down) {
		dirs, _ = filepath.Glob(noGlob.Replace(top) + strings.Repeat("/*", depth) + noGlob.Replace(strings.TrimSuffix(down, "/")))
	}
	// A runtime in a container: the path begins with the outer container's,
	// the mount does not.
	for rest := path; ; rest = cutFirst(rest) {
		if !climbs(rest) {
			dirs = append(dirs, filepath.Join(top, rest))
		}
		if rest == "" {
			return dirs
		}
	}
}

// noGlob quotes what filepath.Glob would take for a pattern.
var noGlob = strings.NewReplacer("*", `\*`, "?", `\?`, "[", `\[`, `\`, `\\`)

// deletedMark is behind the path of a version 2 group that was removed while
// the process was exiting (cgroups(7)).
const deletedMark = " (deleted)"

// below returns the part of path that lies under root. Both are relative to
// the same directory and may climb out of it.
func below(root, path string) (rel string, ok bool) {
	rel, ok = strings.CutPrefix(path, strings.TrimSuffix(root, "/"))
	if !ok || rel != "" && rel[0] != '/' || climbs(rel) {
		return "", false
	}
	return rel, true
}

// Places are the directories where mounts show a group of version 1's memory
// hierarchy: mountinfo is the text of a process's file of that name, and path that of
// [Group.Path]. A group outside of the process's cgroup namespace has none.
func Places(mountinfo []byte, path string) (dirs []string) {
	mounts, _ := parseMounts(mountinfo)
	for _, m := range mounts {
		if rel, ok := below(m.root, path); ok && m.version == 1 {
			dirs = append(dirs, filepath.Join(m.point, rel))
		}
	}
	return dirs
}

// climbs reports whether a path leads upwards somewhere.
func climbs(path string) bool { return strings.Contains(path+"/", "/../") }

// cutFirst removes the first element of "/a/b" and leaves "/b", at last "".
func cutFirst(path string) string {
	_, rest, more := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if !more {
		return ""
	}
	return "/" + rest
}

// isGroup reports whether dir is a group of the hierarchy.
func isGroup(dir string, version int) bool {
	name := "memory.usage_in_bytes"
	if version == 2 {
		name = "cgroup.controllers"
	}
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// holds reports whether the group says that pid is in it.
func holds(dir string, pid int) bool {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	want := strconv.AppendInt(nil, int64(pid), 10)
	for len(text) > 0 && err == nil {
		var line []byte
		if line, text = cutLine(text); bytes.Equal(line, want) {
			return true
		}
	}
	return false
}

// accountingDir returns the group that accounts the memory of the version 2
// group dir: the nearest on the way up that has the controller switched on.
func accountingDir(dir, top string) (string, error) {
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "memory.current")); err == nil {
			return d, nil
		}
		if d != top && len(d) > len(top) {
			continue
		}
		// The real root has the controller, but of its files only memory.stat
		// and memory.pressure: what it accounts is the machine.
		controllers, err := os.ReadFile(filepath.Join(d, "cgroup.controllers"))
		if err == nil && isRealRoot(d) && bytes.Contains(controllers, []byte("memory")) {
			return d, nil
		}
		return "", fmt.Errorf("%w: memory is not enabled in %s", ErrNoController, dir)
	}
}

// isRealRoot reports whether a version 2 directory is the root of the
// hierarchy and not just the top of a namespace: only that has no cgroup.type.
func isRealRoot(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "cgroup.type"))
	return errors.Is(err, fs.ErrNotExist)
}
