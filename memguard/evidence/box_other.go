// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package evidence

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// Box is a black box. It can be written on Linux only; [ReadBox] reads it
// everywhere.
type Box struct{ _ struct{} }

var errNoBoxes = fmt.Errorf("evidence: black box: %w: it is written on Linux only", errors.ErrUnsupported)

// OpenBox fails with an error that wraps [errors.ErrUnsupported].
func OpenBox(BoxConfig) (*Box, error) { return nil, errNoBoxes }

// Previous returns none: there are no boxes here.
func Previous(dir, service string) ([]string, error) { return nil, nil }

// Path returns nothing.
func (b *Box) Path() string { return "" }

// Record fails with an error that wraps [errors.ErrUnsupported].
func (b *Box) Record(at time.Time, kind byte, payload []byte) error { return errNoBoxes }

// Note fails with an error that wraps [errors.ErrUnsupported].
func (b *Box) Note(at time.Time, kind byte, payload []byte) error { return errNoBoxes }

// Check fails with an error that wraps [errors.ErrUnsupported].
func (b *Box) Check() error { return errNoBoxes }

// Close does nothing.
func (b *Box) Close() error { return nil }

func openRegular(path string) (*os.File, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, &os.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	return os.Open(path)
}

// locked cannot see the lock of a process on another machine.
func locked(*os.File) (bool, error) { return false, errNoBoxes }
