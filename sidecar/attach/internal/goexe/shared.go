// SPDX-License-Identifier: Apache-2.0

package goexe

import (
	"io"
	"os"
	"sync"
	"weak"
)

// identity names a file's contents: what is written into it changes the time of
// its last change, which nobody can set (inode(7), ctime).
type identity struct {
	dev, inode   uint64
	size         int64
	mtime, ctime [2]int64
}

// located is a table with the address where it is in memory.
type located struct {
	*Table
	addr uint64
}

// tables are those of the files that are open now: a table is most of what a File
// holds, and many processes run the same program.
var tables struct {
	sync.Mutex
	m map[identity]weak.Pointer[located]
}

// openTable finds the function table, or takes it of who has the same file open.
func (f *File) openTable(r io.ReaderAt) (addr uint64, err error) {
	var id identity
	var same bool
	if file, ok := r.(*os.File); ok {
		id, same = identify(file)
	}
	if same {
		tables.Lock()
		defer tables.Unlock()
		if l := tables.m[id].Value(); l != nil {
			f.Table, f.shared = l.Table, l
			return l.addr, nil
		}
	}
	addr, b, err := f.findTable()
	if err != nil {
		return 0, err
	}
	t, err := NewTable(b)
	if err != nil {
		return 0, err
	}
	f.Table, f.shared = t, &located{t, addr}
	if same {
		for id, l := range tables.m {
			if l.Value() == nil {
				delete(tables.m, id)
			}
		}
		if tables.m == nil {
			tables.m = map[identity]weak.Pointer[located]{}
		}
		tables.m[id] = weak.Make(f.shared)
	}
	return addr, nil
}
