// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// requests is what is said about goroutines that contexts, HTTP and pipes leave behind.
var requests = []Claim{
	{
		Name: "context-goroutine", Article: "3.1",
		Says:       "A context that is never cancelled is a leaked goroutine.",
		Expect:     False,
		Why:        "WithCancel, WithTimeout and AfterFunc start none; only a parent of another package's type takes one (context/context.go, propagateCancel). What leaks is heap: timers, and children in the parent.",
		Signal:     "heap profile: context.WithCancel, time.AfterFunc; goroutines in `(*cancelCtx).propagateCancel.func2` for foreign parents",
		experiment: test(measureContexts, judgeContexts),
	},
	{
		Name: "http-cancel", Article: "3.1",
		Says:       "A client that goes away leaves a goroutine in serverHandler.ServeHTTP, because nobody cancels its context.",
		Expect:     False,
		Why:        "The server cancels the request's context when it reads the end of the connection (net/http/server.go, backgroundRead). What stays is a handler that does not listen to it.",
		Signal:     "goroutines with a handler of one's own below serverHandler.ServeHTTP, whose number grows",
		experiment: test(measureGone, judgeGone),
	},
	{
		Name: "http-request-cancel", Article: "3.2",
		Says:       "The transport leaks unless it calls req.Cancel().",
		Expect:     False,
		Why:        "Request.Cancel is a channel field, long deprecated, and cannot be called. The leak of a client is a response body that is neither read to its end nor closed.",
		Signal:     "goroutines in `(*persistConn).readLoop` and `writeLoop`, which come in pairs",
		experiment: test(measureBodies, judgeBodies),
	},
	{
		Name: "closed-pipe", Article: "3.3",
		Says:       "\"io: read/write on closed pipe\" tells of goroutines left behind.",
		Expect:     False,
		Why:        "It is what a reader or writer gets instead of blocking (io/pipe.go). The leak is a pipe that nobody closes.",
		Signal:     "goroutines in `io.(*pipe).read` and `io.(*pipe).write`",
		experiment: test(measurePipes, judgePipes),
	},
}

type contextFigures struct {
	Each    int `json:"of_each"`
	Started int `json:"goroutines_started"` // for all of them
	Foreign int `json:"goroutines_of_foreign_parent"`
}

// foreign is a context of another package's type, that can be cancelled.
type foreign struct {
	context.Context
	done chan struct{}
}

func (f foreign) Done() <-chan struct{} { return f.done }

func (f foreign) Err() error {
	select {
	case <-f.done:
		return context.Canceled
	default:
		return nil
	}
}

func measureContexts() (f contextFigures, err error) {
	f.Each = 1000
	parent, cancel := context.WithCancel(context.Background())
	defer cancel()
	var never []context.CancelFunc // called
	before := runtime.NumGoroutine()
	for range f.Each {
		a, cancelA := context.WithCancel(parent)
		b, cancelB := context.WithTimeout(a, time.Hour)
		context.AfterFunc(b, func() {})
		never = append(never, cancelA, cancelB)
	}
	f.Started = runtime.NumGoroutine() - before
	other := foreign{context.Background(), make(chan struct{})}
	defer close(other.done)
	for range f.Each {
		_, cancel := context.WithCancel(other)
		never = append(never, cancel)
	}
	f.Foreign = runtime.NumGoroutine() - before - f.Started
	runtime.KeepAlive(never)
	return f, nil
}

func judgeContexts(all []contextFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("%d each of WithCancel, WithTimeout and AfterFunc, none cancelled: %d goroutines more. %d of WithCancel below a parent of a foreign type: %d.",
		f.Each, f.Started, f.Each, f.Foreign)
	switch {
	case f.Started == 0:
		return False, happened
	case f.Started < f.Each:
		return Partly, happened
	}
	return True, happened
}

// serve runs a server on the loopback address until the returned function is called.
func serve(h http.HandlerFunc) (url string, stop func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("%w: a server on the loopback address: %w", errNotHere, err)
	}
	s := &http.Server{Handler: h}
	go func() { _ = s.Serve(l) }() // ends with ErrServerClosed
	return "http://" + l.Addr().String(), s.Close, nil
}

type goneFigures struct {
	Clients   int `json:"clients_gone"`
	Listening int `json:"handlers_left_that_listen"` // to their context
	Deaf      int `json:"handlers_left_that_do_not"`
}

