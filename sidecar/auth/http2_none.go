// SPDX-License-Identifier: Apache-2.0

//go:build nethttpomithttp2

package auth

const http2Linked = false
