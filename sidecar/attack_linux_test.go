// SPDX-License-Identifier: Apache-2.0

package sidecar_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// mostRSS bounds what a sidecar holds while it is attacked with everything here.
const mostRSS = 96 << 20

// alive requires that the sidecar answers, and that its memory is bounded.
func (r *running) alive(after string) {
	r.t.Helper()
	c := http.Client{Timeout: 10 * time.Second}
	resp, err := c.Get(r.url + "/livez")
	require.NoError(r.t, err, after)
	resp.Body.Close()
	require.Equal(r.t, http.StatusOK, resp.StatusCode, after)
	p, err := procfs.NewProc(r.cmd.Process.Pid)
	require.NoError(r.t, err)
	s, err := p.Stat()
	require.NoError(r.t, err)
	require.Less(r.t, s.ResidentMemory(), mostRSS, after)
}

// A sidecar beside a hostile service, with hostile clients: it stays up, bounded,
// and says no.
func TestUnderAttack(t *testing.T) {
	service := build(t, "./testdata/leaky", "-ldflags=-s -w")
	hostile := filepath.Join(filepath.Dir(service), "<img src=x onerror=alert(1)>\n\x1b[2J]`\u202e")
	require.NoError(t, os.Link(service, hostile))
	victim := exec.Command(hostile, "-after", "1h")
	victim.Args[0] = "\x1b]0;owned\a<script>alert(1)</script>" + strings.Repeat("A", 100000)
	victim.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getuid() == 0 {
		victim.SysProcAttr.Credential = &syscall.Credential{Uid: podUID, Gid: podUID}
	}
	require.NoError(t, victim.Start())
	t.Cleanup(func() { _ = victim.Process.Kill(); _ = victim.Wait() })

	r := start(t, "--exe", filepath.Dir(service)+"/*", "--name", "hostile")
	addr := strings.TrimPrefix(r.url, "http://")
	base := "/apis/memguard.dev/v1alpha1/namespaces/default"
	var list struct{ Items []struct{ State string } }
	require.Eventually(t, func() bool { r.get("/runtimes", &list); return len(list.Items) == 1 }, 30*time.Second, 100*time.Millisecond)

	t.Run("hostile names", func(t *testing.T) {
		for _, path := range []string{base + "/runtimes", "/metrics", base + "/events?wait=0s"} {
			body := r.text(path)
			assert.False(t, bytes.ContainsAny(body, "\x1b\a"), "a control character in %s", path)
			assert.False(t, bytes.Contains(body, []byte("<script>")), path)
			assert.Less(t, len(body), 1<<20, path)
		}
	})
	t.Run("paths", func(t *testing.T) {
		for _, path := range []string{
			"/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", base + "/incidents/..%2f..%2faudit.log", base + "/incidents/%2e%2e",
			base + "/runtimes/a%00b", base + "/runtimes/" + strings.Repeat("x", 10000), base + "//runtimes", base + "/runtimes/hostile/profiles/../../..",
			base + "/incidents/x/files/..%2f..%2f..%2fetc%2fpasswd", "/apis/memguard.dev/v1alpha1/namespaces/..%2f/runtimes",
		} {
			status, body := raw(t, addr, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
			assert.NotContains(t, status, " 200 ", path)
			assert.NotContains(t, status, " 500 ", path)
			assert.NotContains(t, body, "root:", path)
		}
		r.alive("path tricks")
	})
	t.Run("bodies and tokens", func(t *testing.T) {
		for _, body := range []string{"{", "null", "[]", `{"to":1e999}`, `{"to":50,"to":60}`, strings.Repeat("[", 60000), strings.Repeat("x", 1<<20)} {
			for _, token := range []string{"", "Bearer x", "Bearer a.b.c", "Basic AAAA", "Bearer " + strings.Repeat("a", 8000), "Bearer eyJhbGciOiJub25lIn0.e30."} {
				req, err := http.NewRequest(http.MethodPut, r.url+base+"/runtimes/hostile/gcpercent", strings.NewReader(body))
				require.NoError(t, err)
				req.Header.Set("Content-Type", "application/json")
				if token != "" {
					req.Header.Set("Authorization", token)
				}
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					continue // hung up on
				}
				resp.Body.Close()
				assert.Contains(t, []int{400, 401, 403, 413, 429}, resp.StatusCode, "%.40q with %.20q", body, token)
			}
		}
		r.alive("bodies and tokens")
	})
	t.Run("noise", func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(1, 2))
		for range 200 {
			b := make([]byte, rnd.IntN(2000))
			for i := range b {
				b[i] = byte(rnd.Uint32())
			}
			raw(t, addr, string(b))
		}
		r.alive("noise")
	})
	t.Run("slow clients and a thousand streams", func(t *testing.T) {
		var conns []net.Conn
		defer func() {
			for _, c := range conns {
				c.Close()
			}
		}()
		for i := range 1000 {
			c, err := net.Dial("tcp", addr)
			require.NoError(t, err)
			conns = append(conns, c)
			_, _ = fmt.Fprintf(c, "GET %s/events?watch=1 HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n", base) // and never reads
			if i%5 == 0 {
				if c, err = net.Dial("tcp", addr); err == nil {
					conns = append(conns, c)
					_, _ = io.WriteString(c, "GET / HT") // and never ends
				}
			}
		}
		r.alive("a thousand streams")
		// All of them come from one address, which may have a hundred.
		require.Eventually(t, func() bool {
			status, body := raw(t, addr, "GET "+base+"/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
			return strings.Contains(status, " 429 ") && strings.Contains(body, "this caller has 100 streams and polls open")
		}, 30*time.Second, 100*time.Millisecond)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { // others are served meanwhile
				for range 10 {
					r.alive("beside a thousand streams")
				}
			})
		}
		wg.Wait()
	})
	r.alive("all of it")
}

