// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPeer(t *testing.T) {
	t.Parallel()
	n, err := NewAuthenticator(Config{Peers: []Peer{{UID: os.Getuid(), Name: "me", Groups: []string{"ops"}}}}, nil)
	require.NoError(t, err)
	stranger, err := NewAuthenticator(Config{Peers: []Peer{{UID: os.Getuid() + 1, Name: "other"}}}, nil)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	type answer struct {
		Me, Stranger User
		Caller       Caller
	}
	s := &http.Server{ConnContext: ConnContext, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var a answer
		a.Me, _ = n.Authenticate(r)
		a.Stranger, _ = stranger.Authenticate(r)
		a.Caller, _ = CallerOf(r.Context())
		_ = json.NewEncoder(w).Encode(a)
	})}
	go s.Serve(l)
	defer s.Close()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://x/")
	require.NoError(t, err)
	defer resp.Body.Close()
	var got answer
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&got))
	assert.Equal(t, User{Name: "me", Groups: []string{"ops", AuthenticatedGroup}, How: HowPeer}, got.Me)
	assert.Equal(t, Anonymous(), got.Stranger)
	assert.Equal(t, Caller{UID: os.Getuid(), PID: os.Getpid()}, got.Caller)
}

func TestPeersRefused(t *testing.T) {
	t.Parallel()
	for want, peers := range map[string][]Peer{
		"peers[0]: uid -1":           {{UID: -1, Name: "a"}},
		"peers[0]: uid 65534":        {{UID: 65534, Name: "a"}},
		"peers[1]: uid 0 again":      {{UID: 0, Name: "a"}, {UID: 0, Name: "b"}},
		"peers[0]: a name is empty":  {{UID: 0}},
		`peers[0]: name "system:una`: {{UID: 0, Name: "a", Groups: []string{AnonymousGroup}}},
	} {
		_, err := NewAuthenticator(Config{Peers: peers}, nil)
		require.ErrorContains(t, err, want)
	}
	_, ok := CallerOf(ConnContext(t.Context(), &net.TCPConn{}))
	assert.False(t, ok)
}
