// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/memguard/memguard-go/sidecar/config"
	"github.com/memguard/memguard-go/sidecar/incident"
	"github.com/memguard/memguard-go/sidecar/watch"
)

func (s *Sidecar) openIncidents(c *config.Config) (err error) {
	s.store, err = incident.OpenStore(filepath.Join(c.StateDir, config.IncidentsDir), incident.Limits{
		Count: c.Incidents.MaxCount, Bytes: int64(c.Incidents.MaxSize),
	})
	if err != nil {
		return err
	}
	targets, err := hooks(c)
	if err != nil {
		return err
	}
	s.poster, err = incident.NewPoster(s.store, targets, s.log)
	return err
}

// hooks are the webhooks of a configuration.
func hooks(c *config.Config) (hs []incident.Hook, err error) {
	for i, h := range c.Webhooks {
		hook := incident.Hook{URL: h.URL, TokenFile: h.TokenFile, CAFile: h.CAFile, Link: h.Link}
		if err := hook.Check(); err != nil {
			return nil, fmt.Errorf("webhooks[%d]: %w", i, err)
		}
		hs = append(hs, hook)
	}
	return hs, nil
}

// died makes the report of a process that has ended; the watcher calls it for one
// after the other. That something in it goes wrong ends nothing.
func (s *Sidecar) died(e *incident.Evidence) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("a report failed", "target", e.Target, "pid", e.Process.PID, "panic", p)
		}
	}()
	r, files := incident.New(e, incident.ReadMeta(os.Getenv, s.config.Load().PodInfo))
	s.metrics.Incident(e.Target, r.Cause)
	note := watch.Event{Target: e.Target, PID: e.Process.PID, Kind: "incident", Text: r.Verdict}
	id, err := s.store.Add(r, files)
	if err != nil {
		s.log.Error("an incident report is not kept", "target", e.Target, "pid", e.Process.PID, "verdict", r.Verdict, "error", err)
		s.watcher.Note(watch.Event{Target: e.Target, PID: e.Process.PID, Kind: watch.Lost, Text: "its incident report is not kept: " + err.Error()})
	} else {
		note.Incident = id
		s.log.Warn("a process has ended", "target", e.Target, "pid", e.Process.PID, "cause", r.Cause, "verdict", r.Verdict, "incident", id)
	}
	s.watcher.Note(note)
}
