// SPDX-License-Identifier: Apache-2.0

// Command deadlock waits for ever, which the runtime tells only of a program that
// imports nothing of what waits for signals.
package main

func main() { select {} }
