// SPDX-License-Identifier: Apache-2.0

//go:build linux && race

package brink

// The race detector needs memory of its own in the service.
const (
	limit = 128 << 20
	near  = 85 // MiB of the service that are near the limit
)
