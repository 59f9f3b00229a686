// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package watch

import (
	"errors"
	"os"
	"syscall"
)

var errNoPidfd = errors.New("no descriptor of the process")

func openPidfd(int) (*os.File, error) { return nil, errNoPidfd }

func awaitPidfd(*os.File) error { return errNoPidfd }

func pidfdStatus(*os.File) (status syscall.WaitStatus, ok bool) { return status, false }

type program struct{ dev, inode uint64 }

func programOf(int) (program, bool) { return program{}, false }
