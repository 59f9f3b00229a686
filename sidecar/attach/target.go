// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/memguard/memguard-go/sidecar/attach/internal/goexe"
	"github.com/memguard/memguard-go/sidecar/attach/internal/layout"
	"github.com/memguard/memguard-go/sidecar/attach/internal/procmem"
)

var le = binary.LittleEndian

// Target is a Go process that is read from outside. It is not safe for
// concurrent use.
type Target struct {
	pid     int
	name    string // path of the executable, as the target's mount namespace has it
	file    *os.File
	exe     *goexe.File
	layout  *layout.Layout
	mem     *procmem.Mem
	bias    uint64            // where the program was loaded, less where it was linked to be
	globals map[string]uint64 // addresses in the process
	located string            // how globals were found
	text    uint64            // start of the functions, in the process
	gofunc  uint64            // start of the functions' data, in the process
	anchor  [2]uint64         // the module data's first words: another program has others
	alive   *os.File          // /proc/PID/comm: of its files the one that costs the kernel least

	buf    []byte // reused by every read of many pieces
	frames frameCache
}

// maxCheck is how long a busy target may fail the self-check.
const maxCheck = 2 * time.Second

// Open attaches to a process. Nothing stays behind in it. The error is one of
// ErrGone, ErrNotGo, ErrUnknownLayout, a *PermissionError or a *SelfCheckError.
func Open(pid int) (*Target, error) {
	t := &Target{pid: pid}
	if err := t.openWith(nil, maxCheck); err != nil {
		t.Close()
		var p *PermissionError
		var s *SelfCheckError
		switch {
		case errors.As(err, &p), errors.As(err, &s):
			return nil, err
		case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EPERM):
			return nil, refused(pid, err)
		}
		return nil, fmt.Errorf("attach: pid %d: %w", pid, err)
	}
	return t, nil
}

// Close closes the files that are kept open.
func (t *Target) Close() error {
	var errs []error
	if t.mem != nil {
		errs = append(errs, t.mem.Close())
	}
	for _, f := range []*os.File{t.file, t.alive} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// openWith opens by a given layout, or by that of the target's release.
func (t *Target) openWith(l *layout.Layout, within time.Duration) error {
	if t.pid <= 0 {
		return errors.New("not a process id")
	}
	dir := "/proc/" + strconv.Itoa(t.pid)
	var err error
	if t.mem, err = procmem.Open(t.pid); err != nil {
		return err
	}
	if t.alive, err = os.Open(dir + "/comm"); err != nil {
		return gone(err)
	}
	// Through the process: right in another mount namespace too, and when the file
	// was replaced.
	if t.file, err = os.Open(dir + "/exe"); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			if t.isAlive() {
				return fmt.Errorf("%w: a kernel thread, or it is ending", ErrNotGo)
			}
			return ErrGone
		}
		return err
	}
	t.name, _ = os.Readlink(dir + "/exe")
	if t.exe, err = goexe.Open(t.file); err != nil {
		return err
	}
	if t.layout = l; l == nil {
		if err := t.findLayout(); err != nil {
			return err
		}
	}
	if err := t.findBias(dir); err != nil {
		return err
	}
	if err := t.findGlobals(); err != nil {
		return err
	}
	if err := t.readModule(); err != nil {
		return err
	}
	return t.selfCheck(within)
}

// gone maps the ways in which /proc says that there is no process.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return ErrGone
	}
	return err
}

// isAlive reports whether the process that was opened still runs: its file of
// /proc answers for it alone, even when its number is given to another.
func (t *Target) isAlive() bool {
	var b [1]byte
	n, err := t.alive.ReadAt(b[:], 0)
	return n == 1 && err == nil
}

// findLayout takes the table of the release, else the target's own debugging
// information.
func (t *Target) findLayout() error {
	l, err := layout.Lookup(t.exe.Version, t.exe.Arch)
	if err == nil {
		t.layout = l
		return nil
	}
	d, err2 := t.exe.DWARF()
	if err2 != nil {
		return err
	}
	fields, err2 := layout.FromDWARF(d)
	if err2 != nil {
		return fmt.Errorf("%w; %w", err, err2)
	}
	t.layout, err2 = layout.Complete(fields, t.exe.Arch)
	if err2 != nil {
		return fmt.Errorf("%w; %w", err, err2)
	}
	return nil
}

// atPHDR is the number of the entry that has the address of the program headers
// (getauxval(3), AT_PHDR).
const atPHDR = 3

// findBias finds where a position-independent program was loaded.
func (t *Target) findBias(dir string) error {
	if !t.exe.PIE {
		return nil
	}
	b, err := os.ReadFile(dir + "/auxv")
	if err != nil {
		return gone(err)
	}
	linked, ok := t.exe.HeaderAddr()
	if !ok {
		return errors.New("the executable does not map its program headers")
	}
	for ; len(b) >= 16; b = b[16:] {
		if le.Uint64(b) == atPHDR {
			t.bias = le.Uint64(b[8:]) - linked
			return nil
		}
	}
	return ErrGone // an ending process has no auxiliary vector
}

