// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"context"
	"crypto/tls"
	"io"
	"iter"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"
)

// crowd is goroutines that wait and are let go.
type crowd struct{ gates []*gate }

func (c *crowd) join(n int, run func(g *gate)) {
	for range n {
		g := newGate()
		c.gates = append(c.gates, g)
		go run(g)
	}
}

func (c *crowd) leave(n int) {
	n = min(n, len(c.gates))
	for _, g := range c.gates[:n] {
		g.open()
	}
	c.gates = c.gates[n:]
}

func waitAt(g *gate) { g.wait() }

// sized is a program whose number of waiting goroutines follows a curve.
func sized(at func(round int) int) func() func(int) {
	return func() func(int) {
		var c crowd
		return func(round int) {
			if n := at(round) - len(c.gates); n > 0 {
				c.join(n, waitAt)
			} else {
				c.leave(-n)
			}
		}
	}
}

var healthy = []Program{
	{Name: "worker-pool", New: func() func(int) {
		p := newPool(16)
		return func(int) {
			var wg sync.WaitGroup
			for range 100 {
				wg.Add(1)
				p.jobs <- wg.Done
			}
			wg.Wait()
		}
	}},
	{Name: "pool-closed", New: each(func() {
		p := newPool(4)
		p.jobs <- func() {}
		p.close()
	})},
	{Name: "pool-that-fills", New: sized(func(round int) int { return min(16*(round+1), 64) })},
	{Name: "second-pool-later", New: sized(func(round int) int { return 10 + 30*(round/7) })},
	{Name: "burst", New: sized(func(round int) int { return []int{5, 200, 5, 5}[round%4] })},
	{Name: "slow-drain", New: sized(func(round int) int { return max(80-5*round, 4) })},
	{Name: "sawtooth", New: sized(func(round int) int { return 8 * (1 + round%4) })},
	{Name: "day-and-night", New: sized(func(round int) int { return []int{20, 30, 40, 50, 50, 40, 30, 20}[round%8] })},
	{Name: "rush-hour", New: sized(func(round int) int { return 10 + 15*min(round%8, 8-round%8) })},
	{Name: "requests-in-flight", New: func() func(int) {
		rng := rand.New(rand.NewPCG(1, 2))
		return sized(func(int) int { return rng.IntN(20) })()
	}},
	{Name: "long-polls", New: func() func(int) {
		var c crowd
		return func(round int) { // each lasts two rounds
			if round > 1 {
				c.leave(12)
			}
			c.join(12, waitAt)
		}
	}},
	{Name: "websocket-hub", New: func() func(int) {
		h := &hub{clients: map[*client]bool{}}
		var all []*client
		return func(round int) {
			if round > 3 { // eight come and eight go
				for _, c := range all[:8] {
					h.leave(c)
				}
				all = all[8:]
			}
			for range 8 {
				all = append(all, h.join())
			}
			h.broadcast([]byte("tick"))
		}
	}},
	{Name: "keep-alive", New: func() func(int) {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}}
		return func(int) {
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if resp, err := client.Get(srv.URL); err == nil {
						_, _ = io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
					}
				})
			}
			wg.Wait()
		}
	}},
	{Name: "handlers-with-context", New: func() func(int) {
		arrived := make(chan bool)
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			arrived <- true
			<-r.Context().Done()
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
	{Name: "cron", New: func() func(int) {
		return once(func() {
			for range 12 {
				go func() {
					for range time.NewTicker(2 * time.Millisecond).C {
					}
				}()
			}
		})
	}},
	{Name: "cache-janitors", New: func() func(int) {
		return once(func() {
			for range 12 {
				go func() {
					for {
						time.Sleep(time.Millisecond)
					}
				}()
			}
		})
	}},
	{Name: "subscriptions", New: func() func(int) {
		return func(int) {
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			for range 20 {
				events := make(chan int)
				wg.Go(func() {
					select {
					case <-events:
					case <-ctx.Done():
					}
				})
			}
			cancel()
			wg.Wait()
		}
	}},
	{Name: "fan-out", New: each(func() {
		var wg sync.WaitGroup
		results := make(chan int, 10)
		for range 10 {
			wg.Go(func() { results <- 1 })
		}
		wg.Wait()
	})},
	{Name: "timeout-with-room", New: each(func() {
		result := make(chan int, 1)
		go func() { result <- 1 }()
		ctx, cancel := context.WithTimeout(context.Background(), time.Microsecond)
		defer cancel()
		select {
		case <-result:
		case <-ctx.Done():
		}
	})},
	{Name: "foreign-parent-cancelled", New: func() func(int) {
		parent := foreignContext{context.Background(), make(chan struct{})}
		return func(int) {
			for range 20 {
				_, cancel := context.WithTimeout(parent, time.Hour)
				cancel()
			}
		}
	}},
	{Name: "after-func-short", New: each(func() {
		done := make(chan struct{})
		time.AfterFunc(0, func() { close(done) })
		<-done
	})},
	{Name: "pipe-closed", New: each(func() {
		r, w := io.Pipe()
		go func() {
			_, _ = w.Write(make([]byte, 1<<16))
			w.Close()
		}()
		_, _ = io.Copy(io.Discard, r)
	})},
	{Name: "sql-closed", New: func() func(int) {
		db := openSQL()
		return func(int) {
			for range 20 {
				ctx, cancel := context.WithCancel(context.Background())
				if rows, err := db.QueryContext(ctx, "select"); err == nil {
					for rows.Next() {
					}
					rows.Close()
				}
				cancel()
			}
		}
	}},
	{Name: "lock-convoy", New: func() func(int) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		locked := false
		return func(round int) { // twenty wait at each look, never the same
			if locked {
				mu.Unlock()
				wg.Wait()
			}
			mu.Lock()
			locked = true
			for range 20 {
				wg.Go(func() {
					mu.Lock()
					defer mu.Unlock()
				})
			}
		}
	}},
	{Name: "idle-consumers", New: func() func(int) {
		c := sync.NewCond(new(sync.Mutex))
		work := 0
		start := once(func() {
			for range 12 {
				go func() {
					for {
						c.L.Lock()
						for work == 0 {
							c.Wait()
						}
						work--
						c.L.Unlock()
					}
				}()
			}
		})
		return func(round int) {
			start(round)
			c.L.Lock()
			work += 50
			c.L.Unlock()
			c.Broadcast()
		}
	}},
	{Name: "semaphore", New: func() func(int) {
		slots := make(chan struct{}, 4)
		var wg sync.WaitGroup
		var hold *gate
		return func(int) { // thirty-six wait for a slot at each look
			if hold != nil {
				hold.open()
				wg.Wait()
			}
			g := newGate()
			hold = g
			for range 40 {
				wg.Go(func() {
					slots <- struct{}{}
					g.wait()
					<-slots
				})
			}
		}
	}},
	{Name: "accept-loops", New: func() func(int) {
		return once(func() {
			for range 12 {
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					panic(err)
				}
				go func() {
					for {
						c, err := ln.Accept()
						if err != nil {
							return
						}
						c.Close()
					}
				}()
			}
		})
	}},
	{Name: "iterator-stopped", New: each(func() {
		next, stop := iter.Pull(func(yield func(int) bool) {
			for i := 0; yield(i); i++ {
			}
		})
		next()
		stop()
	})},
	{Name: "more-http2-clients", Grows: true, New: func() func(int) {
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
		srv.EnableHTTP2 = true
		srv.StartTLS()
		var clients []*tls.Conn
		return func(int) {
			for range per {
				c, err := tls.Dial("tcp", srv.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
				if err != nil {
					panic(err)
				}
				// The preface and empty settings (RFC 9113, 3.4 and 6.5).
				if _, err := io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
					panic(err)
				}
				// The server is ready when its settings are there.
				if _, err := io.ReadFull(c, make([]byte, 9)); err != nil {
					panic(err)
				}
				clients = append(clients, c)
			}
		}
	}},
	{Name: "services-that-start", New: func() func(int) {
		ctx := context.Background()
		return func(round int) {
			if round > 2 {
				return
			}
			for range 10 { // ten more in each of the first rounds
				go func() { <-ctx.Done() }()
			}
		}
	}},
}

// once calls f in the first round.
func once(f func()) func(int) {
	return func(round int) {
		if round == 0 {
			f()
		}
	}
}

type client struct {
	near, far net.Conn
	send      chan []byte
}

type hub struct {
	mu      sync.Mutex
	clients map[*client]bool
}

func (h *hub) join() *client {
	near, far := net.Pipe()
	c := &client{near, far, make(chan []byte, 8)}
	go c.readPump()
	go c.writePump()
	go func() { _, _ = io.Copy(io.Discard, far) }()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clients[c] = true
	return c
}

func (h *hub) leave(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.clients, c)
	close(c.send)
	c.far.Close()
}

func (h *hub) broadcast(msg []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.clients {
		select {
		case c.send <- msg:
		default:
		}
	}
}

func (c *client) readPump() {
	buf := make([]byte, 64)
	for {
		if _, err := c.near.Read(buf); err != nil {
			return
		}
	}
}

func (c *client) writePump() {
	defer c.near.Close()
	for msg := range c.send {
		if _, err := c.near.Write(msg); err != nil {
			return
		}
	}
}
