// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package goexe

import "os"

func identify(*os.File) (identity, bool) { return identity{}, false }
