// SPDX-License-Identifier: Apache-2.0

package brink

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/memguard/memguard-go/scavenge/cgroup"
)

// A note is a file of Keeper.Dir, named after the group that is set: a line that is the
// boot's, the group's directory as it was opened, and its path in the hierarchy.

// note is the file that has a group.
func (k *Keeper) note(id groupID) string { return filepath.Join(k.Dir, id.String()) }

// bootID tells one run of the machine from the next, in which cgroups have other
// numbers (random(4)); it ends its line.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(b), err
}

// reclaim takes back what was left set in a group when we and our keeper were killed at
// once.
func (k *Keeper) reclaim(id groupID, dir *os.File) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.groups[id] {
		return nil
	}
	note := k.note(id)
	text, err := readNote(note)
	if text == "" || err != nil {
		return err
	}
	if err := restore(int(dir.Fd())); err != nil {
		return err
	}
	return os.Remove(note)
}

// readNote is what a note says after its first line. One of another boot is removed: it
// says nothing, as one that is not there.
func readNote(note string) (string, error) {
	b, err := os.ReadFile(note)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	boot, err2 := bootID()
	if err := errors.Join(err, err2); err != nil {
		return "", err
	}
	text, ok := strings.CutPrefix(string(b), boot)
	if !ok || text == "" {
		return "", os.Remove(note)
	}
	return text, nil
}

// ReclaimAll takes back what was left set in any group when a sidecar with the same Dir
// and its keeper were killed at once. Whether kills are to be held now does not matter:
// the service stands still. A group is found where it was, where our mounts show it, or
// by its processes. What cannot be taken back stays noted, and is in the error.
func (k *Keeper) ReclaimAll() error {
	k.mu.Lock()
	dir := k.Dir
	k.mu.Unlock()
	if dir == "" {
		return nil
	}
	notes, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, n := range notes {
		if err := k.reclaimNoted(dir, n.Name()); err != nil {
			errs = append(errs, fmt.Errorf("brink: take back what %s notes: %w", filepath.Join(dir, n.Name()), err))
		}
	}
	return errors.Join(errs...)
}

func (k *Keeper) reclaimNoted(home, name string) error {
	note := filepath.Join(home, name)
	k.mu.Lock() // one of our own may just be written
	text, err := readNote(note)
	k.mu.Unlock()
	if text == "" || err != nil {
		return err
	}
	var errs []error
	// Another directory may be there by now: only the group's own number counts.
	try := func(d *os.File) bool {
		defer d.Close()
		id, err := idOf(d)
		if err == nil && id.String() == name {
			if err = k.reclaim(id, d); err == nil {
				return true
			}
			errs = append(errs, err)
		}
		return false
	}
	was, path, _ := strings.Cut(strings.TrimSuffix(text, "\n"), "\n")
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, at := range append([]string{was}, cgroup.Places(mounts, path)...) {
		fd, err := unix.Open(at, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		switch {
		case err == nil:
			if try(os.NewFile(uintptr(fd), at)) {
				return nil
			}
		case err != unix.ENOENT && err != unix.ENOTDIR && err != unix.ESRCH: // else it has gone
			errs = append(errs, &fs.PathError{Op: "open", Path: at, Err: err})
		}
	}
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		g, err := cgroup.Open("/proc", pid)
		if err != nil {
			continue
		}
		d, err := writable(g)
		g.Close()
		if err == nil && try(d) {
			return nil
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.Remove(note) // the group was removed
}
