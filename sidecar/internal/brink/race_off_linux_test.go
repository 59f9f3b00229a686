// SPDX-License-Identifier: Apache-2.0

//go:build linux && !race

package brink

const (
	limit = 64 << 20
	near  = 52 // MiB of the service that are near the limit
)
