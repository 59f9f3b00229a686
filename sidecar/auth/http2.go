// SPDX-License-Identifier: Apache-2.0

//go:build !nethttpomithttp2

package auth

// http2Linked is that this program has HTTP/2: who is told of it speaks it.
const http2Linked = true
