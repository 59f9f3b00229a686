// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
)

// The upstreams live in the victim's own process. That is why they are as small
// as can be: what they hold counts against the same limit.

// silentUpstream is the address of a service that takes connections and never
// answers. It does not even accept them: the kernel does so on its behalf, up to
// the backlog, and a client cannot tell the difference.
func silentUpstream(ctx context.Context) (addr string, err error) {
	ln, err := listen(ctx)
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), nil
}

// talkativeUpstream is the address of a service that begins each answer and
// leaves it to the client to read the rest.
func talkativeUpstream(ctx context.Context) (addr string, err error) {
	ln, err := listen(ctx)
	if err != nil {
		return "", err
	}
	// The transport's read buffer is 4 KiB: a longer answer is one that somebody has to read.
	body := make([]byte, 16*kib)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return // ctx ended
			}
			go func() {
				defer conn.Close()
				r := bufio.NewReaderSize(conn, 4*kib)
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					if _, err := io.Copy(io.Discard, req.Body); err != nil {
						return
					}
					if _, err := fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body)); err != nil {
						return
					}
					if _, err := conn.Write(body); err != nil {
						return
					}
				}
			}()
		}
	}()
	return ln.Addr().String(), nil
}

// listen opens a port on the loopback interface until ctx ends.
func listen(ctx context.Context) (net.Listener, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("scenario: upstream: %w", err)
	}
	context.AfterFunc(ctx, func() { ln.Close() })
	return ln, nil
}

// serveOrder is the healthy route: it writes the sample order.
func serveOrder(w http.ResponseWriter, _ *http.Request) {
	text, err := json.Marshal(&sampleOrder)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text) // a client that went away has no use for the error
}

// checkOrder looks at an answer of serveOrder.
func checkOrder(body []byte) error {
	var o order
	if err := json.Unmarshal(body, &o); err != nil {
		return err
	}
	if len(o.Lines) != len(sampleOrder.Lines) {
		return fmt.Errorf("%d lines, want %d", len(o.Lines), len(sampleOrder.Lines))
	}
	return nil
}
