// SPDX-License-Identifier: Apache-2.0

//go:build guarded

package main

import _ "github.com/memguard/memguard-go/memguard/auto"
