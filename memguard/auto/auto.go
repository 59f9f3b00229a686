// SPDX-License-Identifier: Apache-2.0

// Package auto guards the process that imports it:
//
//	import _ "github.com/memguard/memguard-go/memguard/auto"
//
// A tenth of a second after the program's start, when main has made its settings,
// a guard begins with safe defaults: the Go memory limit follows what the cgroup
// leaves, idle memory is given back where that pays, and what is found goes to
// slog's default logger, as it is then. It serves an agent, so that "memguard
// explain --pid N", "top" and "ledger" see from inside. What the service set
// itself is what the guard goes back to. Nothing here ends the service or keeps
// it waiting.
//
// The environment says what it may do:
//
//	MEMGUARD=off        nothing at all
//	MEMGUARD=dry-run    watch, log and plan, but change nothing
//	MEMGUARD=on         the default
//	MEMGUARD_DIR=DIR    keep evidence in DIR: profiles on the way to the limit, and
//	                    the black box, which survives the kernel's kill. At its next
//	                    start the service logs how its predecessor died. Nothing
//	                    tells the guard that main returns: after that the line says
//	                    that memory was not why.
//	MEMGUARD_LIMIT=512MiB
//	                    hold this limit where no smaller one is enforced: see
//	                    [memguard.Config.Limit]
//	MEMGUARD_AGENT=off  serve no agent
//
// A value that is none of these is logged. MEMGUARD then means dry-run: who
// wrote it wanted something else than the default.
//
// A service that sheds load, couples its circuit breaker, or shows metrics calls
// [memguard.Start] itself instead.
package auto

import (
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/agent"
	"github.com/memguard/memguard-go/memguard/evidence"
)

// startAfter lets main set GOGC, the memory limit and slog's default first.
const startAfter = 100 * time.Millisecond

func init() {
	if os.Getenv("MEMGUARD") != "off" {
		time.AfterFunc(startAfter, func() { begin(os.Getenv) })
	}
}

// running is what was begun. Nobody ends it but the process's end.
type running struct {
	guard *memguard.Guard // nil when the environment wants none
	agent *agent.Server   // nil likewise, or where there can be none
}

// begin does what the environment says.
func begin(getenv func(string) string) (r running) {
	log := slog.New(lazy{})
	defer func() {
		if p := recover(); p != nil { // a defect of ours must not be the service's end
			log.Error("memguard: not started", slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
		}
	}()
	cfg := memguard.Config{Logger: log}
	switch v := getenv("MEMGUARD"); v {
	case "", "on":
	case "off":
		return r
	case "dry-run":
		cfg.DryRun = true
	default:
		cfg.DryRun = true
		log.Warn("memguard: MEMGUARD is none of on, dry-run, off: taken as dry-run", slog.String("value", v))
	}
	if dir := getenv("MEMGUARD_DIR"); dir != "" {
		cfg.Evidence = &evidence.Store{Dir: dir}
	}
	if v := getenv("MEMGUARD_LIMIT"); v != "" {
		var err error
		if cfg.Limit, err = memguard.ParseBytes(v); err != nil {
			log.Warn("memguard: MEMGUARD_LIMIT is no size: only a limit that is enforced is held", slog.Any("error", err))
		}
	}
	r.guard = memguard.Start(cfg)
	switch v := getenv("MEMGUARD_AGENT"); v {
	case "off":
		return r
	case "", "on":
	default:
		log.Warn("memguard: MEMGUARD_AGENT is none of on, off: taken as on", slog.String("value", v))
	}
	server, err := agent.Serve(r.guard, agent.Config{Logger: log})
	if err != nil {
		log.Info("memguard: no agent: the service can be looked at from outside only", slog.Any("error", err))
		return r
	}
	r.agent = server
	return r
}
