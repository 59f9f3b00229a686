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

// profile asks for a profile.
func (c *pprofClient) profile(ctx context.Context, base, kind string) ([]byte, error) {
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
	b, err := io.ReadAll(io.LimitReader(resp.Body, mostProfile+1))
	switch {
	case err != nil:
		return nil, err
	case len(b) > mostProfile:
		return nil, fmt.Errorf("%s: its profile has more than %d bytes", base, mostProfile)
	case !bytes.HasPrefix(b, []byte{0x1f, 0x8b}): // gzip: RFC 1952, 2.3.1
		return nil, fmt.Errorf("%s: its answer is not a profile", base)
	}
	return b, nil
}
