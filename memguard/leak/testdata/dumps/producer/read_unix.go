// SPDX-License-Identifier: Apache-2.0

package main

import "syscall"

func readBlocking(fd int) { _, _ = syscall.Read(fd, make([]byte, 1)) }
