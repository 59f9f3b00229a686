// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package target

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/memguard/memguard-go/memguard"
)

type finder struct{}

func (f *Finder) scan(context.Context) ([]Found, []memguard.Blind) {
	return nil, []memguard.Blind{{What: "processes", Why: "they are found through the /proc of Linux; this is " + runtime.GOOS}}
}

func (id Identity) alive() bool { return false }

func start(int) (uint64, error) {
	return 0, errors.New("target: start times are read from the /proc of Linux; this is " + runtime.GOOS)
}

// Lived is unknown here.
func (id Identity) Lived() time.Duration { return 0 }
