// SPDX-License-Identifier: Apache-2.0

// Command gen makes the tables of package layout from the Go toolchains
// themselves. It builds a small program with each release, which the go command
// fetches as a module where it is missing, and reads the debugging information.
//
//	go generate ./sidecar/attach/internal/layout
//	go run ./gen go1.28.0          # in that directory: one release
package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/memguard/memguard-go/sidecar/attach/internal/layout"
)

// releases are what the tables in the repository are made from.
var releases = []string{"go1.21.13", "go1.22.12", "go1.23.12", "go1.24.13", "go1.25.8", "go1.26.8", "go1.27.3"}

var arches = []string{"amd64", "arm64"}

// programs differ in size, so that only what both agree on is kept.
var programs = []string{
	"package main\nfunc main() { println(1) }\n",
	`package main
import ("fmt"; "os"; "runtime"; "runtime/pprof"; "net")
func main() {
	runtime.SetFinalizer(new(os.File), func(*os.File) {})
	pprof.WriteHeapProfile(os.Stdout)
	fmt.Println(net.Listen("tcp", ""))
}
`}

func main() {
	if len(os.Args) > 1 {
		releases = os.Args[1:]
	}
	if err := run(releases); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(releases []string) error {
	for _, release := range releases {
		minor, _, err := layout.ParseVersion(release)
		if err != nil {
			return err
		}
		experiments := []string{""}
		switch {
		case minor == 25:
			experiments = append(experiments, "greenteagc")
		case minor >= 26:
			experiments = append(experiments, "nogreenteagc")
		}
		for _, arch := range arches {
			for _, x := range experiments {
				if err := table(release, minor, arch, x); err != nil {
					return fmt.Errorf("%s %s %s: %w", release, arch, x, err)
				}
			}
		}
	}
	return nil
}

// table makes one table.
func table(release string, minor int, arch, experiment string) error {
	dir, err := os.MkdirTemp("", "layout")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var images []*image
	for i, program := range programs {
		im, err := build(filepath.Join(dir, fmt.Sprint(i)), program, release, arch, experiment)
		if err != nil {
			return err
		}
		images = append(images, im)
	}
	// The smaller one has what every program has, the other has more types.
	big := images[1]
	d, err := big.DWARF()
	if err != nil {
		return err
	}
	fields, err := layout.FromDWARF(d)
	if err != nil {
		return err
	}
	l := &layout.Layout{Fields: *fields, Minor: minor, Arch: arch, From: strings.TrimSpace(release + " " + experiment)}
	if l.SizeClasses, err = big.sizeClasses(); err != nil {
		return err
	}
	if l.WaitReasons, err = big.waitReasons(); err != nil {
		return err
	}
	l.Refs = agreed(images[0].refs(arch), big.refs(arch))
	raw, err := layout.Encode(l)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	z, _ := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if _, err := z.Write(raw); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	name := fmt.Sprintf("go1.%d", minor)
	if experiment != "" {
		name += "-" + experiment
	}
	fmt.Printf("%s-%s: %d references, %d bytes\n", name, arch, len(l.Refs), out.Len())
	return os.WriteFile(filepath.Join("tables", name+"-"+arch+".json.gz"), out.Bytes(), 0o644)
}

// image is a program as the linker wrote it, with its symbols.
type image struct {
	*elf.File
	symbols map[string]elf.Symbol
	funcs   []elf.Symbol
}

func build(dir, program, release, arch, experiment string) (*image, error) {
	if err := os.Mkdir(dir, 0o777); err != nil {
		return nil, err
	}
	for name, text := range map[string]string{"main.go": program, "go.mod": "module program\n\ngo 1.21\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			return nil, err
		}
	}
	c := exec.Command("go", "build", "-o", "program", ".")
	c.Dir = dir
	c.Env = append(os.Environ(), "GOTOOLCHAIN="+release, "GOOS=linux", "GOARCH="+arch, "GOEXPERIMENT="+experiment,
		"GOAMD64=v1", "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := c.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	f, err := elf.Open(filepath.Join(dir, "program"))
	if err != nil {
		return nil, err
	}
	symbols, err := f.Symbols()
	if err != nil {
		return nil, err
	}
	im := &image{File: f, symbols: map[string]elf.Symbol{}}
	for _, s := range symbols {
		im.symbols[s.Name] = s
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC {
			im.funcs = append(im.funcs, s)
		}
	}
	slices.SortFunc(im.funcs, func(a, b elf.Symbol) int { return cmp.Compare(a.Value, b.Value) })
	return im, nil
}

// bytes returns what the file has at an address.
func (im *image) bytes(addr, n uint64) ([]byte, error) {
	for _, p := range im.Progs {
		if p.Type == elf.PT_LOAD && p.Vaddr <= addr && addr+n <= p.Vaddr+p.Filesz {
			b := make([]byte, n)
			_, err := p.ReadAt(b, int64(addr-p.Vaddr))
			return b, err
		}
	}
	return nil, fmt.Errorf("no %d bytes at %#x", n, addr)
}

// symbol returns the contents of the first of names that exists.
func (im *image) symbol(names ...string) ([]byte, error) {
	for _, name := range names {
		if s, ok := im.symbols[name]; ok {
			return im.bytes(s.Value, s.Size)
		}
	}
	return nil, errors.New("no symbol " + strings.Join(names, ", "))
}

func (im *image) sizeClasses() ([]uint32, error) {
	b, err := im.symbol("runtime.class_to_size", "internal/runtime/gc.SizeClassToSize")
	if err != nil {
		return nil, err
	}
	var sizes []uint32
	for ; len(b) >= 2; b = b[2:] {
		sizes = append(sizes, uint32(binary.LittleEndian.Uint16(b)))
	}
	return sizes, nil
}

func (im *image) waitReasons() ([]string, error) {
	b, err := im.symbol("runtime.waitReasonStrings")
	if err != nil {
		return nil, err
	}
	var reasons []string
	for ; len(b) >= 16; b = b[16:] {
		if binary.LittleEndian.Uint64(b[8:]) == 0 {
			reasons = append(reasons, "")
			continue
		}
		text, err := im.bytes(binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]))
		if err != nil {
			return nil, err
		}
		reasons = append(reasons, string(text))
	}
	return reasons, nil
}

