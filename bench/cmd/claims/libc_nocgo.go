// SPDX-License-Identifier: Apache-2.0

//go:build !linux || !cgo

package main

import "fmt"

// cgo tells that the C library is not at hand.
const cgo = false

var errNoCgo = fmt.Errorf("%w: not built with cgo on Linux", errNotHere)

func measureChunk() (chunkFigures, error) { return chunkFigures{}, errNoCgo }

func measureArenas() (arenaFigures, error) { return arenaFigures{}, errNoCgo }
