// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/shed"
	"github.com/memguard/memguard-go/pacer"
	"github.com/memguard/memguard-go/scavenge/smaps"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// shortDir is a private directory whose name leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "mg")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// serving is a guard of this process and its agent. It only plans, unless the
// configuration is one's own.
func serving(t *testing.T, cfg ...memguard.Config) (*memguard.Guard, *Server, *http.Client) {
	t.Helper()
	cfg = append(cfg, memguard.Config{DryRun: true})
	g := memguard.Start(cfg[0])
	s, err := serve(g, shortDir(t), Config{Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, s.Close())
		assert.NoError(t, g.Close())
	})
	return g, s, over(s.path)
}

// over is a client of a socket.
func over(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
		DisableKeepAlives: true,
	}}
}

// ask sends a request and returns the answer, which is JSON of this version.
func ask(t *testing.T, c *http.Client, method, path, body string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequest(method, "http://memguard"+path, strings.NewReader(body))
	require.NoError(t, err)
	resp, err := c.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	var a map[string]any
	require.NoError(t, json.Unmarshal(b, &a), "%s", b)
	assert.EqualValues(t, version, a["version"])
	assert.Equal(t, "application/json", resp.Header.Get("Content-Type"))
	return resp.StatusCode, a
}

func ticked(t *testing.T, g *memguard.Guard) {
	t.Helper()
	require.Eventually(t, func() bool { return g.Status().Ticks > 0 }, time.Minute, time.Millisecond)
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	g, s, c := serving(t)
	ticked(t, g)
	st, err := os.Stat(s.Path())
	require.NoError(t, err)
	assert.EqualValues(t, 0o600, st.Mode().Perm())

	code, a := ask(t, c, "GET", "/v1/status", "")
	require.Equal(t, 200, code)
	status := a["status"].(map[string]any)
	assert.EqualValues(t, os.Getpid(), status["pid"])
	assert.Positive(t, status["ticks"])
	assert.NotNil(t, status["findings"], "a list, also when it is empty")
	hand := status["hand"].(map[string]any)
	assert.Equal(t, true, hand["dry_run"])
	assert.Contains(t, hand["baseline"], "gc_percent")
	assert.Contains(t, hand, "shed")
	assert.Nil(t, hand["shed"])
	assert.NotContains(t, hand, "breaker")

	code, a = ask(t, c, "GET", "/v1/sample", "")
	require.Equal(t, 200, code)
	sample := a["sample"].(map[string]any)
	assert.Positive(t, sample["runtime"].(map[string]any)["total"])
	assert.Positive(t, sample["process"].(map[string]any)["rss"])

	code, a = ask(t, c, "GET", "/v1/ledger", "")
	require.Equal(t, 200, code)
	unknown := 0
	for _, row := range a["ledger"].(map[string]any)["rows"].([]any) {
		if r := row.(map[string]any); r["bytes"] == nil {
			unknown++
			assert.NotEmpty(t, r["why"])
		}
	}
	assert.Positive(t, unknown, "a tick does not see the address space: null, not 0")

	code, a = ask(t, c, "GET", "/v1/findings", "")
	require.Equal(t, 200, code)
	assert.Contains(t, a, "findings")

	code, a = ask(t, c, "GET", "/v1/report", "")
	require.Equal(t, 200, code)
	first := a["report"].(map[string]any)
	assert.NotEmpty(t, first["verdict"])
	_, a = ask(t, c, "GET", "/v1/report", "")
	assert.Equal(t, first["time"], a["report"].(map[string]any)["time"], "one is taken a second at most")

	code, a = ask(t, c, "GET", "/v1/events?after=1000000", "")
	require.Equal(t, 200, code)
	assert.Equal(t, []any{}, a["events"])
	assert.NotContains(t, a, "ended")

	for _, test := range []struct {
		method, path string
		code         int
	}{
		{"GET", "/", 404}, {"GET", "/v1", 404}, {"GET", "/v2/status", 404}, {"GET", "/v1/status/", 404}, {"GET", "/debug/pprof/heap", 404},
		{"GET", "/v1/%2e%2e/%2e%2e/etc/passwd", 404}, {"GET", "/v1/orders/%00", 405}, {"DELETE", "/v1/orders/%00", 400},
		{"POST", "/v1/status", 405}, {"HEAD", "/v1/orders", 405}, {"GET", "/v1/orders", 405}, {"GET", "/v1/orders/1", 405}, {"PUT", "/v1/orders", 405},
		{"DELETE", "/v1/orders/-1", 400}, {"DELETE", "/v1/orders/99999999999999999999", 400}, {"DELETE", "/v1/orders/1", 404},
		{"DELETE", "/v1/orders/1?reason=%1b%5b2J", 400},
		{"GET", "/v1/events?after=x", 400}, {"GET", "/v1/events?after=-1", 400}, {"GET", "/v1/events?wait=1", 400}, {"GET", "/v1/events?wait=-1s", 400}, {"GET", "/v1/events?since=1", 400},
	} {
		t.Run(test.method+test.path, func(t *testing.T) {
			if test.method == "HEAD" {
				resp, err := c.Head("http://memguard" + test.path)
				require.NoError(t, err)
				assert.Equal(t, test.code, resp.StatusCode)
				return
			}
			code, a := ask(t, c, test.method, test.path, "")
			assert.Equal(t, test.code, code)
			assert.NotEmpty(t, a["error"])
			assert.NotEmpty(t, a["do"], "what to do about it")
			assert.NotEmpty(t, a["code"])
		})
	}
}

