// SPDX-License-Identifier: Apache-2.0

// Package goexe reads the executable file of a Go program: its variables, its
// functions and their tables. It works without a symbol table. Everything is
// bounded; a crafted file gives an error.
package goexe

import (
	"bytes"
	"debug/buildinfo"
	"debug/dwarf"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

var le = binary.LittleEndian

// ErrNotGo is that a file is not the executable of a Go program.
var ErrNotGo = errors.New("not a Go program")

// Bounds of what is read into memory of one file.
const (
	maxTable   = 256 << 20 // function tables; those of the Kubernetes API server have 30 MiB
	maxSymbols = 512 << 20
	maxRelocs  = 256 << 20
)

// File is the executable of a Go program.
type File struct {
	Version string // Go release, as debug/buildinfo has it
	Arch    string // GOARCH
	PIE     bool
	BuildID string // GNU build id in hex, or Go's
	Table   *Table // functions
	Module  uint64 // address of the module data, before relocation

	elf    *elf.File
	src    io.ReaderAt
	shared *located // keeps Table for others
}

// Open reads what identifies the program and its function table. r must stay
// open as long as the File is in use.
func Open(r io.ReaderAt) (*File, error) {
	var magic [4]byte
	if _, err := r.ReadAt(magic[:], 0); err != nil {
		return nil, fmt.Errorf("goexe: %w", err)
	}
	if string(magic[:]) != elf.ELFMAG {
		return nil, fmt.Errorf("goexe: %w: not an ELF file", ErrNotGo)
	}
	bi, err := buildinfo.Read(r)
	if err != nil {
		return nil, fmt.Errorf("goexe: %w: %w", ErrNotGo, err)
	}
	e, err := elf.NewFile(r)
	if err != nil {
		return nil, fmt.Errorf("goexe: %w", err)
	}
	f := &File{Version: bi.GoVersion, PIE: e.Type == elf.ET_DYN, elf: e, src: r}
	switch {
	case e.Class != elf.ELFCLASS64 || e.ByteOrder != binary.LittleEndian:
	case e.Machine == elf.EM_X86_64:
		f.Arch = "amd64"
	case e.Machine == elf.EM_AARCH64:
		f.Arch = "arm64"
	}
	if f.Arch == "" {
		return nil, fmt.Errorf("goexe: %s %s is not supported", e.Machine, e.Class)
	}
	f.BuildID = f.buildID()
	addr, err := f.openTable(r)
	if err != nil {
		return nil, err
	}
	if f.Module, err = f.findModule(addr, f.Table.funcNames); err != nil {
		return nil, err
	}
	return f, nil
}

// DWARF returns the debugging information, an error if there is none.
func (f *File) DWARF() (*dwarf.Data, error) {
	if f.elf.Section(".debug_info") == nil && f.elf.Section(".zdebug_info") == nil {
		return nil, errors.New("goexe: no debugging information")
	}
	return f.elf.DWARF()
}

// section returns the section's contents, at most limit bytes.
func (f *File) section(name string, limit uint64) ([]byte, uint64) {
	s := f.elf.Section(name)
	if s == nil || s.Type == elf.SHT_NOBITS || s.Size > limit || s.Flags&elf.SHF_COMPRESSED != 0 {
		return nil, 0
	}
	b, err := read(s, s.Size)
	if err != nil {
		return nil, 0
	}
	return b, s.Addr
}

// read reads n bytes. A file that is shorter than it says costs no more memory
// than it has.
func read(r io.ReaderAt, n uint64) ([]byte, error) {
	const chunk = 16 << 20
	var b []byte
	for uint64(len(b)) < n {
		k := min(n-uint64(len(b)), chunk)
		if b == nil && k == n {
			b = make([]byte, 0, n)
		}
		start := len(b)
		b = append(b, make([]byte, k)...)
		if m, err := r.ReadAt(b[start:], int64(start)); m < int(k) {
			return nil, fmt.Errorf("goexe: %w", err)
		}
	}
	return b, nil
}

// findTable finds the function table and its address.
func (f *File) findTable() (uint64, []byte, error) {
	for _, name := range []string{".gopclntab", ".data.rel.ro.gopclntab"} {
		if b, addr := f.section(name, maxTable); b != nil {
			return addr, b, nil
		}
	}
	// Other linkers put it into a section of their own choice, and section headers
	// may be stripped: the header has a magic number (internal/abi/symtab.go).
	for _, p := range f.elf.Progs {
		if p.Type != elf.PT_LOAD || p.Filesz > maxTable {
			continue
		}
		b, err := read(p, p.Filesz)
		if err != nil {
			continue
		}
		for at := 0; ; at += 8 {
			i := bytes.Index(b[min(at, len(b)):], []byte{0xf1, 0xff, 0xff, 0xff, 0, 0})
			if i < 0 {
				break
			}
			if at += i; at%8 != 0 {
				at &^= 7
				continue
			}
			if _, err := NewTable(b[at:]); err == nil {
				return p.Vaddr + uint64(at), bytes.Clone(b[at:]), nil
			}
		}
	}
	return 0, nil, fmt.Errorf("goexe: %w: no function table", ErrNotGo)
}

// findModule finds the module data: it begins with the addresses of the function
// table and of the function names, which lie names bytes further.
func (f *File) findModule(table, names uint64) (uint64, error) {
	var want [16]byte
	le.PutUint64(want[:], table)
	le.PutUint64(want[8:], table+names)
	for _, p := range f.elf.Progs {
		if p.Type != elf.PT_LOAD || p.Flags&elf.PF_W == 0 || p.Filesz > maxTable {
			continue
		}
		b, err := read(p, p.Filesz)
		if err != nil {
			continue
		}
		for at := 0; at < len(b); at += 8 {
			i := bytes.Index(b[at:], want[:])
			if i < 0 {
				break
			}
			if at += i; (p.Vaddr+uint64(at))%8 == 0 {
				return p.Vaddr + uint64(at), nil
			}
			at &^= 7
		}
	}
	// A program that can be loaded anywhere has these addresses in its relocations
	// alone: R_X86_64_RELATIVE is 8, R_AARCH64_RELATIVE is 1027.
	for _, name := range []string{".rela.dyn", ".rela", ".rela.data.rel.ro", ".rela.go.module"} {
		b, _ := f.section(name, maxRelocs)
		first := map[uint64]bool{}
		for pass := range 2 {
			for i := 0; i+24 <= len(b); i += 24 {
				off, kind, addend := le.Uint64(b[i:]), uint32(le.Uint64(b[i+8:])), le.Uint64(b[i+16:])
				switch {
				case kind != 8 && kind != 1027:
				case pass == 0 && addend == table:
					first[off] = true
				case pass == 1 && addend == table+names && first[off-8]:
					return off - 8, nil
				}
			}
		}
	}
	return 0, errors.New("goexe: no module data")
}

// Globals returns the addresses, before relocation, of the named variables that
// the symbol table has. It is empty for a stripped program.
func (f *File) Globals(names []string) map[string]uint64 {
	s := f.elf.SectionByType(elf.SHT_SYMTAB)
	if s == nil || s.Size > maxSymbols || int(s.Link) >= len(f.elf.Sections) {
		return nil
	}
	str := f.elf.Sections[s.Link]
	if str.Size > maxSymbols {
		return nil
	}
	symtab, err := read(s, s.Size)
	if err != nil {
		return nil
	}
	strtab, err := read(str, str.Size)
	if err != nil {
		return nil
	}
	want := map[string]bool{}
	for _, n := range names {
		want[n] = true
	}
	found := map[string]uint64{}
	for ; len(symtab) >= 24; symtab = symtab[24:] {
		if elf.ST_TYPE(symtab[4]) != elf.STT_OBJECT {
			continue
		}
		name := uint64(le.Uint32(symtab))
		if name >= uint64(len(strtab)) {
			continue
		}
		// Most symbols are of other packages, and most of the rest longer.
		text := strtab[name:min(name+64, uint64(len(strtab)))]
		if !bytes.HasPrefix(text, []byte("runtime.")) {
			continue
		}
		if i := bytes.IndexByte(text, 0); i >= 0 && want[string(text[:i])] {
			found[string(text[:i])] = le.Uint64(symtab[8:])
		}
	}
	return found
}

// Writable reports whether a variable can be at addr, before relocation.
func (f *File) Writable(addr uint64) bool {
	for _, p := range f.elf.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_W != 0 && addr >= p.Vaddr && addr-p.Vaddr < p.Memsz {
			return true
		}
	}
	return false
}

