// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package watch

import "time"

// boxes are found by the files of /proc.
type boxes struct{}

func (*boxes) look(int, time.Duration) {}
func (*boxes) dirs() []string          { return nil }
func (*boxes) close()                  {}