// raw sends bytes and returns the first line of the answer and its body.
func raw(t *testing.T, addr, request string) (status, body string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(500 * time.Millisecond))
	if strings.HasPrefix(request, "GET") {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	}
	_, _ = io.WriteString(c, request)
	b := bufio.NewReader(c)
	status, _ = b.ReadString('\n')
	rest, _ := io.ReadAll(io.LimitReader(b, 1<<20))
	return status, string(rest)
}

// A disk without a byte left: the sidecar watches on, keeps what it has, refuses what
// it cannot record, and says why.
func TestDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may mount a small file system")
	}
	dir, err := os.MkdirTemp("", "memguard-state-*")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=4m,mode=700,uid=%d,gid=%d", podUID, podUID)); err != nil {
		t.Skipf("no tmpfs may be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	service := build(t, "./testdata/leaky", "-ldflags=-s -w")
	run := func() *exec.Cmd {
		c := exec.Command(service, "-after", "1h")
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: &syscall.Credential{Uid: podUID, Gid: podUID}}
		require.NoError(t, c.Start())
		return c
	}
	r := startIn(t, dir, "--exe", service, "--name", "orders")
	first := run()
	var list struct{ Items []struct{ State string } }
	running := func() bool {
		r.get("/runtimes", &list)
		return len(list.Items) == 1 && list.Items[0].State == "running"
	}
	require.Eventually(t, running, 30*time.Second, 100*time.Millisecond)
	time.Sleep(2 * time.Second) // the exit is held by now
	require.NoError(t, first.Process.Kill())
	_ = first.Wait()
	r.incident()

	fill, err := os.Create(filepath.Join(dir, "fill"))
	require.NoError(t, err)
	_, err = io.Copy(fill, &zeros{})
	require.ErrorIs(t, err, syscall.ENOSPC)
	fill.Close()
	second := run()
	require.Eventually(t, running, 30*time.Second, 100*time.Millisecond)
	require.NoError(t, second.Process.Kill())
	_ = second.Wait()
	require.Eventually(t, func() bool { return strings.Contains(r.logs.String(), "no space left on device") }, 30*time.Second, 100*time.Millisecond, "it says why there is no report")
	var incidents struct{ Items []incidentItem }
	r.get("/incidents", &incidents)
	assert.Len(t, incidents.Items, 1, "the older one is not lost")
	r.alive("a full disk")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A sidecar that is told to end ends, with streams open.
func TestEnds(t *testing.T) {
	r := start(t, "--command", "no such process", "--name", "none")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+"/apis/memguard.dev/v1alpha1/namespaces/default/events?watch=1", nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.NoError(t, r.cmd.Process.Signal(syscall.SIGTERM))
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, ctx.Err(), "the stream outlives the sidecar")
	_ = err
	state, err := r.cmd.Process.Wait()
	require.NoError(t, err)
	assert.True(t, state.Success(), "%v", state)
}