// refs returns every place in the runtime's functions that may refer to a global.
func (im *image) refs(arch string) []layout.Ref {
	// The lowest field's operand may be followed by an immediate of up to 4 bytes,
	// which the address found includes.
	const immediate = 4
	var refs []layout.Ref
	for i, f := range im.funcs {
		if !strings.HasPrefix(f.Name, "runtime.") || i+1 == len(im.funcs) {
			continue
		}
		// As in the function table, which is all that a stripped program has: a
		// function ends where the next begins.
		f.Size = im.funcs[i+1].Value - f.Value
		code, err := im.bytes(f.Value, f.Size)
		if err != nil {
			continue
		}
		for at, addr := range layout.Addresses(arch, code, f.Value) {
			for _, g := range layout.Globals {
				if s, ok := im.symbols[g.Name]; ok && addr+immediate >= s.Value && addr < s.Value+s.Size {
					refs = append(refs, layout.Ref{Func: f.Name, Len: uint32(f.Size), At: at, Global: g.Name, Addend: int32(addr - s.Value)})
				}
			}
		}
	}
	return refs
}

// agreed keeps what is in both programs, of the functions that tell most about
// each global.
func agreed(a, b []layout.Ref) []layout.Ref {
	const functions, places = 10, 4 // for each global: enough votes to be sure of a winner
	in := map[layout.Ref]bool{}
	for _, r := range b {
		in[r] = true
	}
	byGlobal := map[string]map[string][]layout.Ref{}
	for _, r := range a {
		if in[r] {
			if byGlobal[r.Global] == nil {
				byGlobal[r.Global] = map[string][]layout.Ref{}
			}
			byGlobal[r.Global][r.Func] = append(byGlobal[r.Global][r.Func], r)
		}
	}
	var out []layout.Ref
	for _, g := range layout.Globals {
		var best [][]layout.Ref
		for _, refs := range byGlobal[g.Name] {
			best = append(best, refs)
		}
		slices.SortFunc(best, func(a, b []layout.Ref) int {
			return cmp.Or(len(b)-len(a), cmp.Compare(a[0].Func, b[0].Func))
		})
		for _, refs := range best[:min(len(best), functions)] {
			out = append(out, refs[:min(len(refs), places)]...)
		}
	}
	return out
}
