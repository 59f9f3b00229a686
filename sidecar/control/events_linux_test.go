// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/memguard/memguard-go/sidecar/auth"
	"github.com/memguard/memguard-go/sidecar/watch"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func (r *rig) tell(n int) {
	for range n {
		r.watcher.Note(watch.Event{Target: "app", Kind: "control", Text: "something"})
	}
}

func TestLongPoll(t *testing.T) {
	t.Parallel()
	r := beside(t)
	poll := func(query string) eventList {
		a := r.ask(bob, "GET", at+"/events?"+query, "")
		require.Equal(t, 200, a.code, "%s", a.body)
		var l eventList
		require.NoError(t, json.Unmarshal(a.body, &l))
		require.NotNil(t, l.Items)
		return l
	}
	assert.Empty(t, poll("").Items, "at once")
	r.tell(3)
	l := poll("wait=1h")
	require.Len(t, l.Items, 3)
	assert.EqualValues(t, 3, l.Next)
	assert.Zero(t, l.Missed)
	assert.Empty(t, poll("after=3").Items)
	assert.Len(t, poll("after=2").Items, 1)
	assert.Len(t, poll("after=99").Items, 3, "a number of before a restart")
	assert.Empty(t, poll("target=other").Items)
	assert.EqualValues(t, 3, poll("target=other").Next)

	got := make(chan eventList)
	go func() { got <- poll("after=3&wait=1m") }()
	time.Sleep(10 * time.Millisecond) // likely, but not needed, that it waits
	r.tell(1)
	l = <-got
	require.Len(t, l.Items, 1)
	assert.EqualValues(t, 4, l.Next)

	r.tell(3000)
	l = poll("after=4")
	assert.EqualValues(t, 3000-1024, l.Missed, "what is no longer kept is told")
	all := 0
	for len(l.Items) > 0 {
		assert.LessOrEqual(t, len(l.Items), batch)
		all += len(l.Items)
		l = poll(fmt.Sprint("after=", l.Next))
	}
	assert.Equal(t, 1024, all, "the others come a few at a time")
	assert.Zero(t, poll("").Missed)

	for _, query := range []string{"after=-1", "after=x", "wait=1", "wait=-1s", "watch=yes", "since=1", "after=1&after=2"} {
		a := r.ask(bob, "GET", at+"/events?"+query, "")
		r.refused(a, 400, "BadRequest", "")
		assert.NotContains(t, a.message(), "%!", query)
	}
}

// stream opens a stream and returns what comes.
func (r *rig) stream(ctx context.Context, query string, header ...string) (*http.Response, *bufio.Reader) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", r.url+at+"/events?"+query, nil)
	require.NoError(r.t, err)
	req.Header.Set("Authorization", "Bearer "+bob)
	req.Header.Set("Accept", "text/event-stream")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { resp.Body.Close() })
	return resp, bufio.NewReader(resp.Body)
}

