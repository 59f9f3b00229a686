// SPDX-License-Identifier: Apache-2.0

// Package ondisk is what the sidecar's files have in common: one process writes
// them, and what it was told is there stays there.
package ondisk

import "errors"

// ErrHeld is that another process holds the lock.
var ErrHeld = errors.New("another process holds it")