// Orders change the process, and name who gave them as the kernel knows it.
func TestProcessOrders(t *testing.T) {
	g, s, c := serving(t, memguard.Config{})
	ticked(t, g)
	me := fmt.Sprintf("uid %d, pid %d", os.Getuid(), os.Getpid())

	code, a := ask(t, c, "POST", "/v1/orders", `{"action":"gc-percent","to":77,"reason":"a test","by":"root"}`)
	require.Equal(t, 200, code, a)
	assert.Equal(t, 77, g.Status().Wanted.GCPercent)
	action := a["event"].(map[string]any)["action"].(map[string]any)
	assert.Equal(t, "root ("+me+")", action["by"])

	seq := uint64(a["event"].(map[string]any)["seq"].(float64))
	client := &Client{pid: os.Getpid(), path: s.path, http: *c}
	e, err := client.Undo(t.Context(), seq, "", "it is over")
	require.NoError(t, err)
	assert.Equal(t, memguard.Undone, e.Kind)
	assert.Equal(t, seq, e.Action.Undoes)
	assert.Equal(t, "agent ("+me+")", e.Action.By)
	assert.NotEqual(t, 77, g.Status().Wanted.GCPercent)
	_, err = client.Undo(t.Context(), seq, "", "once more")
	assert.ErrorIs(t, err, memguard.ErrNoOrder)

	_, err = client.Do(t.Context(), memguard.Order{Action: memguard.SetMemoryLimit, To: 0, Reason: "a mistake"})
	assert.ErrorIs(t, err, memguard.ErrOrder, "less than what lives")
	_, err = client.Do(t.Context(), memguard.Order{Action: "format-disk", Reason: "r"})
	assert.ErrorIs(t, err, memguard.ErrOrder)
	_, err = client.Do(t.Context(), memguard.Order{Action: memguard.CollectGarbage})
	assert.ErrorContains(t, err, "no reason")

	_, err = client.Do(t.Context(), memguard.Order{Action: memguard.CollectGarbage, Reason: "a test"})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		es, err := client.Events(t.Context(), seq, 100*time.Millisecond)
		return err == nil && slicesHave(es, func(e memguard.Event) bool {
			return e.Kind == memguard.Applied && e.Action.Name == memguard.CollectGarbage
		})
	}, time.Minute, time.Millisecond)
}

func slicesHave(es []memguard.Event, is func(memguard.Event) bool) bool {
	for _, e := range es {
		if is(e) {
			return true
		}
	}
	return false
}

