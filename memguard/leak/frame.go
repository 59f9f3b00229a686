// SPDX-License-Identifier: Apache-2.0

package leak

import (
	"fmt"
	"path"
	"strings"
)

// Frame is one call of a stack.
type Frame struct {
	Func string `json:"func"`           // with the import path, without type arguments
	File string `json:"file,omitempty"` // empty if unknown
	Line int    `json:"line,omitempty"` // counts from 1; 0 is unknown
}

// String is "main.work (work.go:12)": the file without its directory.
func (f Frame) String() string {
	if f.File == "" {
		return f.Func
	}
	return fmt.Sprintf("%s (%s)", f.Func, f.Place())
}

// Place is "work.go:12", or empty if the file is unknown.
func (f Frame) Place() string {
	if f.File == "" {
		return ""
	}
	base := path.Base(strings.ReplaceAll(f.File, `\`, "/"))
	if f.Line == 0 {
		return base
	}
	return fmt.Sprintf("%s:%d", base, f.Line)
}

// appendName appends a function's name in the one spelling that a cluster is
// known by: without the directory that it was vendored into, without type
// arguments, and without what differs between releases. The numbers of closures
// stay: two closures of one function are two places.
func appendName(dst []byte, name string) []byte {
	for strings.HasSuffix(name, "-fm") && name != "-fm" { // a method value
		name = name[:len(name)-len("-fm")]
	}
	path, _, _ := strings.Cut(name, "[")
	if i := strings.LastIndex(path, "/vendor/"); i >= 0 && i+len("/vendor/") < len(name) {
		name = name[i+len("/vendor/"):]
	}
	depth := 0
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c == '[':
			if depth++; depth == 1 {
				dst = append(dst, "[...]"...)
			}
		case c == ']' && depth > 0:
			depth--
		case depth > 0:
		case strings.HasPrefix(name[i:], "%2e"): // the linker's dot in the last element of a path
			dst = append(dst, '.')
			i += 2
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// canonical is a name as appendName spells it. It does not copy what is spelled
// so already.
func canonical(name string) string {
	if strings.IndexByte(name, '[') < 0 && strings.IndexByte(name, '%') < 0 && !strings.HasSuffix(name, "-fm") && !strings.Contains(name, "/vendor/") {
		return name
	}
	return string(appendName(nil, name))
}

// pkgOf is the import path in a function's name.
func pkgOf(fn string) string {
	if i := strings.IndexByte(fn, '['); i >= 0 { // type arguments have paths too
		fn = fn[:i]
	}
	slash := strings.LastIndexByte(fn, '/') + 1
	if dot := strings.IndexByte(fn[slash:], '.'); dot >= 0 {
		return fn[:slash+dot]
	}
	return fn
}

// standard says that a function is of the standard library. Import paths of
// other modules have a dot in the first element; the main package has none.
func standard(fn string) bool {
	pkg := pkgOf(fn)
	first, rest, _ := strings.Cut(pkg, "/")
	switch {
	case strings.Contains(first, "."):
		return false
	case rest == "":
		return standardRoots[first] != 0
	}
	// A module without a dot (go mod init app) may not use these names either.
	return standardRoots[first] == hasChildren
}

const (
	aloneOnly = iota + 1
	hasChildren
)

// standardRoots are the first path elements of the standard library.
var standardRoots = func() map[string]int {
	roots := map[string]int{}
	for _, p := range strings.Fields("bufio bytes cmp context embed errors expvar flag fmt iter maps plugin reflect slices sort strconv syscall unique weak structs") {
		roots[p] = aloneOnly
	}
	for _, p := range strings.Fields("archive compress container crypto database debug encoding go hash html image index internal io log math mime net os path regexp runtime strings sync testing text time unicode vendor") {
		roots[p] = hasChildren
	}
	return roots
}()

// libraries are modules, beside the standard library, whose go statements start
// somebody else's function, and whose frames say nothing of who waits.
var libraries = [...]string{"golang.org/x/", "google.golang.org/grpc/"}

// library says that a function is of the standard library or one of libraries.
func library(fn string) bool {
	pkg := pkgOf(fn) + "/"
	for _, l := range libraries {
		if strings.HasPrefix(pkg, l) {
			return true
		}
	}
	return standard(fn)
}

// ofRuntime says that a function is the runtime's own. Dumps leave these out and
// profiles do not, so they are no part of what a cluster is known by.
func ofRuntime(fn string) bool {
	return strings.HasPrefix(fn, "runtime.") || strings.HasPrefix(fn, "internal/runtime/")
}

// wrapper says that a function is one that the compiler made for a go or defer
// statement with arguments. Only dumps at GOTRACEBACK=system show these; before
// Go 1.22 they had the name of a closure.
func wrapper(fn string) bool {
	i := strings.LastIndexByte(fn, '.')
	last := strings.TrimRight(fn[i+1:], "0123456789")
	return last == "gowrap" || last == "deferwrap"
}

// queueFrames are the functions that run finalizers and cleanups. Everything
// above them is the program's.
var queueFrames = map[string]QueueKind{
	"runtime.runfinq":       Finalizers, // Go 1.24 and before
	"runtime.runFinalizers": Finalizers,
	"runtime.runCleanups":   Cleanups,
}
