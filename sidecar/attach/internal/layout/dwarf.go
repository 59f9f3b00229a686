// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"debug/dwarf"
	"fmt"
	"strings"
)

// FromDWARF reads the offsets from debugging information. What else a layout
// has (size classes, wait reasons) the caller adds.
func FromDWARF(d *dwarf.Data) (*Fields, error) {
	f := new(Fields)
	offsets := map[string]dwarf.Offset{} // of the types that are wanted
	f.visit(func(tag string, _ *Off) {
		paths, _ := strings.CutSuffix(tag, ",optional")
		for path := range strings.SplitSeq(paths, "|") {
			name, _, _ := strings.Cut(strings.TrimPrefix(path, "len "), ".")
			offsets["runtime."+name] = 0
		}
	})
	r := d.Reader()
	left := len(offsets)
	for left > 0 {
		e, err := r.Next()
		if err != nil {
			return nil, fmt.Errorf("layout: debugging information: %w", err)
		}
		if e == nil {
			break
		}
		if e.Tag == dwarf.TagStructType {
			name, _ := e.Val(dwarf.AttrName).(string)
			if off, ok := offsets[name]; ok && off == 0 {
				offsets[name] = e.Offset
				left--
			}
		}
		if e.Tag != dwarf.TagCompileUnit {
			r.SkipChildren()
		}
	}
	types := map[string]dwarf.Type{}
	err := f.fill(func(path string) (Off, bool) {
		rest, isLen := strings.CutPrefix(path, "len ")
		elems := strings.Split(rest, ".")
		name := "runtime." + elems[0]
		t, ok := types[name]
		if !ok {
			if offsets[name] == 0 {
				return 0, false
			}
			var err error
			if t, err = d.Type(offsets[name]); err != nil {
				return 0, false
			}
			types[name] = t
		}
		return find(t, elems[1:], isLen)
	})
	if err != nil {
		return nil, fmt.Errorf("layout: debugging information: %w", err)
	}
	return f, nil
}

// find follows a path of field names through t.
func find(t dwarf.Type, path []string, isLen bool) (Off, bool) {
	var off int64
	for _, name := range path {
		for {
			td, ok := t.(*dwarf.TypedefType)
			if !ok {
				break
			}
			t = td.Type
		}
		s, ok := t.(*dwarf.StructType)
		if !ok {
			return 0, false
		}
		found := false
		for _, f := range s.Field {
			if f.Name == name {
				off, t, found = off+f.ByteOffset, f.Type, true
				break
			}
		}
		if !found {
			return 0, false
		}
	}
	switch {
	case isLen:
		a, ok := t.(*dwarf.ArrayType)
		if !ok {
			return 0, false
		}
		off = a.Count
	case len(path) == 0:
		off = t.Size()
	}
	if off < 0 || off > maxOff {
		return 0, false
	}
	return Off(off), true
}