// What an order holds is in the status, and what the guard has no part for it says.
func TestOrdersOfBreakerAndLimiter(t *testing.T) {
	t.Parallel()
	_, bare, c := serving(t)
	client := &Client{pid: os.Getpid(), path: bare.path, http: *c}
	for _, name := range []memguard.ActionName{memguard.SetBreaker, memguard.ShedLoad} {
		_, err := client.Do(t.Context(), memguard.Order{Action: name, Reason: "r"})
		assert.ErrorIs(t, err, memguard.ErrOrder)
		assert.ErrorContains(t, err, "start it with one in Config.")
	}

	breaker, limiter := shed.NewBreaker(shed.BreakerConfig{}), shed.New(shed.Config{})
	g, s, c := serving(t, memguard.Config{MemoryBreaker: breaker, Shed: limiter})
	ticked(t, g)
	client = &Client{pid: os.Getpid(), path: s.path, http: *c}
	opened, err := client.Do(t.Context(), memguard.Order{Action: memguard.SetBreaker, To: int64(pacer.Open), Reason: "r", TTL: time.Hour})
	require.NoError(t, err)
	_, err = client.Do(t.Context(), memguard.Order{Action: memguard.ShedLoad, To: 25, Reason: "r"})
	require.NoError(t, err)
	status, err := client.Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "open", status.Hand.MemoryBreaker)
	assert.Equal(t, 25, status.Hand.Shed.Refusing)
	require.Len(t, status.Hand.Orders, 2)
	assert.Equal(t, opened.Seq, status.Hand.Orders[0].Seq)
	assert.EqualValues(t, pacer.Open, status.Hand.Orders[0].Action.To)
	_, err = client.Do(t.Context(), memguard.Order{Action: memguard.SetBreaker, To: int64(pacer.Closed), Reason: "0 is sent too"})
	require.NoError(t, err)
	assert.Equal(t, shed.Closed, breaker.State())
}

// An agent that is older than an order is not known by what it does with it: it takes
// it for an action that is done once.
func TestAnOlderAgent(t *testing.T) {
	t.Parallel()
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, `{"version":1,"code":"bad-request","error":"the order cannot be read: action \"shed\": takes no \"to\"","do":"send an object"}`)
	}))
	defer old.Close()
	client := &Client{pid: os.Getpid()}
	client.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", old.Listener.Addr().String())
	}}
	_, err := client.Do(t.Context(), memguard.Order{Action: memguard.ShedLoad, To: 10, Reason: "r"})
	assert.ErrorIs(t, err, memguard.ErrOrder)
	assert.ErrorContains(t, err, "of an older release, which has no such order")
	_, err = client.Do(t.Context(), memguard.Order{Action: memguard.CollectGarbage, To: 10, Reason: "r"})
	assert.NotErrorIs(t, err, memguard.ErrOrder, "a mistake of the caller's own")
}

// When the guard has ended the agent says so for a moment, and goes, its socket with
// it.
func TestTheAgentEndsWithItsGuard(t *testing.T) {
	t.Parallel()
	g, s, c := serving(t)
	require.NoError(t, g.Close())
	code, a := ask(t, c, "GET", "/v1/events?after=1000000&wait=1m", "")
	assert.Equal(t, 200, code)
	assert.Equal(t, true, a["ended"])
	<-s.done
	assert.NoFileExists(t, s.path)
	require.NoError(t, s.Close())
}

// A poll waits as long as it says, beyond the time that reading a request may take.
func TestLongPoll(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits longer than " + readTimeout.String())
	}
	_, _, c := serving(t)
	begin := time.Now()
	wait := readTimeout + 2*time.Second
	code, a := ask(t, c, "GET", "/v1/events?after=1000000&wait="+wait.String(), "")
	assert.Equal(t, 200, code)
	assert.Nil(t, a["ended"])
	assert.GreaterOrEqual(t, time.Since(begin), wait)
}