// Bytes reads len(b) bytes of the file by address, before relocation.
func (f *File) Bytes(addr uint64, b []byte) error {
	for _, p := range f.elf.Progs {
		if p.Type == elf.PT_LOAD && addr >= p.Vaddr && addr-p.Vaddr < p.Filesz && uint64(len(b)) <= p.Filesz-(addr-p.Vaddr) {
			_, err := p.ReadAt(b, int64(addr-p.Vaddr))
			return err
		}
	}
	return fmt.Errorf("goexe: no %d bytes at %#x", len(b), addr)
}

// HeaderAddr is the address of the program headers before relocation, which the
// kernel tells of the process as AT_PHDR (getauxval(3)).
func (f *File) HeaderAddr() (uint64, bool) {
	var phoff [8]byte
	if _, err := f.src.ReadAt(phoff[:], 32); err != nil { // e_phoff of Elf64_Ehdr, elf(5)
		return 0, false
	}
	off := le.Uint64(phoff[:])
	for _, p := range f.elf.Progs {
		if p.Type == elf.PT_LOAD && off >= p.Off && off-p.Off < p.Filesz {
			return p.Vaddr + off - p.Off, true
		}
	}
	return 0, false
}

// Extent is the size of the program in memory, and where it begins before
// relocation.
func (f *File) Extent() (start, end uint64) {
	start = ^uint64(0)
	for _, p := range f.elf.Progs {
		if p.Type == elf.PT_LOAD {
			start, end = min(start, p.Vaddr), max(end, p.Vaddr+p.Memsz)
		}
	}
	return start, end
}

// buildID reads the notes that linkers leave: the GNU one, which other tools go
// by, else Go's.
func (f *File) buildID() string {
	if b, _ := f.section(".note.gnu.build-id", 4096); len(b) > 16 && le.Uint32(b) == 4 {
		if n := uint64(le.Uint32(b[4:])); n <= uint64(len(b)-16) {
			return hex.EncodeToString(b[16 : 16+n])
		}
	}
	if b, _ := f.section(".note.go.buildid", 4096); len(b) > 16 && le.Uint32(b) == 4 {
		if n := uint64(le.Uint32(b[4:])); n <= uint64(len(b)-16) {
			return string(b[16 : 16+n])
		}
	}
	return ""
}
