// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import (
	"errors"
	"io"
	"runtime"
)

func (x *execution) run(io.Writer) error {
	return cannotLook(errors.New("exec: needs Linux; this is " + runtime.GOOS))
}

func (x *execution) keep() error { return x.run(nil) }
