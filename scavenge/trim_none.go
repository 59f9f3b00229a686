// SPDX-License-Identifier: Apache-2.0

//go:build !(linux && cgo && malloc_trim)

package scavenge

func trim() Trim { return TrimNotBuiltIn }
