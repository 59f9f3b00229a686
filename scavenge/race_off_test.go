// SPDX-License-Identifier: Apache-2.0

//go:build !race

package scavenge

const goroutines = 10_000
