// SPDX-License-Identifier: Apache-2.0

package smaps

import "strings"

// Perms are the permissions of a mapping.
type Perms uint8

// The letters of the permission column. A mapping without Shared is private (copy on write).
const (
	PermRead Perms = 1 << iota
	PermWrite
	PermExec
	PermShared
)

// String returns the kernel's form, such as "rw-p".
func (p Perms) String() string {
	b := []byte("---p")
	for i, c := range []byte("rwxs") {
		if p>>i&1 != 0 {
			b[i] = c
		}
	}
	return string(b)
}

// VmFlags are the kernel's flags of a mapping as it prints them: two-letter
// codes with a space between them, such as "rd wr mr mw me ac". Codes that are
// not known today are kept like every other. An empty VmFlags is an unknown one:
// every mapping has some flag.
type VmFlags string

// Has reports whether the code is set.
func (f VmFlags) Has(code string) bool {
	for from := 0; ; {
		i := strings.Index(string(f[from:]), code)
		if i < 0 || code == "" {
			return false
		}
		start, end := from+i, from+i+len(code)
		if (start == 0 || f[start-1] == ' ') && (end == len(f) || f[end] == ' ') {
			return true
		}
		from = start + 1
	}
}

// ExtraField is a line this package does not know, as the kernel printed it, without the blanks around.
type ExtraField struct {
	Name, Value string
}

// Mapping is one virtual memory area with its accounting. A copy of the value is
// independent of the Reader that made it.
type Mapping struct {
	Start, End         uint64 // [Start, End)
	Offset             uint64 // into the file, in bytes
	Inode              uint64 // 0 if there is no file
	DevMajor, DevMinor uint32 // of the file's device
	Perms              Perms
	Kind               Kind // set by Parse; Unknown from a Reader

	thpEligible, thpKnown bool
	pkeyKnown             bool
	pkey                  uint32

	// Path is the file ("/usr/bin/x", "/usr/bin/x (deleted)"), the kernel's name
	// ("[heap]", "[vdso]"), the name that the program gave ("[anon: Go: heap]",
	// "[anon_shmem:pool]"), or empty. The kernel writes a newline in a file name as
	// \012; here it is a newline again.
	Path    string
	VmFlags VmFlags
	// Extra holds the lines that this package does not know; it is nil normally.
	Extra []ExtraField

	Fields
}

// THPEligible reports whether the kernel may put transparent huge pages here
// (the line exists since Linux 5.0), and whether that is known.
func (m *Mapping) THPEligible() (eligible, ok bool) { return m.thpEligible, m.thpKnown }

// ProtectionKey returns the memory protection key (pkeys(7)) and whether it is known.
func (m *Mapping) ProtectionKey() (key uint32, ok bool) { return m.pkey, m.pkeyKnown }

// Len returns the size of the address range in bytes, from its addresses.
func (m *Mapping) Len() uint64 { return m.End - m.Start }
