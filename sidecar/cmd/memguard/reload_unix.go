// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// notifyReload sends c a signal for each SIGHUP.
func notifyReload(c chan<- os.Signal) { signal.Notify(c, syscall.SIGHUP) }
