// SPDX-License-Identifier: Apache-2.0

//go:build !guarded

package main

func guard(string) {}
