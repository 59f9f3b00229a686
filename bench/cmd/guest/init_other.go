// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

// guestMain is for Linux: it is the first process of a machine.
func guestMain() {}
