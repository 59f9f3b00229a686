// SPDX-License-Identifier: Apache-2.0

package target

import (
	"os"

	"golang.org/x/sys/unix"
)

// exes reads executables, each once.
type exes struct{ known map[fileID]verdict }

// fileID is a file in one state.
type fileID struct {
	dev, ino                uint64
	size, modified, changed int64
}

type verdict struct {
	binaryFile
	err error
}

const maxExes = 512 // executables remembered

// read returns what the executable of a process says of itself.
func (e *exes) read(pid int) (binaryFile, error) {
	name := procPath(pid, "exe")
	id, err := within(func() (fileID, error) {
		var st unix.Stat_t
		if err := unix.Stat(name, &st); err != nil {
			return fileID{}, &os.PathError{Op: "stat", Path: name, Err: err}
		}
		return idOf(&st), nil
	})
	if err != nil {
		return binaryFile{}, err
	}
	if v, ok := e.known[id]; ok {
		return v.binaryFile, v.err
	}
	type result struct {
		id fileID // of what was opened: it may be another one by now
		verdict
	}
	r, err := within(func() (result, error) {
		f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return result{}, err
		}
		defer f.Close()
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return result{}, err
		}
		r := result{id: idOf(&st)}
		r.binaryFile, r.err = readBinary(f)
		return r, nil
	})
	if err != nil {
		return binaryFile{}, err
	}
	if e.known == nil || len(e.known) >= maxExes {
		e.known = map[fileID]verdict{}
	}
	e.known[r.id] = r.verdict
	return r.binaryFile, r.err
}

func idOf(st *unix.Stat_t) fileID {
	return fileID{st.Dev, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}
}