func measureGone() (f goneFigures, err error) {
	f.Clients = 10
	release := make(chan struct{})
	var listening, deaf atomic.Int64
	url, stop, err := serve(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/deaf" {
			deaf.Add(1)
			<-release
			deaf.Add(-1)
			return
		}
		listening.Add(1)
		<-r.Context().Done()
		listening.Add(-1)
	})
	if err != nil {
		return f, err
	}
	defer stop()
	defer close(release)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	client := &http.Client{Transport: &http.Transport{Proxy: nil}}
	var group sync.WaitGroup
	for i := range 2 * f.Clients {
		group.Go(func() {
			path := []string{"/listening", "/deaf"}[i%2]
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+path, nil)
			if err != nil {
				return
			}
			if resp, err := client.Do(req); err == nil {
				resp.Body.Close()
			}
		})
	}
	n := int64(f.Clients)
	if !eventually(10*time.Second, func() bool { return listening.Load() == n && deaf.Load() == n }) {
		return f, fmt.Errorf("%d and %d of %d requests reached their handlers", listening.Load(), deaf.Load(), n)
	}
	cancel() // the clients go away
	group.Wait()
	eventually(5*time.Second, func() bool { return listening.Load() == 0 })
	f.Listening, f.Deaf = int(listening.Load()), int(deaf.Load())
	return f, nil
}

func judgeGone(all []goneFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("%d clients went away: of the handlers that listen to their context %d are left, of those that do not %d.", f.Clients, f.Listening, f.Deaf)
	switch {
	case f.Listening == 0:
		return False, happened
	case f.Listening < f.Clients:
		return Partly, happened
	}
	return True, happened
}

type bodyFigures struct {
	Cancel string `json:"type_of_request_cancel"`
	Bodies int    `json:"bodies_not_closed"`
	Open   int    `json:"loops_while_open"`
	Closed int    `json:"loops_when_closed"`
}

func measureBodies() (f bodyFigures, err error) {
	if field, ok := reflect.TypeFor[http.Request]().FieldByName("Cancel"); ok {
		f.Cancel = field.Type.String()
	}
	url, stop, err := serve(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, mib)) })
	if err != nil {
		return f, err
	}
	defer stop()
	f.Bodies = 5
	client := &http.Client{Transport: &http.Transport{Proxy: nil}}
	var bodies []io.Closer
	for range f.Bodies {
		resp, err := client.Get(url)
		if err != nil {
			return f, err
		}
		bodies = append(bodies, resp.Body)
	}
	if f.Open, err = loops(); err != nil {
		return f, err
	}
	for _, b := range bodies {
		b.Close()
	}
	eventually(5*time.Second, func() bool { f.Closed, err = loops(); return err != nil || f.Closed == 0 })
	return f, err
}

// loops counts the goroutines of the HTTP client's connections.
func loops() (int, error) {
	r, err := stacksWith("net/http.(*persistConn).readLoop")
	if err != nil {
		return 0, err
	}
	w, err := stacksWith("net/http.(*persistConn).writeLoop")
	return r + w, err
}

func judgeBodies(all []bodyFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("Request.Cancel is of type %s. %d responses whose bodies nobody closes: %d goroutines of the transport; %d when they are closed.", f.Cancel, f.Bodies, f.Open, f.Closed)
	if strings.HasPrefix(f.Cancel, "func(") && f.Closed > 0 {
		return True, happened
	}
	if f.Open > 0 && f.Closed == 0 {
		return False, happened
	}
	return Unclear, happened
}

type pipeFigures struct {
	Pipes  int   `json:"pipes"`
	Open   int   `json:"goroutines_while_open"`
	Errors int64 `json:"closed_pipe_errors"`
	Closed int   `json:"goroutines_when_closed"`
}

func measurePipes() (f pipeFigures, err error) {
	f.Pipes = 5
	var pipes []*io.PipeReader
	var told atomic.Int64
	tell := func(err error) {
		if errors.Is(err, io.ErrClosedPipe) {
			told.Add(1)
		}
	}
	for range f.Pipes {
		r, w := io.Pipe()
		pipes = append(pipes, r)
		go func() { _, err := w.Write(make([]byte, 1)); tell(err) }()
		r2, _ := io.Pipe()
		pipes = append(pipes, r2)
		go func() { _, err := r2.Read(make([]byte, 1)); tell(err) }()
	}
	if !eventually(5*time.Second, func() bool { f.Open, err = inPipes(); return err != nil || f.Open == 2*f.Pipes }) || err != nil {
		return f, fmt.Errorf("%d goroutines wait in %d pipes: %w", f.Open, 2*f.Pipes, err)
	}
	for _, p := range pipes {
		p.Close()
	}
	eventually(5*time.Second, func() bool {
		f.Closed, err = inPipes()
		return err != nil || f.Closed == 0 && told.Load() == int64(2*f.Pipes)
	})
	f.Errors = told.Load()
	return f, err
}

// inPipes counts goroutines that are in a pipe.
func inPipes() (int, error) {
	r, err := stacksWith("io.(*pipe).read")
	if err != nil {
		return 0, err
	}
	w, err := stacksWith("io.(*pipe).write")
	return r + w, err
}

func judgePipes(all []pipeFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("%d goroutines waited in pipes that nobody closed. Closed, %d of them got %q and %d were left.", f.Open, f.Errors, io.ErrClosedPipe, f.Closed)
	switch {
	case f.Errors == 0:
		return Unclear, happened
	case f.Closed == 0:
		return False, happened
	case f.Closed < f.Open:
		return Partly, happened
	}
	return True, happened
}
