// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"testing"

	"github.com/memguard/memguard-go/sidecar/attach"
	"github.com/memguard/memguard-go/sidecar/auth"
	"github.com/memguard/memguard-go/sidecar/config"
	"github.com/stretchr/testify/assert"
)

// The first peer opens the socket to others and the last one closes it: it is made
// once, at the start.
func TestNeedsRestart(t *testing.T) {
	t.Parallel()
	with := func(socket string, peers ...auth.Peer) *config.Config {
		return &config.Config{Web: config.Web{Socket: socket}, Auth: auth.Config{Peers: peers}}
	}
	root, other := auth.Peer{UID: 0, Name: "root"}, auth.Peer{UID: 1, Name: "other"}
	for name, test := range map[string]struct {
		was, now *config.Config
		want     string
	}{
		"first peer":   {with("/s"), with("/s", root), "auth.peers"},
		"last peer":    {with("/s", root), with("/s"), "auth.peers"},
		"another peer": {with("/s", root), with("/s", other), ""},
		"no socket":    {with(""), with("", root), ""},
		"the socket":   {with("/s"), with("/t"), "web: changed; restart"},
	} {
		s := &Sidecar{}
		s.config.Store(test.was)
		if err := s.needsRestart(test.now); test.want == "" {
			assert.NoError(t, err, name)
		} else {
			assert.ErrorContains(t, err, test.want, name)
		}
	}
}

// Without a configuration an end is held up for as long as package attach says, which
// package config does not know.
func TestDefaultHold(t *testing.T) {
	t.Parallel()
	assert.Equal(t, attach.DefaultHold, config.Default().ExitHold)
}