// findGlobals finds the runtime's variables: in the symbol table, else by the
// machine code that uses them.
func (t *Target) findGlobals() error {
	var names []string
	for _, g := range layout.Globals {
		names = append(names, g.Name)
	}
	found := t.exe.Globals(names)
	t.located = "symbol table"
	if len(found) == 0 {
		t.located = "machine code"
		found = t.layout.Locate(t.code(), t.exe.Writable)
	}
	t.globals = map[string]uint64{}
	for _, g := range layout.Globals {
		addr, ok := found[g.Name]
		switch {
		case ok && t.exe.Writable(addr):
			t.globals[g.Name] = addr + t.bias
		case !g.Optional:
			return fmt.Errorf("%w: %s not found in the %s of a %s program", ErrUnknownLayout, g.Name, t.located, t.exe.Version)
		}
	}
	return nil
}

// maxCode bounds the machine code of one function that is searched; the
// runtime's longest function has 12 KiB.
const maxCode = 1 << 16

// code reads the functions that refer to the globals.
func (t *Target) code() map[string]layout.Code {
	text, ok := t.linkedText()
	if !ok {
		return nil
	}
	return t.codeAt(text)
}

// codeAt reads them from the file, in which the functions start at text.
func (t *Target) codeAt(text uint64) map[string]layout.Code {
	want := map[string]bool{}
	for _, r := range t.layout.Refs {
		want[r.Func] = true
	}
	code := map[string]layout.Code{}
	t.exe.Table.Named(want, func(f goexe.Func) {
		b := make([]byte, min(f.End-f.Entry, maxCode))
		if pc := text + uint64(f.Entry); t.exe.Bytes(pc, b) == nil {
			code[f.Name()] = layout.Code{PC: pc, Bytes: b}
		}
	})
	return code
}

// linkedText reads the start of the functions before relocation. The process
// has it relocated.
func (t *Target) linkedText() (uint64, bool) {
	var b [8]byte
	if t.mem.Read(t.exe.Module+t.bias+uint64(t.layout.Module.Text), b[:]) != nil {
		return 0, false
	}
	return le.Uint64(b[:]) - t.bias, true
}

// readModule reads the module data from the process, and holds it against the
// file.
func (t *Target) readModule() error {
	m := &t.layout.Module
	b := make([]byte, m.Size)
	if err := t.mem.Read(t.exe.Module+t.bias, b); err != nil {
		return err
	}
	t.anchor = [2]uint64{le.Uint64(b), le.Uint64(b[8:])}
	t.text, t.gofunc = u64(b, m.Text), u64(b, m.GoFunc)
	start, end := t.exe.Extent()
	inside := func(addr uint64) bool { return addr-t.bias >= start && addr-t.bias < end }
	if !inside(t.anchor[0]) || !inside(t.text) || !inside(t.gofunc) || u64(b, m.EText) < t.text || u64(b, m.EText)-t.text < t.exe.Table.TextSize() {
		return &SelfCheckError{GoVersion: t.exe.Version, Layout: t.layout.From, Failed: []string{"the module data is not that of the executable"}}
	}
	return nil
}

// Info says what the target is and how it is read.
type Info struct {
	PID       int    `json:"pid"`
	Exe       string `json:"exe"`
	GoVersion string `json:"go_version"`
	Arch      string `json:"arch"`
	PIE       bool   `json:"pie"`
	BuildID   string `json:"build_id,omitempty"`
	Layout    string `json:"layout"`  // where the offsets come from
	Globals   string `json:"globals"` // how the runtime's variables were found
	Reads     string `json:"reads"`   // process_vm_readv or /proc/PID/mem
}

// Info returns what the target is and how it is read.
func (t *Target) Info() Info {
	return Info{
		PID: t.pid, Exe: filepath.Clean(t.name), GoVersion: t.exe.Version, Arch: t.exe.Arch, PIE: t.exe.PIE,
		BuildID: t.exe.BuildID, Layout: t.layout.From, Globals: t.located, Reads: t.mem.How(),
	}
}

// u64 reads a word of a structure. An offset beyond it reads as zero, which the
// checks of the layout rule out.
func u64(b []byte, off layout.Off) uint64 {
	if off < 0 || int(off)+8 > len(b) {
		return 0
	}
	return le.Uint64(b[off:])
}

func u32(b []byte, off layout.Off) uint32 {
	if off < 0 || int(off)+4 > len(b) {
		return 0
	}
	return le.Uint32(b[off:])
}
