// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// mostPath is the longest name of a unix socket: sun_path has 108 bytes, the
// last of them zero (unix(7); 104 on the BSDs).
const mostPath = 103

// bases are the directories in which an agent's own one may be, for a process
// with such an environment.
func bases(getenv func(string) string) (dirs []string) {
	if dir := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		dirs = append(dirs, dir)
	}
	return append(dirs, cmp.Or(getenv("TMPDIR"), "/tmp")) // as os.TempDir
}

// dirName is the name of the directory of a user's agents.
func dirName(uid int) string { return "memguard-" + strconv.Itoa(uid) }

// makeDir makes the private directory in the first place that allows it.
func makeDir() (string, error) {
	var errs []error
	for _, base := range bases(os.Getenv) {
		dir := filepath.Join(base, dirName(os.Geteuid()))
		err := private(dir)
		if err == nil {
			return dir, nil
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

// private makes a directory that nobody else can enter, or checks that one is.
// Others may have made it before us: /tmp is everybody's.
func private(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	uid, err := owner(st)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", dir, err)
	case !st.IsDir():
		return fmt.Errorf("%s: is a %v, not a directory: remove it", dir, st.Mode().Type())
	case uid != os.Geteuid():
		return fmt.Errorf("%s: belongs to user %d, not to %d: remove it, or set XDG_RUNTIME_DIR", dir, uid, os.Geteuid())
	case st.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s: others may enter it (mode %04o): chmod it to 0700, or remove it", dir, st.Mode().Perm())
	}
	return nil
}

// sweep removes the sockets of processes that are gone. One whose pid is free
// may be of a process in another PID namespace that shares the directory: then
// somebody answers.
func sweep(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".sock")
		pid, err := strconv.Atoi(name)
		if !ok || err != nil || e.Type() != os.ModeSocket || !dead(pid) {
			continue
		}
		if path := filepath.Join(dir, e.Name()); !answers(path) {
			_ = os.Remove(path)
		}
	}
}
