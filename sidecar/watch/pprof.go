// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/memguard/memguard-go/sidecar/incident"
)

// pprofClient asks a target's net/http/pprof.
type pprofClient struct {
	remote bool // other machines may be asked
	http   http.Client
}

const pprofFor = 30 * time.Second

func newPprofClient(remote bool) *pprofClient {
	c := &pprofClient{remote: remote}
	c.http = http.Client{
		Timeout: pprofFor,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				var d net.Dialer
				conn, err := d.DialContext(ctx, network, addr)
				if err != nil || remote {
					return conn, err
				}
				// A name may have led anywhere.
				if a, ok := conn.RemoteAddr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
					conn.Close()
					return nil, fmt.Errorf("%s is not on this machine", conn.RemoteAddr())
				}
				return conn, nil
			},
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("it redirects") },
	}
	return c
}

// check says what is wrong with a URL; empty is none.
func (c *pprofClient) check(raw string) error {
	if raw == "" {
		return nil
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return err
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("%q: want a URL such as http://127.0.0.1:6060/debug/pprof", raw)
	}
	if host := u.Hostname(); !c.remote && host != "localhost" {
		if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
			return fmt.Errorf("%q leads to another machine", raw)
		}
	}
	return nil
}

// profile asks for a profile of at most so many bytes.
func (c *pprofClient) profile(ctx context.Context, base, kind string, most int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(base, "/")+"/"+kind, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", base, bounded(resp.Status))
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(b)) > most:
		return nil, fmt.Errorf("%s: its profile has more than %d bytes", base, most)
	case !bytes.HasPrefix(b, []byte{0x1f, 0x8b}): // gzip: RFC 1952, 2.3.1
		return nil, fmt.Errorf("%s: its answer is not a profile", base)
	}
	return b, nil
}

// Where nothing else tells what holds the memory, the target's own heap profile is asked
// for now and then, for the report of its end: that stops nobody there. One of its
// goroutines would stop all of them twice each time (runtime/mprof.go, goroutineProfile),
// and is got by who asks for it.
const (
	askHeapEvery = walkRest
	askHeapFor   = 10 * time.Second
	mostKept     = 1 << 20 // bytes of a heap profile that is kept
)

// given is the target's last heap profile. The life's mutex guards it.
type given struct {
	heap   []byte
	at     time.Time // when it was asked for
	next   time.Time
	asking bool
}

// askHeapIfDue asks for it aside, where neither its memory can be read nor its own guard
// answers, and its rule has a URL.
func (l *life) askHeapIfDue(now time.Time) {
	l.w.mu.Lock()
	url := l.w.pprofOf(l.slot.rule)
	l.w.mu.Unlock()
	if url == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	g := &l.given
	if g.next.IsZero() {
		g.next = l.begun.Add(walkFirst)
	}
	if g.asking || now.Before(g.next) || l.agent.answers(now, l.w.cfg.Interval) {
		return
	}
	g.asking, g.next = true, now.Add(askHeapEvery)
	go l.askHeap(url)
}

func (l *life) askHeap(url string) {
	var heap []byte
	at := time.Now()
	leave, err := enter(l.ctx, l.w.asks, askHeapFor)
	if err == nil {
		ctx, done := context.WithTimeout(l.ctx, askHeapFor)
		at = time.Now()
		heap, err = l.w.http.profile(ctx, url, "heap", mostKept)
		done()
		leave()
	}
	l.mu.Lock()
	l.given.asking = false
	if err == nil {
		l.given.heap, l.given.at = heap, at
	}
	l.mu.Unlock()
	if err != nil {
		l.set(srcPprof, Failed, err.Error())
	} else {
		l.set(srcPprof, OK, "")
	}
}

// heapOf puts what was given before the end into the evidence, where there is no better.
func (l *life) heapOf(e *incident.Evidence, seen time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Heap == nil && l.given.heap != nil {
		e.Heap, e.HeapAsked = l.given.heap, e.Ended.Add(-max(seen.Sub(l.given.at), 0))
	}
}
