// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// enter waits for a place where few may be at once. Who does not leave within most
// loses it: reading a hostile process may never return, and others wait.
func enter(ctx context.Context, places chan struct{}, most time.Duration) (leave func(), err error) {
	select {
	case places <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	free := sync.OnceFunc(func() { <-places })
	late := time.AfterFunc(most, free)
	return func() { late.Stop(); free() }, nil
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