// Whoever sends nonsense, too much, or nothing at all gets an answer or is cut
// off, and the others are answered meanwhile.
func TestHostileClients(t *testing.T) {
	t.Parallel()
	g, s, c := serving(t)
	ticked(t, g)
	code, a := ask(t, c, "POST", "/v1/orders", `{"action":"gc","reason":"`+strings.Repeat("r", 10<<20)+`"}`)
	assert.Equal(t, http.StatusRequestEntityTooLarge, code)
	assert.Contains(t, a["error"], "4096 bytes")
	code, _ = ask(t, c, "POST", "/v1/orders", `{"action":"gc","reason"`)
	assert.Equal(t, http.StatusBadRequest, code)
	code, _ = ask(t, c, "POST", "/v1/orders", strings.Repeat("[", 4000))
	assert.Equal(t, http.StatusBadRequest, code)

	// More slow clients than requests of a kind may be answered at once: they
	// never finish their headers, or their bodies.
	for i := range 64 {
		raw, err := net.Dial("unix", s.path)
		require.NoError(t, err)
		defer raw.Close()
		if i%2 == 0 {
			_, err = raw.Write([]byte("GET /v1/status HTT"))
		} else {
			_, err = raw.Write([]byte("GET /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"))
		}
		require.NoError(t, err)
	}
	code, _ = ask(t, c, "GET", "/v1/status", "")
	assert.Equal(t, 200, code)

	for _, garbage := range []string{
		"\x16\x03\x01\x02\x00\x01\x00", "GET  / HTTP/9.9\r\n\r\n", "GET /v1/status HTTP/1.1\r\n\r\n",
		"GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 1<<20) + "\r\n\r\n",
		"POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
		"POST /v1/orders HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
		"GET http://169.254.169.254/v1/orders HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		raw, err := net.Dial("unix", s.path)
		require.NoError(t, err)
		require.NoError(t, raw.SetDeadline(time.Now().Add(time.Minute)))
		_, _ = raw.Write([]byte(garbage)) // it may hang up in the middle
		b := make([]byte, 12)
		_, err = io.ReadFull(raw, b)
		if err == nil {
			assert.Regexp(t, `^HTTP/1\.1 4`, string(b), "%.40q", garbage)
		}
		raw.Close()
	}
	assert.Zero(t, g.Status().Kinds[memguard.Applied])
	code, _ = ask(t, c, "GET", "/v1/status", "")
	assert.Equal(t, 200, code)
}

// There are no more connections than there is room for, and who comes after is
// told so.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	_, s, c := serving(t)
	for range mostConnections {
		raw, err := net.Dial("unix", s.path)
		require.NoError(t, err)
		defer raw.Close()
	}
	code, a := ask(t, c, "GET", "/v1/status", "")
	assert.Equal(t, http.StatusServiceUnavailable, code)
	assert.Equal(t, codeTooMany, a["code"])
}

// A hundred who wait for events get each of them, once and in order, and the end
// when the guard is closed.
func TestStreams(t *testing.T) {
	t.Parallel()
	g, s, _ := serving(t)
	ticked(t, g)
	const streams, orders = 100, 20
	var all sync.WaitGroup
	ended := make(chan uint64, streams)
	for range streams {
		all.Go(func() {
			client := &Client{pid: os.Getpid(), path: s.path, http: *over(s.path)}
			var last uint64
			for {
				es, err := client.Events(t.Context(), last, time.Minute)
				if errors.Is(err, io.EOF) {
					ended <- last
					return
				}
				if !assert.NoError(t, err) {
					return
				}
				for _, e := range es {
					if !assert.Equal(t, last+1, e.Seq) {
						return
					}
					last = e.Seq
				}
			}
		})
	}
	for range orders {
		_, err := g.Do(memguard.Order{Action: memguard.CollectGarbage, Reason: "a test"})
		require.NoError(t, err)
	}
	require.NoError(t, g.Close())
	all.Wait()
	close(ended)
	assert.Len(t, ended, streams)
	for last := range ended {
		assert.Equal(t, g.Status().Events, last)
		assert.GreaterOrEqual(t, last, uint64(orders))
	}
	_, err := (&Client{pid: os.Getpid(), path: s.path, http: *over(s.path)}).Report(t.Context())
	assert.Error(t, err, "that it is closed, or nothing any more")
}

