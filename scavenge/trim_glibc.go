// SPDX-License-Identifier: Apache-2.0

//go:build linux && cgo && malloc_trim

package scavenge

// #include <malloc.h>
import "C"

// trim returns the free pages of all of glibc's arenas (malloc_trim(3)). musl has no
// such function: there the tag does not build.
func trim() Trim {
	if C.malloc_trim(0) == 1 {
		return TrimReleased
	}
	return TrimNothing
}
