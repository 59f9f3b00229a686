// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/memguard/memguard-go/sidecar/auth"
	"github.com/memguard/memguard-go/sidecar/config"
)

// known says who is known and who may do what by a configuration.
func known(c *config.Config, web *auth.Web) (*auth.Authenticator, *auth.Authorizer, error) {
	a, err := auth.NewAuthenticator(c.Auth, web)
	if err != nil {
		return nil, nil, err
	}
	z, err := auth.NewAuthorizer(c.Auth)
	return a, z, err
}

// reloads remembers how reading the configuration went.
type reloads struct {
	one sync.Mutex // one reload at a time

	mu     sync.Mutex
	failed error
	read   time.Time // of the configuration in force
}

func (r *reloads) done(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed = err; err == nil {
		r.read = time.Now()
	}
}

func (r *reloads) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

func (r *reloads) last() (ok bool, read time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed == nil, r.read
}

// follow reads the configuration again when a signal asks for it.
func (s *Sidecar) follow(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.o.Reload:
			_ = s.readAgain() // it is logged
		}
	}
}

// readAgain reads the configuration and puts it into force, whole or not at all.
func (s *Sidecar) readAgain() error {
	s.reloads.one.Lock()
	defer s.reloads.one.Unlock()
	err := s.apply()
	s.reloads.done(err)
	if err != nil {
		s.log.Error("the configuration is not changed", "error", err)
		return err
	}
	s.log.Info("the configuration is read again", "targets", len(s.config.Load().Targets))
	return nil
}

func (s *Sidecar) apply() error {
	c, err := s.o.Load()
	if err != nil {
		return err
	}
	if err := s.needsRestart(c); err != nil {
		return err
	}
	who, rules, err := known(c, s.web)
	if err != nil {
		return err
	}
	targets, err := hooks(c)
	if err != nil {
		return err
	}
	if err := s.watcher.SetRules(c.Targets); err != nil {
		return err
	}
	s.poster.SetHooks(targets)
	s.control.SetAuth(who, rules)
	s.config.Store(c)
	return nil
}

// needsRestart refuses what cannot change while we run, rather than to change half.
func (s *Sidecar) needsRestart(c *config.Config) error {
	was := *s.config.Load()
	now := *c
	if c.Web.Socket != "" && (len(was.Auth.Peers) > 0) != (len(now.Auth.Peers) > 0) {
		return errors.New("auth.peers: with the first one web.socket is open to others, without any it is not; restart to have it")
	}
	for _, x := range []*config.Config{&was, &now} { // these may change
		x.Targets, x.Auth, x.Webhooks = nil, auth.Config{}, nil
	}
	if reflect.DeepEqual(was, now) {
		return nil
	}
	var errs []error
	a, b := reflect.ValueOf(was), reflect.ValueOf(now)
	for i := range a.NumField() {
		if !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			errs = append(errs, fmt.Errorf("%s: changed; restart to have it", a.Type().Field(i).Tag.Get("yaml")))
		}
	}
	return errors.Join(errs...)
}

// reload is POST /-/reload.
func (s *Sidecar) reload(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost && r.Method != http.MethodPut {
		w.Header().Set("Allow", "POST, PUT")
		http.Error(w, "POST or PUT reads the configuration again", http.StatusMethodNotAllowed)
		return
	}
	if err := s.readAgain(); err != nil {
		http.Error(w, "the configuration is not changed: "+err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintln(w, "the configuration is read again")
}