// Streams under way do not hold up the end.
func TestCloseUnderAStream(t *testing.T) {
	t.Parallel()
	g, s, c := serving(t)
	ticked(t, g)
	failed := make(chan error, 1)
	go func() {
		_, err := c.Get("http://memguard/v1/events?wait=1m&after=1000000")
		failed <- err
	}()
	require.Eventually(t, func() bool { return len(s.streams) > 0 }, time.Minute, time.Millisecond)
	require.NoError(t, s.Close())
	require.Error(t, <-failed)
	assert.NoFileExists(t, s.path)
	require.NoError(t, s.Close(), "again")
	require.Eventually(t, func() bool { return len(s.streams) == 0 }, time.Minute, time.Millisecond)
}

// A defect of a handler is an answer, not the end.
func TestPanicIsContained(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	s := &Server{log: slog.New(slog.NewTextHandler(&text, nil)), quick: make(gate, 1)}
	for range 3 { // its place is free again
		w := newRecorder()
		s.handler("", s.quick, func(http.ResponseWriter, *http.Request) (answer, error) { panic("a defect") }).
			ServeHTTP(w, mustRequest(t, "/v1/status"))
		assert.Equal(t, http.StatusInternalServerError, w.code)
		assert.Contains(t, w.String(), "panic: a defect")
	}
	assert.Contains(t, text.String(), "agent_linux_test.go", "the stack is logged")
}

type recorder struct {
	bytes.Buffer
	code   int
	header http.Header
}

func newRecorder() *recorder             { return &recorder{header: http.Header{}} }
func (r *recorder) Header() http.Header  { return r.header }
func (r *recorder) WriteHeader(code int) { r.code = code }
func mustRequest(t *testing.T, path string) *http.Request {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	require.NoError(t, err)
	return r
}

// A guard that hangs, here because what it reads does, is said to hang; events
// still flow.
func TestGuardHangs(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sleep", "60")
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	src, err := memguard.Open(cmd.Process.Pid)
	require.NoError(t, err)
	release := make(chan struct{})
	hung := make(chan struct{}, 1)
	src.See(func(*memguard.Runtime) ([]smaps.Range, error) {
		select {
		case hung <- struct{}{}:
		default:
		}
		<-release
		return nil, errors.New("nothing to see")
	})
	g, _, c := serving(t, memguard.Config{Source: src})
	<-hung
	for _, path := range []string{"/v1/status", "/v1/report"} {
		code, a := ask(t, c, "GET", path, "")
		assert.Equal(t, http.StatusServiceUnavailable, code)
		assert.Equal(t, codeHangs, a["code"])
		assert.Contains(t, a["error"], "last tick was")
	}
	code, a := ask(t, c, "POST", "/v1/orders", `{"action":"gc","reason":"r"}`)
	assert.Equal(t, http.StatusServiceUnavailable, code)
	assert.Equal(t, codeHangs, a["code"])
	code, _ = ask(t, c, "GET", "/v1/events", "")
	assert.Equal(t, 200, code)
	assert.Greater(t, g.Alive(), 3*hangsAfter, "each of them has waited for so long")
	close(release)
	code, _ = ask(t, c, "GET", "/v1/status", "")
	assert.Equal(t, 200, code)
	code, a = ask(t, c, "POST", "/v1/orders", `{"action":"gc","reason":"r"}`)
	assert.Equal(t, http.StatusUnprocessableEntity, code)
	assert.Contains(t, a["error"], "another process")
}

