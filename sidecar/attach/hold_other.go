// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package attach

import (
	"context"
	"time"
)

// HoldExit says that this system cannot.
func (t *Target) HoldExit(context.Context, time.Duration, Parts) (*Death, error) {
	return nil, ErrHold
}
