// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package brink

import (
	"context"
	"errors"
	"time"
)

// Keeper is for Linux.
type Keeper struct{ Dir string }

// Close does nothing.
func (*Keeper) Close() {}

// ReclaimAll does nothing: nothing is ever set.
func (*Keeper) ReclaimAll() error { return nil }

// ReapsAtOnce is for Linux.
func ReapsAtOnce() bool { return false }

// KeepIfAsked does nothing.
func KeepIfAsked() {}

// Hold is for Linux.
type Hold struct {
	State func(ok, set bool, text string)
	Held  func(took time.Duration, why string)
}

// NewHold says that this system cannot.
func NewHold(int, *Keeper, time.Duration) (*Hold, error) { return nil, ErrNot }

// Run says that this system cannot.
func (*Hold) Run(context.Context, func(context.Context)) error { return ErrNot }

// Warn says that this system cannot.
func Warn(context.Context, int, func(context.Context)) error { return errors.ErrUnsupported }
