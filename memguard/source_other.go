// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package memguard

import "os"

func readAt(f *os.File, b []byte) (int, error) { return f.ReadAt(b, 0) }

func gone(error) bool { return false }
