// SPDX-License-Identifier: Apache-2.0

package target

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// binaryFile is what an executable says of itself.
type binaryFile struct {
	goVersion string // empty: not a Go program
	buildID   string // GNU build id in hex, else Go's; empty: none
}

// maxExe is how much of an executable is read: the build info stands at the start
// of the data segment, found through the headers. A file that sends us further, to
// the end of a sparse terabyte, is refused.
const maxExe = 64 << 20

var errTooFar = fmt.Errorf("more than %d MiB have to be read of the executable to tell what it is", maxExe>>20)

// budget is a reader that refuses to read more than left bytes.
type budget struct {
	io.ReaderAt
	left int64
}

func (b *budget) ReadAt(p []byte, off int64) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, errTooFar
	}
	return b.ReaderAt.ReadAt(p, off)
}

// readBinary reads it. debug/elf says of itself that it is not hardened against
// hostile files, so a panic of its becomes an error.
func readBinary(src io.ReaderAt) (b binaryFile, err error) {
	defer func() {
		if p := recover(); p != nil {
			b, err = binaryFile{}, fmt.Errorf("a file that the ELF reader trips over: %v", p)
		}
	}()
	r := &budget{src, maxExe}
	var magic [4]byte
	if _, err := r.ReadAt(magic[:], 0); err != nil {
		return b, err
	}
	if string(magic[:]) != elf.ELFMAG {
		return b, errors.New("not an ELF file")
	}
	f, err := elf.NewFile(r)
	if err != nil {
		return b, err
	}
	b.buildID = buildID(f)
	if bi, err := buildinfo.Read(r); err == nil {
		b.goVersion = bound(bi.GoVersion, 64)
	} else if errors.Is(err, errTooFar) || r.left < 0 {
		return b, errTooFar
	}
	return b, nil
}

// buildID reads it from the notes: as sidecar/attach does, the linker's if there
// is one, else Go's.
func buildID(f *elf.File) string {
	for _, section := range []string{".note.gnu.build-id", ".note.go.buildid"} {
		s := f.Section(section)
		if s == nil || s.Type == elf.SHT_NOBITS || s.Size > 4096 || s.Flags&elf.SHF_COMPRESSED != 0 {
			continue
		}
		b, err := s.Data()
		if err != nil {
			continue
		}
		if id := noteDesc(b, f.ByteOrder); id != nil && section == ".note.gnu.build-id" {
			return hex.EncodeToString(id[:min(len(id), 64)])
		} else if id != nil {
			return bound(string(id), 256)
		}
	}
	for _, p := range f.Progs { // section headers may be stripped
		if p.Type != elf.PT_NOTE || p.Filesz > 4096 {
			continue
		}
		b := make([]byte, p.Filesz)
		if n, _ := p.ReadAt(b, 0); n < len(b) {
			continue
		}
		for len(b) >= 16 { // elf(5), notes: sizes of name and descriptor, type, then both, padded to 4
			name, desc := uint64(f.ByteOrder.Uint32(b)), uint64(f.ByteOrder.Uint32(b[4:]))
			next := 12 + (name+3)&^3 + (desc+3)&^3
			if next > uint64(len(b)) {
				break
			}
			if bytes.HasPrefix(b[12:], []byte("GNU\x00")) && f.ByteOrder.Uint32(b[8:]) == 3 { // NT_GNU_BUILD_ID
				return hex.EncodeToString(b[16 : 16+min(desc, 64)])
			}
			b = b[next:]
		}
	}
	return ""
}

// noteDesc returns the descriptor of the first note, which has a name of four bytes.
func noteDesc(b []byte, order binary.ByteOrder) []byte {
	if len(b) <= 16 || order.Uint32(b) != 4 {
		return nil
	}
	n := uint64(order.Uint32(b[4:]))
	if n == 0 || n > uint64(len(b)-16) {
		return nil
	}
	return b[16 : 16+n]
}

// bound makes text of a process's valid UTF-8 of at most n bytes.
func bound(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
