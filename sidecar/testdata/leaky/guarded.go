// SPDX-License-Identifier: Apache-2.0

//go:build guarded

package main

import (
	"log"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/agent"
	"github.com/memguard/memguard-go/memguard/evidence"
)

func guard(dir string) {
	g := memguard.Start(memguard.Config{Evidence: &evidence.Store{Dir: dir}})
	if _, err := agent.Serve(g, agent.Config{}); err != nil {
		log.Fatal(err)
	}
}
