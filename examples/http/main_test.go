// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image/png"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/shed"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// started runs the service as main does, with a limiter that the test tells of the memory.
func started(t *testing.T) (get func(path string) (int, string), limiter *shed.Limiter) {
	limiter = shed.New(shed.Config{Work: work, Wait: -1})
	guard := memguard.Start(memguard.Config{DryRun: true, Shed: limiter}) // for the page: it tells the limiter nothing
	t.Cleanup(func() { guard.Close() })
	server := httptest.NewUnstartedServer(service(guard, limiter))
	server.Listener, server.Config.ConnState = limiter.Listener(server.Listener), limiter.ConnState
	server.Start()
	t.Cleanup(server.Close)
	return func(path string) (int, string) {
		resp, err := http.Get(server.URL + path)
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(b)
	}, limiter
}

func TestThumbnail(t *testing.T) {
	t.Parallel()
	get, _ := started(t)
	code, body := get("/thumbnails/42?size=64")
	require.Equal(t, http.StatusOK, code, body)
	picture, err := png.Decode(strings.NewReader(body))
	require.NoError(t, err)
	assert.Equal(t, 64, picture.Bounds().Dx())
	code, _ = get("/thumbnails/42?size=-1")
	assert.Equal(t, http.StatusBadRequest, code)
	code, _ = get("/thumbnails/x?size=1")
	assert.Equal(t, http.StatusNotFound, code)

	code, body = get("/debug/shed")
	require.Equal(t, http.StatusOK, code)
	var s shed.Snapshot
	require.NoError(t, json.Unmarshal([]byte(body), &s))
	assert.Equal(t, "GET /thumbnails/{id}", s.Routes[0].Route)
	assert.EqualValues(t, 3, s.Routes[0].Admitted)
}

// The page names what is refused, and takes nothing for markup.
func TestPage(t *testing.T) {
	t.Parallel()
	get, limiter := started(t)
	leave, err := limiter.Enter(t.Context(), shed.Work{Route: "<script>"})
	require.NoError(t, err)
	leave()
	limiter.Refuse(100)
	code, _ := get("/thumbnails/1?size=1")
	require.Equal(t, http.StatusServiceUnavailable, code)
	code, body := get("/debug/memory")
	require.Equal(t, http.StatusOK, code, body)
	assert.Contains(t, body, "By order 100 % of it is refused.")
	assert.Regexp(t, `<td>GET /thumbnails/\{id\}<td class="n">not known yet<td class="n">0<td class="n">0<td class="n">1</tr>`, body)
	assert.Contains(t, body, "&lt;script&gt;")
	assert.NotContains(t, body, "<script>")
	assert.Equal(t, "unknown", size(memguard.Bytes{}))
	assert.Equal(t, "none", size(memguard.Known[uint64](memguard.Unlimited)))
	assert.Equal(t, "-1.5 MiB", size(memguard.Known[int64](-3<<19)))
	assert.Equal(t, "the limit is reached in 1m30s", left(memguard.Known(90.2)))
}

// The program is built, run, asked for pictures, and shows them on its page.
func TestProgram(t *testing.T) {
	t.Parallel()
	exe := filepath.Join(t.TempDir(), "http")
	out, err := exec.Command("go", "build", "-o", exe, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	cmd := exec.Command(exe, "-addr", "127.0.0.1:0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	require.True(t, ok, line)
	get := func(path string) (int, string) {
		resp, err := http.Get("http://" + addr + path)
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(b)
	}
	code, body := get("/healthz")
	assert.Equal(t, http.StatusOK, code)
	assert.Equal(t, "ok\n", body)
	for i := range 3 {
		code, body = get(fmt.Sprintf("/thumbnails/%d?size=16", i))
		require.Equal(t, http.StatusOK, code, body)
		picture, err := png.Decode(strings.NewReader(body))
		require.NoError(t, err)
		assert.Equal(t, 16, picture.Bounds().Dx())
	}
	require.Eventually(t, func() bool {
		_, body = get("/debug/memory")
		return !strings.Contains(body, "tick 0:")
	}, time.Minute, 10*time.Millisecond)
	assert.Regexp(t, `(?s)<h2>Findings</h2>.*<h2>Sample</h2>.*<tr><td>charged.*<h2>Ledger</h2>.*<tr><td>go/heap/live<td.*<h2>Work</h2>`, body)
	assert.Regexp(t, `<td>GET /thumbnails/\{id\}<td class="n">[^<]*<td class="n">0<td class="n">3<td class="n">0</tr>`, body)
	if runtime.GOOS == "linux" {
		assert.Regexp(t, `<tr><td>resident<td class="n">\d+\.\d MiB</tr>`, body)
	}

	if runtime.GOOS == "windows" {
		t.Skip("a process cannot be told to end on windows")
	}
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), "%s", &stderr)
}

// Told to end, the service answers what it has begun, and takes in no more.
func TestShutdown(t *testing.T) {
	t.Parallel()
	begun, finish := make(chan struct{}), make(chan struct{})
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(begun)
		<-finish
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, end := context.WithCancel(t.Context())
	ended, answered := make(chan error, 1), make(chan error, 1)
	go func() { ended <- serve(ctx, server, l) }()
	go func() {
		resp, err := http.Get("http://" + l.Addr().String())
		if err == nil {
			resp.Body.Close()
		}
		answered <- err
	}()
	<-begun
	end()
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			c.Close()
		}
		return err != nil
	}, time.Minute, time.Millisecond)
	close(finish)
	require.NoError(t, <-answered)
	require.NoError(t, <-ended)
	require.ErrorIs(t, serve(t.Context(), server, l), http.ErrServerClosed, "what keeps it from serving is said")
}

// When something else fills the room, pictures are refused, and served again
// when it has gone.
func TestRefused(t *testing.T) {
	t.Parallel()
	get, limiter := started(t)
	const mib = 1 << 20
	limiter.Update(shed.Memory{Limit: 640 * mib, Usage: 500 * mib, Must: 580 * mib, Margin: 30 * mib})
	var leaves []func()
	for {
		leave, err := limiter.Enter(t.Context(), shed.Work{Route: "import", Wait: -1})
		if err != nil {
			break
		}
		leaves = append(leaves, leave)
		require.Less(t, len(leaves), 1000)
	}
	code, body := get("/thumbnails/1?size=1")
	assert.Equal(t, http.StatusServiceUnavailable, code, body)
	for _, leave := range leaves {
		leave()
	}
	code, body = get("/thumbnails/1?size=1")
	assert.Equal(t, http.StatusOK, code, body)
}
