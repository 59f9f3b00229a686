// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"context"
	"errors"
	"io"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"
)

// global is a channel that is always reachable: the collector cannot prove that
// nobody sends.
var global = make(chan int)

// each calls f per times in a round.
func each(f func()) func() func(int) {
	return func() func(int) {
		return func(int) {
			for range per {
				f()
			}
		}
	}
}

var leaks = []Program{
	{Name: "receive", Leaks: true, Shape: "chan-receive", New: each(func() {
		result := make(chan int)
		go func() { <-result }() // creates receive
	})},
	{Name: "send-after-timeout", Leaks: true, Shape: "chan-send", New: each(func() {
		result := make(chan int)
		go func() { result <- 1 }() // creates send-after-timeout
		timeout := make(chan struct{})
		close(timeout)
		<-timeout // the caller gave up before it looked at the result
	})},
	{Name: "range-not-closed", Leaks: true, Shape: "chan-receive", New: each(func() {
		jobs := make(chan int)
		go func() { // creates range-not-closed
			for range jobs {
			}
		}()
		jobs <- 1
	})},
	{Name: "receive-global", Leaks: true, Shape: "chan-receive", New: each(func() {
		go receiveGlobal() // creates receive-global
	})},
	{Name: "select-without-done", Leaks: true, Shape: "select-loop", New: each(func() {
		a, b := make(chan int), make(chan int)
		go func() { // creates select-without-done
			for {
				select {
				case <-a:
				case <-b:
				}
			}
		}()
		a <- 1
	})},
	{Name: "ticker-loop", Leaks: true, Shape: "chan-receive", New: each(func() {
		go func() { // creates ticker-loop
			for range time.NewTicker(time.Hour).C {
			}
		}()
	})},
	{Name: "ticker-select", Leaks: true, Shape: "select-loop", New: each(func() {
		stop := make(chan struct{})
		go func() { // creates ticker-select
			t := time.NewTicker(5 * time.Millisecond) // wakes all the time
			for {
				select {
				case <-t.C:
				case <-stop:
					return
				}
			}
		}()
	})},
	{Name: "sleep-loop", Leaks: true, Shape: "sleep-loop", New: each(func() {
		go func() { // creates sleep-loop
			for {
				time.Sleep(time.Hour)
			}
		}()
	})},
	{Name: "mutex-not-unlocked", Leaks: true, Shape: "mutex", New: func() func(int) {
		var mu sync.Mutex
		update := func(fail bool) error {
			mu.Lock()
			if fail {
				return errors.New("returns with the lock held")
			}
			mu.Unlock()
			return nil
		}
		return func(round int) {
			if round == 0 {
				_ = update(true)
			}
			for range per {
				go update(false) // creates mutex-not-unlocked
			}
		}
	}},
	{Name: "rwmutex-reader", Leaks: true, Shape: "rwmutex", New: func() func(int) {
		var mu sync.RWMutex
		mu.Lock()
		return func(int) {
			for range per {
				go func() { // creates rwmutex-reader
					mu.RLock()
					defer mu.RUnlock()
				}()
			}
		}
	}},
	{Name: "wait-group", Leaks: true, Shape: "wait-group", New: each(func() {
		var wg sync.WaitGroup
		wg.Add(2)
		go func() { defer wg.Done() }()
		go func() { wg.Wait() }() // creates wait-group
	})},
	{Name: "condition", Leaks: true, Shape: "condition", New: each(func() {
		c := sync.NewCond(new(sync.Mutex))
		go func() { // creates condition
			c.L.Lock()
			defer c.L.Unlock()
			c.Wait()
		}()
	})},
	{Name: "nil-channel", Leaks: true, Shape: "chan-receive", New: each(func() {
		var forgotten chan int
		go func() { <-forgotten }() // creates nil-channel
	})},
	{Name: "empty-select", Leaks: true, Shape: "select-loop", New: each(func() {
		go func() { select {} }() // creates empty-select
	})},
	{Name: "pipe-read", Leaks: true, Shape: "pipe-read", New: each(func() {
		r, w := io.Pipe()
		go func() { _, _ = io.Copy(io.Discard, r) }() // creates pipe-read
		_, _ = w.Write([]byte("not closed"))
	})},
	{Name: "pipe-write", Leaks: true, Shape: "pipe-write", New: each(func() {
		r, w := io.Pipe()
		go func() { _, _ = w.Write(make([]byte, 1<<20)) }() // creates pipe-write
		_, _ = r.Read(make([]byte, 10))
	})},
	{Name: "http-body-unread", Leaks: true, Shape: "http-body-unread", Creator: "net/http.(*Transport).dialConn", New: func() func(int) {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(w, strings.NewReader(strings.Repeat("x", 1<<16)))
		}))
		client := &http.Client{Transport: &http.Transport{}}
		return func(int) {
			for range per {
				resp, err := client.Get(srv.URL)
				if err != nil {
					panic(err)
				}
				_ = resp.StatusCode // and nobody closes the body
			}
		}
	}},
	{Name: "http-transport-per-request", Leaks: true, Shape: "http-transport-per-request", Creator: "net/http.(*Transport).dialConn", New: func() func(int) {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
		return func(int) {
			for range per {
				client := &http.Client{Transport: &http.Transport{}}
				resp, err := client.Get(srv.URL)
				if err != nil {
					panic(err)
				}
				resp.Body.Close()
			}
		}
	}},
	{Name: "handler-ignores-context", Leaks: true, Shape: "handler-ignores-context", New: func() func(int) {
		upstream := make(chan int)
		arrived := make(chan bool)
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			arrived <- true
			<-upstream // creates handler-ignores-context
		}))
		return func(int) {
			for range per {
				ctx, cancel := context.WithCancel(context.Background())
				req, _ := http.NewRequestWithContext(ctx, "GET", srv.URL, nil)
				gone := make(chan error)
				go func() { _, err := http.DefaultClient.Do(req); gone <- err }()
				<-arrived
				cancel()
				<-gone
			}
		}
	}},
	{Name: "sql-rows", Leaks: true, Shape: "sql-rows", Creator: "database/sql.(*Rows).initContextClose", New: func() func(int) {
		db := openSQL()
		ctx, _ := context.WithCancel(context.Background()) //nolint:govet // the leak
		return func(int) {
			for range per {
				rows, err := db.QueryContext(ctx, "select")
				if err != nil {
					panic(err)
				}
				rows.Next()
			}
		}
	}},
	{Name: "sql-tx", Leaks: true, Shape: "sql-tx", Creator: "database/sql.(*DB).beginDC", New: func() func(int) {
		db := openSQL()
		return func(int) {
			for range per {
				if _, err := db.BeginTx(context.Background(), nil); err != nil {
					panic(err)
				}
			}
		}
	}},
	{Name: "sql-pool-wait", Leaks: true, Shape: "sql-pool-wait", New: func() func(int) {
		db := openSQL()
		db.SetMaxOpenConns(1)
		if _, err := db.BeginTx(context.Background(), nil); err != nil { // and nobody ends it
			panic(err)
		}
		return func(int) {
			for range per {
				go func() { _, _ = db.QueryContext(context.Background(), "select") }() // creates sql-pool-wait
			}
		}
	}},
	{Name: "context-foreign-parent", Leaks: true, Shape: "context-foreign-parent", Creator: "context.(*cancelCtx).propagateCancel", New: func() func(int) {
		parent := foreignContext{context.Background(), make(chan struct{})}
		return func(int) {
			for range per {
				ctx, _ := context.WithTimeout(parent, time.Hour) //nolint:govet // the leak
				_ = ctx
			}
		}
	}},
	{Name: "after-func", Leaks: true, Shape: "after-func", New: func() func(int) {
		full := make(chan int)
		return func(int) {
			var fired sync.WaitGroup
			fired.Add(per)
			for range per {
				time.AfterFunc(0, func() {
					fired.Done()
					full <- 1 // creates after-func
				})
			}
			fired.Wait()
		}
	}},
	{Name: "pool-per-request", Leaks: true, Shape: "chan-receive", New: each(func() {
		p := newPool(4)
		p.jobs <- func() {}
		// and nobody calls p.close
	})},
	{Name: "generic-queue", Leaks: true, Shape: "chan-receive", New: each(func() {
		q := newQueue[string]()
		q.items <- "a"
	})},
	{Name: "generator-abandoned", Leaks: true, Shape: "chan-send", New: each(func() {
		for n := range numbers(100) {
			if n == 3 {
				break
			}
		}
	})},
	{Name: "first-error-wins", Leaks: true, Shape: "chan-send", New: each(func() {
		errs := make(chan error)
		for range 3 {
			go fetch(errs) // creates first-error-wins
		}
		<-errs // of three
	})},
	{Name: "under-load", Leaks: true, Shape: "chan-receive", New: func() func(int) {
		var busy []*gate
		serve := func(g *gate) { g.wait() }
		return func(round int) {
			for _, g := range busy {
				g.open()
			}
			busy = nil
			for range []int{4, 7, 2, 6, 3, 8, 1, 5}[round%8] { // requests in flight, which end
				g := newGate()
				busy = append(busy, g)
				go serve(g) // creates under-load
			}
			for range per {
				go serve(newGate()) // creates under-load
			}
		}
	}},
	{Name: "same-function-twice", Leaks: true, Shape: "chan-receive", New: func() func(int) {
		jobs := make(chan int)
		return func(round int) {
			if round == 0 {
				for range 60 {
					go drain(jobs) // a pool that stays
				}
			}
			for range per {
				go drain(make(chan int)) // creates same-function-twice
			}
		}
	}},
	{Name: "iterator-not-stopped", Leaks: true, Shape: "iterator", New: each(func() {
		next, _ := iter.Pull(func(yield func(int) bool) {
			for i := 0; yield(i); i++ { // creates iterator-not-stopped
			}
		})
		next()
	})},
	{Name: "connection-without-deadline", Leaks: true, Grows: true, New: func() func(int) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		var clients []net.Conn
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() { _, _ = c.Read(make([]byte, 1)) }() // creates connection-without-deadline
			}
		}()
		return func(int) {
			for range per {
				c, err := net.Dial("tcp", ln.Addr().String())
				if err != nil {
					panic(err)
				}
				clients = append(clients, c) // half open: the peer never says more
			}
		}
	}},
}

func receiveGlobal() { <-global }

func drain(jobs chan int) {
	for range jobs {
	}
}

func fetch(errs chan<- error) { errs <- errors.New("no answer") }

func numbers(n int) <-chan int {
	ch := make(chan int)
	go func() { // creates generator-abandoned
		defer close(ch)
		for i := range n {
			ch <- i
		}
	}()
	return ch
}

type pool struct{ jobs chan func() }

func newPool(workers int) *pool {
	p := &pool{make(chan func())}
	for range workers {
		go p.work() // creates pool-per-request
	}
	return p
}

func (p *pool) work() {
	for job := range p.jobs {
		job()
	}
}

func (p *pool) close() { close(p.jobs) }

type queue[T any] struct {
	items chan T
	seen  []T
}

func newQueue[T any]() *queue[T] {
	q := &queue[T]{items: make(chan T)}
	go q.run() // creates generic-queue
	return q
}

func (q *queue[T]) run() {
	for item := range q.items {
		q.seen = append(q.seen, item)
	}
}

// foreignContext is a context of a type that the context package does not know.
type foreignContext struct {
	context.Context
	done chan struct{}
}

func (c foreignContext) Done() <-chan struct{} { return c.done }
