// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/memguard/memguard-go/memguard"
)

// ErrNone is what Dial gives, in the sense of errors.Is, for a process that
// serves no agent, or none that we may ask.
var ErrNone = errors.New("no agent answers")

// Client asks the agent of one process. Its methods may be called from several
// goroutines. Their errors are [memguard.ErrGone] when the process has ended,
// and those of [memguard.Guard.Do] and [memguard.Guard.Undo], in the sense of
// errors.Is.
type Client struct {
	pid  int
	path string
	http http.Client
}

const (
	dialTimeout = time.Second
	askTimeout  = writeTimeout + dialTimeout
	mostAnswer  = 16 << 20 // bytes
)

// Dial finds the agent of a process, which may be in a container: in other mount,
// PID and user namespaces. It trusts nobody but the process itself: the kernel
// says who listens at a socket.
func Dial(pid int) (*Client, error) {
	paths, err := sockets(pid)
	if err != nil {
		return nil, fmt.Errorf("agent: pid %d: %w: %w", pid, ErrNone, err)
	}
	why := ErrNone
	for _, path := range paths {
		c := &Client{pid: pid, path: path}
		c.http.Transport = &http.Transport{
			DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
			DisableCompression: true,
			MaxIdleConns:       2,
			IdleConnTimeout:    10 * time.Second,
		}
		ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
		conn, err := c.dial(ctx)
		cancel()
		if err == nil {
			conn.Close()
			return c, nil
		}
		if !errors.Is(err, fs.ErrNotExist) { // it would be the place
			why = fmt.Errorf("%w: %w", ErrNone, err)
		}
	}
	return nil, fmt.Errorf("agent: pid %d: %w", pid, why)
}

// dial connects, and has the kernel say that it is the process that listens.
func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	raw, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		return nil, err
	}
	who, err := peerOf(raw.(*net.UnixConn))
	if err == nil && who.pid != c.pid {
		err = fmt.Errorf("%s: %v listens there, not pid %d", c.path, who, c.pid)
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	return raw, nil
}

// Close hangs up.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks what the guard knows and does. The pids in it are those of the
// caller's PID namespace, here and in the other answers; the names of rows in a
// ledger are the service's.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	a, err := c.ask(ctx, http.MethodGet, "/v1/status", nil)
	if err != nil {
		return nil, err
	}
	if a.Status == nil || a.Status.Ledger == nil {
		return nil, c.wrong("status")
	}
	a.Status.PID, a.Status.Ledger.PID = c.pid, c.pid
	return a.Status, nil
}

// Report asks for a report with a survey: see the package's words on its cost.
func (c *Client) Report(ctx context.Context) (*memguard.Report, error) {
	a, err := c.ask(ctx, http.MethodGet, "/v1/report", nil)
	if err != nil {
		return nil, err
	}
	if a.Report == nil || a.Report.Ledger == nil {
		return nil, c.wrong("report")
	}
	a.Report.PID, a.Report.Ledger.PID = c.pid, c.pid
	return a.Report, nil
}

// Events asks for the events after the one with the given Seq, and waits for the
// next one if there is none yet, for a minute at most. When the guard has ended
// and there is none, the error is io.EOF.
func (c *Client) Events(ctx context.Context, after uint64, wait time.Duration) ([]memguard.Event, error) {
	q := url.Values{"after": {strconv.FormatUint(after, 10)}, "wait": {wait.String()}}
	ctx, cancel := context.WithTimeout(ctx, min(max(wait, 0), longestWait)+askTimeout)
	defer cancel()
	a, err := c.ask(ctx, http.MethodGet, "/v1/events?"+q.Encode(), nil)
	switch {
	case err != nil:
		return nil, err
	case a.Events == nil:
		return nil, c.wrong("events")
	case a.Ended:
		return nil, io.EOF
	}
	return *a.Events, nil
}

// Do gives an order.
func (c *Client) Do(ctx context.Context, o memguard.Order) (memguard.Event, error) {
	b, err := json.Marshal(orderBody(o))
	if err != nil {
		return memguard.Event{}, fmt.Errorf("agent: %w", err)
	}
	a, err := c.ask(ctx, http.MethodPost, "/v1/orders", b)
	if e, ok := errors.AsType[*asError](err); ok && e.Code == codeBad && o.Action.IsSetting() && strings.Contains(e.refusal.Error, "takes no") {
		// It takes for no setting what is one here.
		err = fmt.Errorf("agent: pid %d: order %q: %w: the service's guard is of an older release, which has no such order: build the service with a newer one", c.pid, o.Action, memguard.ErrOrder)
	}
	return c.event(a, err)
}

// orderBody is an order as it is sent: a setting says to what, also to 0.
func orderBody(o memguard.Order) map[string]any {
	body := map[string]any{"action": o.Action, "reason": o.Reason, "by": o.By, "ttl_ns": o.TTL, "dry_run": o.DryRun}
	if o.To != 0 || o.Action.IsSetting() {
		body["to"] = o.To
	}
	return body
}

// Undo takes back the order whose event has the given Seq.
func (c *Client) Undo(ctx context.Context, seq uint64, by, reason string) (memguard.Event, error) {
	q := url.Values{"by": {by}, "reason": {reason}}
	return c.event(c.ask(ctx, http.MethodDelete, "/v1/orders/"+strconv.FormatUint(seq, 10)+"?"+q.Encode(), nil))
}

func (c *Client) event(a *answer, err error) (memguard.Event, error) {
	if err != nil {
		return memguard.Event{}, err
	}
	if a.Event == nil {
		return memguard.Event{}, c.wrong("event")
	}
	return *a.Event, nil
}

func (c *Client) wrong(what string) error {
	return fmt.Errorf("agent: pid %d: its answer has no %s in it: it is of another release", c.pid, what)
}

// ask sends a request and reads the answer.
func (c *Client) ask(ctx context.Context, method, path string, body []byte) (*answer, error) {
	a, err := c.roundTrip(ctx, method, path, body)
	if err == nil {
		return a, nil
	}
	if _, ok := errors.AsType[*asError](err); !ok && gone(c.pid) {
		err = memguard.ErrGone
	}
	return nil, fmt.Errorf("agent: pid %d: %w", c.pid, err)
}

func (c *Client) roundTrip(ctx context.Context, method, path string, body []byte) (*answer, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, askTimeout)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://memguard"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, errors.Unwrap(err) // without the URL, which says nothing
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case len(b) > mostAnswer:
		return nil, fmt.Errorf("its answer has more than %d bytes", mostAnswer)
	}
	var a answer
	if err := json.Unmarshal(b, &a); err != nil {
		return nil, fmt.Errorf("its answer (%s) is not JSON: %w", resp.Status, err)
	}
	if a.Version != version {
		return nil, fmt.Errorf("its answers have version %d, this program reads %d", a.Version, version)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, &asError{a.refusal, resp.StatusCode}
	}
	return &a, nil
}
