// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"weak"
)

//go:generate go run ./gen

// tables are made by gen; the name is go1.MINOR[-EXPERIMENT]-ARCH.json.gz.
//
//go:embed tables/*.json.gz
var tables embed.FS

// table is a Layout as it is kept.
type table struct {
	Minor       int            `json:"minor"`
	Arch        string         `json:"arch"`
	From        string         `json:"from"`
	Offsets     map[string]Off `json:"offsets"`
	SizeClasses []uint32       `json:"size_classes"`
	WaitReasons []string       `json:"wait_reasons"`
	Refs        []Ref          `json:"refs"`
}

// maxTable bounds an unpacked table.
const maxTable = 4 << 20

// parsed are the tables that somebody has in use, by name: parsed, one takes 26 KiB
// (BenchmarkLookup), and most of fifty targets are of one release.
var parsed struct {
	sync.Mutex
	m map[string]weak.Pointer[Layout]
}

// Lookup returns the table for a release as debug/buildinfo gives it, such as
// "go1.24.11 X:noswissmap" or "go1.26.8-X:nogreenteagc". A release without a
// table gives an error that is [ErrUnknown]. The table is not to be changed: all who
// look up the same one share it.
func Lookup(version, arch string) (*Layout, error) {
	minor, experiments, err := ParseVersion(version)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("go1.%d", minor)
	for _, x := range experiments {
		// The only experiment so far that moves a field that is read; it changes the
		// span inline mark bits and with them p and mstats.
		if x == "greenteagc" && minor == 25 || x == "nogreenteagc" && minor >= 26 {
			name += "-" + x
		}
	}
	name += "-" + arch
	parsed.Lock()
	defer parsed.Unlock()
	if l := parsed.m[name].Value(); l != nil {
		return l, nil
	}
	b, err := tables.ReadFile("tables/" + name + ".json.gz")
	if err != nil {
		return nil, fmt.Errorf("%w: no table for %s on %s", ErrUnknown, strings.TrimSpace(version), arch)
	}
	l, err := unpack(b)
	if err != nil {
		return nil, fmt.Errorf("layout: %s: %w", name, err)
	}
	if parsed.m == nil {
		parsed.m = map[string]weak.Pointer[Layout]{}
	}
	parsed.m[name] = weak.Make(l) // one for each table that there is, at most
	return l, nil
}

// unpack reads a table as it is embedded.
func unpack(b []byte) (*Layout, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(z, maxTable))
	if err != nil {
		return nil, err
	}
	return Decode(raw)
}

// Decode reads a table. One that no runtime can have is an error.
func Decode(b []byte) (*Layout, error) {
	var t table
	if err := json.Unmarshal(b, &t); err != nil {
		return nil, err
	}
	l := &Layout{
		Minor: t.Minor, Arch: t.Arch, From: "table of " + t.From,
		SizeClasses: t.SizeClasses, WaitReasons: t.WaitReasons, Refs: t.Refs,
	}
	err := l.fill(func(path string) (Off, bool) {
		n, ok := t.Offsets[path]
		return n, ok
	})
	if err != nil {
		return nil, err
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	return l, nil
}

// Encode writes a table, the same bytes for the same layout.
func Encode(l *Layout) ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	t := table{
		Minor: l.Minor, Arch: l.Arch, From: l.From,
		SizeClasses: l.SizeClasses, WaitReasons: l.WaitReasons, Refs: l.Refs,
		Offsets: map[string]Off{},
	}
	l.visit(func(tag string, off *Off) {
		if off.Has() { // under the first name that the reader will look for
			path, _, _ := strings.Cut(strings.TrimSuffix(tag, ",optional"), "|")
			t.Offsets[path] = *off
		}
	})
	return json.Marshal(t)
}

// ParseVersion takes a release apart: "go1.26.8-X:nogreenteagc" is 26 and one
// experiment. A development version has no minor that could be relied on.
func ParseVersion(version string) (minor int, experiments []string, err error) {
	v, x, _ := strings.Cut(version, "X:")
	if x != "" {
		experiments = strings.Split(strings.TrimSpace(x), ",")
	}
	v = strings.TrimRight(v, " -")
	if i := strings.IndexByte(v, ' '); i >= 0 {
		v = v[:i] // a vendor's or builder's remark
	}
	rest, ok := strings.CutPrefix(v, "go1.")
	n := 0
	for i := 0; ok && i < len(rest) && '0' <= rest[i] && rest[i] <= '9'; i++ {
		if n = n*10 + int(rest[i]-'0'); n > 1000 {
			ok = false
		}
	}
	if !ok || n == 0 {
		return 0, nil, fmt.Errorf("%w: cannot tell the release from %.60q", ErrUnknown, version)
	}
	return n, experiments, nil
}

// Complete makes a layout of a release that has no table. Its size classes are
// those of the newest release that has one, which a self-check must confirm; the
// wait reasons stay numbers.
func Complete(f *Fields, arch string) (*Layout, error) {
	newest, err := Lookup("go1.27", "amd64")
	if err != nil {
		return nil, err
	}
	l := &Layout{Fields: *f, Arch: arch, From: "target's debugging information", SizeClasses: newest.SizeClasses}
	if err := l.check(); err != nil {
		return nil, fmt.Errorf("%w: debugging information: %w", ErrUnknown, err)
	}
	return l, nil
}