// next reads the next message of a stream: its fields.
func next(t *testing.T, b *bufio.Reader) map[string]string {
	t.Helper()
	m := map[string]string{}
	for {
		l, err := b.ReadString('\n')
		require.NoError(t, err)
		l = strings.TrimSuffix(l, "\n")
		if l == "" && len(m) > 0 {
			return m
		}
		if k, v, ok := strings.Cut(l, ": "); ok {
			m[k] = v
		}
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	r := beside(t)
	r.tell(2)
	resp, b := r.stream(t.Context(), "")
	assert.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	assert.Equal(t, map[string]string{"retry": "3000"}, next(t, b))
	for want := range 4 {
		if want == 2 {
			r.tell(2)
		}
		m := next(t, b)
		assert.Equal(t, fmt.Sprint(want+1), m["id"])
		var e watch.Event
		require.NoError(t, json.Unmarshal([]byte(m["data"]), &e))
		assert.EqualValues(t, want+1, e.Seq)
	}
	_, b = r.stream(t.Context(), "watch=1&after=0", "Last-Event-ID", "3")
	next(t, b)
	assert.Equal(t, "4", next(t, b)["id"], "it goes on where it was cut off")

	r.tell(2000)
	_, b = r.stream(t.Context(), "after=4")
	next(t, b)
	m := next(t, b)
	assert.Equal(t, "missed", m["event"])
	assert.Equal(t, `{"missed":976}`, m["data"])
	assert.Equal(t, "981", next(t, b)["id"])

	a := r.ask(bob, "HEAD", at+"/events?watch=1", "")
	assert.Equal(t, 200, a.code)
	assert.Empty(t, a.body)
}

// A thousand streams all get everything; one more is told to come back; and those
// who do not read are hung up on, and hold nobody up.
func TestManyStreams(t *testing.T) {
	t.Parallel()
	r := beside(t)
	r.Server.streams = newPlaces(streamsAtOnce, streamsAtOnce) // all of them are bob's here
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const n, told = 1000, 20
	var all sync.WaitGroup
	var got, failed atomic.Int64
	slow := 100
	for i := range n {
		if i < slow { // sends its request and reads nothing
			c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
			require.NoError(t, err)
			defer c.Close()
			_, err = fmt.Fprintf(c, "GET %s/events?watch=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", at, bob)
			require.NoError(t, err)
			continue
		}
		all.Go(func() {
			resp, b := r.stream(ctx, "after=0")
			if resp.StatusCode != 200 {
				failed.Add(1)
				return
			}
			for seen := 0; seen < told; {
				l, err := b.ReadString('\n')
				if err != nil {
					failed.Add(1)
					return
				}
				if strings.HasPrefix(l, "data: ") {
					seen++
				}
			}
			got.Add(1)
			<-ctx.Done()
		})
	}
	require.Eventually(t, func() bool { return r.streams.count() == n }, time.Minute, 10*time.Millisecond)
	a := r.ask(bob, "GET", at+"/events", "")
	r.refused(a, 429, "TooManyRequests", "1000 streams")
	assert.Equal(t, "5", a.header.Get("Retry-After"))
	assert.Equal(t, 200, r.ask(bob, "GET", at+"/runtimes", "").code, "everything else goes on")
	r.tell(told)
	require.Eventually(t, func() bool { return got.Load() == int64(n-slow) }, time.Minute, 10*time.Millisecond)
	assert.Zero(t, failed.Load())
	cancel()
	all.Wait()
	require.Eventually(t, func() bool { return r.streams.count() == slow }, time.Minute, 10*time.Millisecond, "their places are free again")
}

// One caller cannot hold all places: the others still get theirs, and who hangs up
// frees them.
func TestStreamsOfOneCaller(t *testing.T) {
	t.Parallel()
	r := beside(t)
	assert.Equal(t, []int{1000, 100}, []int{r.streams.most, r.streams.each}, "unless told otherwise")
	r.Server.streams = newPlaces(5, 2)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 2 {
		resp, _ := r.stream(ctx, "")
		require.Equal(t, 200, resp.StatusCode)
	}
	for _, query := range []string{"", "?wait=1m", "?watch=1"} {
		a := r.ask(bob, "GET", at+"/events"+query, "")
		r.refused(a, 429, "TooManyRequests", "this caller has 2 streams and polls open")
		assert.Contains(t, a.message(), "close one", "it says what to do")
		assert.Equal(t, "5", a.header.Get("Retry-After"))
		assert.EqualValues(t, 5, a.json["details"].(map[string]any)["retryAfterSeconds"])
	}
	assert.Equal(t, 200, r.ask(alice, "GET", at+"/events", "").code, "another caller")
	assert.Equal(t, 2, r.streams.count(), "a poll that was answered holds none")
	cancel()
	require.Eventually(t, func() bool { return r.streams.count() == 0 }, time.Minute, time.Millisecond)
	assert.Equal(t, 200, r.ask(bob, "GET", at+"/events", "").code)
	assert.Empty(t, r.streams.of, "who has none is not remembered")
}

// Who did not say who they are is known by where they come from, and users by their
// name wherever that is.
func TestCallers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		user auth.User
		addr string
		want string
	}{
		{auth.User{Name: "alice", How: auth.HowToken}, "192.0.2.1:7", "user alice"},
		{auth.User{Name: "system:anonymous", How: auth.HowAnonymous}, "192.0.2.1:7", "address 192.0.2.1"},
		{auth.User{}, "[2001:db8::1]:7", "address 2001:db8::1"},
		{auth.User{}, "@", "address "},
	} {
		c := &call{r: &http.Request{RemoteAddr: test.addr}, user: test.user}
		assert.Equal(t, test.want, c.caller())
	}
}

// Who does not read is hung up on in time.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	r := beside(t)
	r.piece = 100 * time.Millisecond
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.(*net.TCPConn).SetReadBuffer(4096))
	_, err = fmt.Fprintf(c, "GET %s/events?watch=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", at, bob)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return r.streams.count() == 1 }, time.Minute, time.Millisecond)
	require.Eventually(t, func() bool { r.tell(1000); return r.streams.count() == 0 }, time.Minute, time.Millisecond)
}

// Streams end when the sidecar does, and not when their requests should have been
// read.
func TestStreamsEndWithTheServer(t *testing.T) {
	t.Parallel()
	s, err := build(shortDir(t), nil)
	require.NoError(t, err)
	s.reading = 50 * time.Millisecond
	h := http.Server{Handler: s, ReadTimeout: 50 * time.Millisecond}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = h.Serve(l) }()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	r := &rig{s, t, "", "http://" + l.Addr().String()}
	_, b := r.stream(t.Context(), "")
	next(t, b)
	time.Sleep(100 * time.Millisecond) // longer than a request may take to be read
	r.tell(1)
	assert.Equal(t, "1", next(t, b)["id"])
	cancel()
	require.NoError(t, <-ended)
	_, err = b.ReadString('x')
	assert.ErrorIs(t, err, io.EOF)
	require.NoError(t, h.Shutdown(t.Context()), "nothing holds it up")
}
