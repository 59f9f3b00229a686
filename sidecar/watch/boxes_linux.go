// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"bytes"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// boxes are the directories where a guard of the service keeps its black box and
// its profiles, kept open: the way through /proc/PID/root ends with the process.
type boxes struct {
	names []string // as the process sees them
	files []*os.File
	tries int
}

const mostBoxes = 4

// boxesAt is when they are looked for, by the age of the life.
var boxesAt = []time.Duration{500 * time.Millisecond, 3 * time.Second, 15 * time.Second, time.Minute, 10 * time.Minute}

// look looks for directories when it is time.
func (b *boxes) look(pid int, age time.Duration) {
	if b.tries >= len(boxesAt) || age < boxesAt[b.tries] {
		return
	}
	b.tries++
	dir := "/proc/" + strconv.Itoa(pid)
	// A box is mapped (memguard/evidence, Box): that tells the place, whatever
	// configured it.
	var names []string
	if maps, err := readSome(dir+"/maps", 1<<20); err == nil {
		names = boxDirs(maps)
	}
	// Without a box there may be profiles.
	if environ, err := readSome(dir+"/environ", 1<<18); err == nil {
		for kv := range bytes.SplitSeq(environ, []byte{0}) {
			if v, ok := strings.CutPrefix(string(kv), "MEMGUARD_DIR="); ok && path.IsAbs(v) {
				names = append(names, path.Clean(v))
			}
		}
	}
	for _, name := range names {
		if len(b.files) >= mostBoxes || slices.Contains(b.names, name) {
			continue
		}
		if f, err := openBeneath(dir+"/root", name); err == nil {
			b.names, b.files = append(b.names, name), append(b.files, f)
		}
	}
}

// boxDirs are the directories of the black boxes in /proc/PID/maps (proc_pid_maps(5)),
// by the names that they have in the process's mount namespace.
func boxDirs(maps []byte) (dirs []string) {
	for line := range bytes.Lines(maps) {
		// address perms offset dev inode pathname
		i := bytes.IndexByte(line, '/')
		if i < 0 {
			continue
		}
		name := string(bytes.TrimRight(line[i:], "\n"))
		dir, base := path.Split(name)
		if strings.HasPrefix(base, "blackbox-") && strings.HasSuffix(base, ".box") && !strings.Contains(dir, `\`) {
			if dir = path.Clean(dir); !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}

// openBeneath opens a directory of a process: no link in its name leads out of the
// process's own root.
func openBeneath(root, name string) (*os.File, error) {
	r, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(r)
	fd, err := unix.Openat2(r, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NONBLOCK,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func readSome(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}

// dirs are names by which the directories can be read until close.
func (b *boxes) dirs() (names []string) {
	for _, f := range b.files {
		names = append(names, "/proc/self/fd/"+strconv.Itoa(int(f.Fd())))
	}
	return names
}

func (b *boxes) close() {
	for _, f := range b.files {
		_ = f.Close()
	}
	b.files = nil
}
