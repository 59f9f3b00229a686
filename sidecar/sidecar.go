// SPDX-License-Identifier: Apache-2.0

// Package sidecar puts the parts together: it watches targets, keeps incidents,
// serves page, metrics and API, and reads its configuration again when told to.
package sidecar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/memguard/memguard-go/sidecar/audit"
	"github.com/memguard/memguard-go/sidecar/auth"
	"github.com/memguard/memguard-go/sidecar/config"
	"github.com/memguard/memguard-go/sidecar/control"
	"github.com/memguard/memguard-go/sidecar/incident"
	"github.com/memguard/memguard-go/sidecar/metrics"
	"github.com/memguard/memguard-go/sidecar/watch"
)

// Options are what a sidecar runs with.
type Options struct {
	Config  *config.Config                 // complete
	Load    func() (*config.Config, error) // reads it again, complete
	Reload  <-chan os.Signal               // asks for that
	Logger  *slog.Logger
	Version string
}

// Sidecar is one that runs.
type Sidecar struct {
	o       Options
	log     *slog.Logger
	watcher *watch.Watcher
	store   *incident.Store
	poster  *incident.Poster
	audit   *audit.Log
	policy  *audit.PolicyFile
	web     *auth.Web
	control *control.Server
	metrics *metrics.Collector
	config  atomic.Pointer[config.Config] // in force
	reloads reloads
}

// Run opens everything, and watches and serves until ctx ends. An error is that it
// could not begin, or that it can no longer serve.
func Run(ctx context.Context, o Options) error {
	s, err := open(o)
	if err != nil {
		return err
	}
	defer s.close()
	return s.run(ctx)
}

// Check opens what a configuration names, as Run does, and begins nothing.
func Check(c *config.Config) error {
	var errs []error
	web, err := openWeb(c)
	errs = append(errs, err)
	if err == nil {
		_, _, err = known(c, web)
		errs = append(errs, err)
	}
	if c.Audit.PolicyFile != "" {
		_, err := audit.OpenPolicy(c.Audit.PolicyFile)
		errs = append(errs, err)
	}
	_, err = hooks(c)
	errs = append(errs, err)
	if _, err := os.Stat(c.StateDir); err == nil { // else it is made
		if err := privateDir(c.StateDir); err != nil {
			errs = append(errs, fmt.Errorf("state_dir: %w", err))
		}
	}
	return errors.Join(errs...)
}

func openWeb(c *config.Config) (*auth.Web, error) {
	if c.Web.ConfigFile == "" {
		return nil, nil
	}
	return auth.OpenWeb(c.Web.ConfigFile)
}

func open(o Options) (_ *Sidecar, err error) {
	c := o.Config
	s := &Sidecar{o: o, log: o.Logger}
	s.config.Store(c)
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := privateDir(c.StateDir); err != nil {
		return nil, fmt.Errorf("state_dir: %w", err)
	}
	if s.web, err = openWeb(c); err != nil {
		return nil, err
	}
	who, rules, err := known(c, s.web)
	if err != nil {
		return nil, err
	}
	if s.audit, err = audit.OpenLog(audit.LogConfig{
		Path: c.Audit.Log, MaxSize: int64(c.Audit.MaxSize),
		MaxAge: time.Duration(c.Audit.MaxAgeDays) * 24 * time.Hour, MaxBackups: c.Audit.MaxFiles,
	}); err != nil {
		return nil, err
	}
	if s.policy, err = audit.OpenPolicy(c.Audit.PolicyFile); err != nil {
		return nil, err
	}
	if err := s.openIncidents(c); err != nil {
		return nil, err
	}
	if s.watcher, err = watch.New(watch.Config{
		Rules: c.Targets, Interval: c.Interval, Hold: cmp.Or(c.ExitHold, -1), // its 0 is the default
		OOMHold: c.OOMHold, OOMDir: filepath.Join(c.StateDir, "oom-hold"), ExecState: c.ExecState, Died: s.died, Logger: s.log,
	}); err != nil {
		return nil, err
	}
	if s.control, err = control.New(control.Config{
		Watcher: s.watcher, Auth: who, Authz: rules, Audit: s.audit, Policy: s.policy,
		Incidents: s.store, Namespace: c.Namespace, Writes: c.Writes.Enabled, StateDir: c.StateDir, Logger: s.log,
		Limits: control.Limits{WritesPerMinute: c.Writes.PerMinute, WriteBurst: c.Writes.Burst},
	}); err != nil {
		return nil, err
	}
	s.reloads.done(nil)
	s.metrics = metrics.NewCollector(metrics.Config{Targets: s.watcher.Targets, Reload: s.reloads.last, Posts: s.poster.Stats})
	return s, nil
}

// close closes what open has opened, in the order in which it is needed.
func (s *Sidecar) close() {
	if s.store != nil {
		if err := s.store.Close(); err != nil {
			s.log.Error("closing the store of incidents", "error", err)
		}
	}
	if s.control != nil {
		if err := s.control.Close(); err != nil {
			s.log.Error("closing the control API", "error", err)
		}
	}
	if s.audit != nil {
		if err := s.audit.Close(); err != nil {
			s.log.Error("closing the audit log", "error", err)
		}
	}
}

// run runs all loops until ctx ends or one that nothing works without fails.
func (s *Sidecar) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	servers, err := s.listen(ctx)
	if err != nil {
		return err
	}
	var loops sync.WaitGroup
	start := func(what string, loop func(context.Context) error) {
		loops.Go(func() {
			if err := loop(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	start("watching", s.watcher.Run)
	start("control", s.control.Run)
	start("webhooks", s.poster.Run)
	start("metrics", func(ctx context.Context) error { s.metrics.Follow(ctx, s.watcher.Events); return nil })
	start("configuration", s.follow)
	for _, server := range servers {
		start("serving "+server.addr, server.serve)
	}
	<-ctx.Done()
	loops.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
