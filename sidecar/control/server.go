// SPDX-License-Identifier: Apache-2.0

package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/memguard/memguard-go/sidecar/audit"
	"github.com/memguard/memguard-go/sidecar/auth"
	"github.com/memguard/memguard-go/sidecar/incident"
	"github.com/memguard/memguard-go/sidecar/watch"
)

// Config says what is served, and to whom. The first five are needed.
type Config struct {
	Watcher *watch.Watcher
	Auth    *auth.Authenticator
	Authz   *auth.Authorizer
	Audit   *audit.Log
	Policy  *audit.PolicyFile

	Incidents *incident.Store // nil: none are kept
	Namespace string          // in the paths; empty is "default"
	Writes    bool            // whether services are given orders; false: whatever the rules allow, none is taken
	StateDir  string          // for the journal; empty: writes are refused, for after a kill nobody would know of them
	Logger    *slog.Logger
	Limits    Limits
}

// Limits bound what callers may do. The zero of each is its default.
type Limits struct {
	WritesPerMinute  float64 // of one caller: 10
	WriteBurst       int     // 10
	Streams          int     // event streams and long polls at once, of all callers: 1000
	StreamsPerCaller int     // of these: 100
}

// Server is the control API: an [http.Handler] for /apis/memguard.dev/v1alpha1 and
// /openapi/v3.
type Server struct {
	watcher   *watch.Watcher
	store     *incident.Store
	gate      atomic.Pointer[gate]
	audit     *audit.Log
	policy    *audit.PolicyFile
	namespace string
	orders    bool // are taken
	log       *slog.Logger
	origin    *http.CrossOriginProtection

	writes  *limiter
	denials *limiter
	floods  floods // of denials

	patience time.Duration // with a guard
	reading  time.Duration // for a body to arrive
	piece    time.Duration // for a piece of a stream to be taken

	journal *journal // nil: there is none
	boot    string   // id of this machine's start; empty is unknown
	turns   [64]chan struct{}
	wake    chan struct{} // the journal has something new

	streams *places
	looks   chan struct{}
	life    context.Context // ends when Run does, and the streams with it
	end     context.CancelFunc
}

const (
	streamsAtOnce   = 1000
	streamsOfCaller = 100
	looksAtOnce     = 4 // snapshots, profiles and files
)

// New opens the journal and makes the handler. [Server.Run] does what is to be
// done without being asked.
func New(cfg Config) (*Server, error) {
	if cfg.Watcher == nil || cfg.Auth == nil || cfg.Authz == nil || cfg.Audit == nil || cfg.Policy == nil {
		return nil, errors.New("control: Watcher, Auth, Authz, Audit and Policy are needed")
	}
	l := cfg.Limits
	if l.WritesPerMinute < 0 || l.WriteBurst < 0 || l.Streams < 0 || l.StreamsPerCaller < 0 {
		return nil, fmt.Errorf("control: limits below 0: %+v", l)
	}
	s := &Server{
		watcher: cfg.Watcher, store: cfg.Incidents, audit: cfg.Audit, policy: cfg.Policy,
		namespace: cmp.Or(cfg.Namespace, "default"), orders: cfg.Writes, log: cfg.Logger, origin: http.NewCrossOriginProtection(),
		writes:   newLimiter(cmp.Or(l.WritesPerMinute, 10), cmp.Or(l.WriteBurst, 10)),
		denials:  newLimiter(denialsPerMinute, denialsBurst),
		patience: patience, reading: readTimeout, piece: pieceTimeout,
		wake:    make(chan struct{}, 1),
		streams: newPlaces(cmp.Or(l.Streams, streamsAtOnce), cmp.Or(l.StreamsPerCaller, streamsOfCaller)),
		looks:   make(chan struct{}, looksAtOnce),
	}
	s.life, s.end = context.WithCancel(context.Background())
	s.SetAuth(cfg.Auth, cfg.Authz)
	for i := range s.turns {
		s.turns[i] = make(chan struct{}, 1)
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // random(4)
	s.boot = strings.TrimSpace(string(boot))
	if cfg.StateDir != "" {
		var err error
		if s.journal, err = openJournal(cfg.StateDir, s.boot); err != nil {
			return nil, fmt.Errorf("control: the journal: %w", err)
		}
		if n := s.journal.skipped; n > 0 {
			s.log.Warn("memguard: control: lines of the journal could not be read", slog.Int("lines", n), slog.String("file", s.journal.path))
		}
	}
	return s, nil
}

// Run ends the overrides whose time is over, until ctx ends: those of an earlier
// sidecar too. Streams end with it, and the journal is closed. (The guard in the
// service ends an override at its time also when no sidecar runs. What Run adds
// is that it is known, and a second hand where the guard's failed.) Each minute it
// records the denied calls that were not recorded one by one.
func (s *Server) Run(ctx context.Context) error {
	var told sync.WaitGroup
	told.Go(func() { s.tellFloods(ctx) })
	defer told.Wait()
	defer s.end()
	if s.journal == nil {
		<-ctx.Done()
		return nil
	}
	s.keep(ctx)
	if err := s.journal.close(); err != nil {
		return fmt.Errorf("control: the journal: %w", err)
	}
	return nil
}

// Close records what is counted and not on record yet. It is for after the last
// request, and before the audit log is closed.
func (s *Server) Close() error {
	if lost, err := s.recordFloods(); err != nil {
		return fmt.Errorf("control: %d denied calls are not on record: %w", lost, err)
	}
	return nil
}
