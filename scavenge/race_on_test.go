// SPDX-License-Identifier: Apache-2.0

//go:build race

package scavenge

const goroutines = 8000 // the race detector has room for 8128
