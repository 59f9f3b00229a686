// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A listener has ended when the requests are answered that it took: what they do is
// recorded before the log is closed.
func TestServeEndsAfterItsRequests(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var answered atomic.Bool
	taken := make(chan struct{})
	s := &Sidecar{log: slog.New(slog.DiscardHandler)}
	v := s.server(ctx, "", l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(taken)
		<-ctx.Done()
		time.Sleep(200 * time.Millisecond) // on a disk, say
		answered.Store(true)
	}))
	ended := make(chan error, 1)
	go func() { ended <- v.serve(ctx) }()
	go func() {
		if resp, err := http.Get("http://" + l.Addr().String()); err == nil {
			resp.Body.Close()
		}
	}()
	<-taken
	cancel()
	require.NoError(t, <-ended)
	assert.True(t, answered.Load())
}