func TestDirectoryIsPrivate(t *testing.T) {
	t.Parallel()
	base := shortDir(t)
	dir := filepath.Join(base, "new")
	require.NoError(t, private(dir))
	require.NoError(t, private(dir), "again")
	st, err := os.Stat(dir)
	require.NoError(t, err)
	assert.EqualValues(t, 0o700, st.Mode().Perm())

	link := filepath.Join(base, "link")
	require.NoError(t, os.Symlink(dir, link))
	assert.ErrorContains(t, private(link), "not a directory")
	file := filepath.Join(base, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	assert.ErrorContains(t, private(file), "not a directory")
	for _, mode := range []os.FileMode{0o701, 0o710, 0o770, 0o777} {
		require.NoError(t, os.Chmod(dir, mode))
		assert.ErrorContains(t, private(dir), "others may enter")
	}
	require.NoError(t, os.Chmod(dir, 0o700))
	if os.Getuid() == 0 {
		require.NoError(t, os.Chown(dir, 65534, 65534))
		assert.ErrorContains(t, private(dir), "belongs to user 65534")
	}
	assert.ErrorIs(t, private(filepath.Join(base, "no", "such")), os.ErrNotExist)
}

// Sockets of the dead are removed; what lives, or is no socket, stays.
func TestSweep(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	leave := func(name string) string {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, name), Net: "unix"})
		require.NoError(t, err)
		l.SetUnlinkOnClose(false)
		require.NoError(t, l.Close())
		return filepath.Join(dir, name)
	}
	const free = 4194999 // beyond the largest pid that there can be
	stale, own, odd := leave(strconv.Itoa(free)+".sock"), leave(strconv.Itoa(os.Getppid())+".sock"), leave("orders.sock")
	file := filepath.Join(dir, strconv.Itoa(free+1)+".sock")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	elsewhere := filepath.Join(dir, strconv.Itoa(free+2)+".sock") // of another PID namespace
	l, err := net.Listen("unix", elsewhere)
	require.NoError(t, err)
	defer l.Close()
	mine := leave(strconv.Itoa(os.Getpid()) + ".sock") // of a process that had our pid

	g := memguard.Start(memguard.Config{DryRun: true})
	defer g.Close()
	s, err := serve(g, dir, Config{})
	require.NoError(t, err)
	defer s.Close()
	assert.NoFileExists(t, stale)
	for _, path := range []string{own, odd, file, elsewhere, mine} {
		assert.FileExists(t, path)
	}
	_, err = serve(g, dir, Config{})
	assert.ErrorContains(t, err, "answers there already")
	assert.True(t, answers(s.path), "and it still does")

	_, err = Serve(nil, Config{})
	assert.ErrorContains(t, err, "no guard")
	_, err = listen("/tmp/" + strings.Repeat("x", 100))
	assert.ErrorContains(t, err, "TMPDIR")
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	const status = "Name:\torders\nTgid:\t4711\nPid:\t4711\nPPid:\t1\nUid:\t1000\t1001\t1000\t1000\nGid:\t5\t5\t5\t5\nNSpid:\t4711\t12\t1\n"
	pid, uids, err := identity([]byte(status))
	require.NoError(t, err)
	assert.Equal(t, 1, pid)
	assert.Equal(t, []int{1001, 1000}, uids)
	pid, _, err = identity([]byte("Pid:\t7\nUid:\t0\t0\t0\t0\n")) // an old kernel
	require.NoError(t, err)
	assert.Equal(t, 7, pid)
	for _, bad := range []string{"", "Pid:\t7\n", "Uid:\t0\t0\t0\t0\n", "Pid:\tx\nUid:\t0\t0\t0\t0\n", "Pid:\t7\nUid:\tx\ty\t0\t0\n"} {
		_, _, err := identity([]byte(bad))
		assert.Error(t, err, "%q", bad)
	}
	const rootless = "         0       1000          1\n         1     100000      65536\n"
	assert.Equal(t, 0, inside([]byte(rootless), 1000))
	assert.Equal(t, 33, inside([]byte(rootless), 100032))
	assert.Equal(t, 7, inside(nil, 7))
	assert.Equal(t, "/run/x", lookup([]byte("A=b\x00XDG_RUNTIME_DIR=/run/x\x00"), "XDG_RUNTIME_DIR"))
}
