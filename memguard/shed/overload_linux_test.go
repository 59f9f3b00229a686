// SPDX-License-Identifier: Apache-2.0

package shed_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/memguard/shed"
	"github.com/memguard/memguard-go/scavenge/cgroup"
	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
)

const mib = 1 << 20

// partEnv makes this test binary play a part of an overload instead of running tests.
const partEnv = "MEMGUARD_SHED_PART"

func TestMain(m *testing.M) {
	if text := os.Getenv(partEnv); text != "" {
		var p part
		err := json.Unmarshal([]byte(text), &p)
		if err == nil {
			err = p.play()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if actorsDir != "" {
		os.RemoveAll(actorsDir)
	}
	os.Exit(code)
}

// part is what a process does. Its result is a line of JSON.
type part struct {
	Limit       uint64 // of the victim's cgroup
	Batch       uint64 // of the victim: the live heap that CPU-bound workers are to leave alone
	Semaphore   int    // of the victim: a fixed limit instead of a limiter
	Connections int    // of the victim: the same, as netutil.LimitListener does it

	Address   string // whom to load
	Rate      float64
	KeepAlive bool
	Duration  time.Duration
}

// actors is this test binary. Under the race detector it is one without: the
// detector's own memory would fill the limit.
var actors = sync.OnceValues(func() (string, error) {
	if !race {
		return os.Executable()
	}
	dir, err := os.MkdirTemp("", "shed")
	if err != nil {
		return "", err
	}
	actorsDir = dir
	bin := filepath.Join(dir, "shed.test")
	out, err := exec.Command("go", "test", "-c", "-race=false", "-o", bin, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go test -c: %w\n%s", err, out)
	}
	return bin, nil
})

var actorsDir string // of a binary that was built

func (p *part) command(t *testing.T) *exec.Cmd {
	t.Helper()
	bin, err := actors()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("no go command to build a program without the race detector: ", err)
	}
	require.NoError(t, err)
	text, err := json.Marshal(p)
	require.NoError(t, err)
	cmd := exec.Command(bin)
	cmd.Env = append(os.Environ(), partEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	return cmd
}

func (p *part) play() error {
	if p.Batch > 0 {
		return p.batch()
	}
	if p.Address != "" {
		return json.NewEncoder(os.Stdout).Encode(p.load())
	}
	return p.victim()
}

// work is a request of the overload: it holds 1 MiB for 50 to 200 ms.
func work(w http.ResponseWriter, r *http.Request) {
	b := make([]byte, mib)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	time.Sleep(50*time.Millisecond + rand.N(150*time.Millisecond))
	fmt.Fprintln(w, len(b))
	runtime.KeepAlive(b)
}

func (p *part) victim() error {
	g, err := cgroup.Open("/proc", 0)
	if err != nil {
		return err
	}
	l := shed.New(shed.Config{})
	l.SetLook(func() (uint64, bool) { n, err := g.Usage(); return n, err == nil })
	mux := http.NewServeMux()
	mux.HandleFunc("GET /work", work)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	guard(p.Limit, g, l)
	fmt.Println(ln.Addr())
	h := l.Handler(mux)
	if p.Semaphore > 0 {
		h = semaphore(p.Semaphore, mux)
		if p.Connections > 0 {
			ln = &limitListener{ln, make(chan struct{}, p.Connections)}
		}
	} else {
		ln = l.Listener(ln)
	}
	go func() { _ = http.Serve(ln, h) }()
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test closes it
	return nil
}

// semaphore admits n at a time: the other way to do it.
func semaphore(n int, next http.Handler) http.Handler {
	slots := make(chan struct{}, n)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			next.ServeHTTP(w, r)
		default:
			http.Error(w, "busy", http.StatusServiceUnavailable)
		}
	})
}

// node is what a heap rich in pointers is made of.
type node struct {
	next [8]*node
	_    [952]byte // with the header that malloc puts before it, 1 KiB
}

// batch holds a live heap, and beside it workers on all CPUs allocate without
// end, one unit after the other. It prints how many they did.
func (p *part) batch() error {
	g, err := cgroup.Open("/proc", 0)
	if err != nil {
		return err
	}
	l := shed.New(shed.Config{})
	l.SetLook(func() (uint64, bool) { n, err := g.Usage(); return n, err == nil })
	guard(p.Limit, g, l)
	heap := make([]*node, p.Batch/1024)
	for i := range heap {
		heap[i] = &node{}
		for j := range heap[i].next {
			heap[i].next[j] = heap[rand.IntN(i+1)]
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.Duration)
	defer cancel()
	var did answers
	var wg sync.WaitGroup
	for range 2 * runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for ctx.Err() == nil {
				leave, err := l.Enter(ctx, shed.Work{Route: "batch"})
				if err != nil {
					atomic.AddInt64(&did.Refused, 1)
					continue
				}
				var list *node
				for range 256 {
					list = &node{next: [8]*node{list}}
				}
				runtime.KeepAlive(list)
				atomic.AddInt64(&did.OK, 1)
				leave()
			}
		})
	}
	wg.Wait()
	runtime.KeepAlive(heap)
	return json.NewEncoder(os.Stdout).Encode(did)
}

// limitListener does not accept more than so many connections at once, as
// netutil.LimitListener of golang.org/x/net.
type limitListener struct {
	net.Listener
	slots chan struct{}
}

func (l *limitListener) Accept() (net.Conn, error) {
	l.slots <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitConn{Conn: c, slots: l.slots}, nil
}

type limitConn struct {
	net.Conn
	once  sync.Once
	slots chan struct{}
}

func (c *limitConn) Close() error {
	c.once.Do(func() { <-c.slots })
	return c.Conn.Close()
}

// guard does what the guard does for a limiter, and as much for the memory limit
// of the runtime as everybody here gets.
func guard(limit uint64, g *cgroup.Group, l *shed.Limiter) {
	names := []string{
		"/memory/classes/total:bytes", "/memory/classes/heap/released:bytes", "/gc/heap/live:bytes",
		"/memory/classes/heap/unused:bytes", "/memory/classes/heap/stacks:bytes", "/memory/classes/heap/free:bytes",
		"/gc/cycles/total:gc-cycles", "/memory/classes/heap/objects:bytes", "/gc/heap/allocs:bytes",
	}
	s := make([]metrics.Sample, len(names))
	for i := range s {
		s[i].Name = names[i]
	}
	margin := limit / 25
	tick := func() {
		usage, err := g.Usage()
		metrics.Read(s)
		if err != nil {
			return
		}
		v := func(i int) uint64 { return s[i].Value.Uint64() }
		mapped := v(0) - v(1)
		metadata := mapped - v(7) - v(3) - v(4) - v(5)
		left := int64(limit-margin) - int64(usage)
		debug.SetMemoryLimit(max(int64(mapped)+left, 0))
		l.Update(shed.Memory{
			Limit: limit, Usage: usage, Must: v(2) + v(3) + v(4) + metadata,
			Other: max(usage, mapped) - mapped, Free: v(5), Margin: margin, Cycles: v(6), Allocated: v(8),
		})
	}
	tick()
	go func() {
		for range time.Tick(10 * time.Millisecond) {
			tick()
		}
	}()
}

// answers is what a load got.
type answers struct {
	Sent, OK, Refused, Failed int64
	P50, P99                  time.Duration // of those that are OK
}

// load sends requests at a rate, whether they are answered or not.
func (p *part) load() (a answers) {
	dialer := &net.Dialer{Timeout: 2 * time.Second}
	client := &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{
		MaxIdleConnsPerHost: 1 << 16, DisableKeepAlives: !p.KeepAlive, DialContext: dialer.DialContext,
	}}
	var wg sync.WaitGroup
	var out atomic.Int64
	var mu sync.Mutex // guards took
	var took []time.Duration
	start := time.Now()
	for due := 0.; ; { // Poisson
		due += rand.ExpFloat64() / p.Rate
		if due > p.Duration.Seconds() {
			break
		}
		time.Sleep(time.Until(start.Add(time.Duration(due * float64(time.Second)))))
		a.Sent++
		if out.Load() > 20000 { // that client gives up at once
			atomic.AddInt64(&a.Failed, 1)
			continue
		}
		out.Add(1)
		wg.Go(func() {
			defer out.Add(-1)
			began := time.Now()
			resp, err := client.Get("http://" + p.Address + "/work")
			if err != nil {
				atomic.AddInt64(&a.Failed, 1)
				return
			}
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			switch {
			case err != nil:
				atomic.AddInt64(&a.Failed, 1)
			case resp.StatusCode == http.StatusOK:
				atomic.AddInt64(&a.OK, 1)
				mu.Lock()
				took = append(took, time.Since(began))
				mu.Unlock()
			default:
				atomic.AddInt64(&a.Refused, 1)
			}
		})
	}
	wg.Wait()
	a.P50, a.P99 = quantile(took, 0.5), quantile(took, 0.99)
	return a
}

func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[int(math.Round(q*float64(len(d)-1)))]
}

// overload runs a victim under a real limit and a load outside of it.
func overload(t *testing.T, victim, load part) (a answers, alive bool) {
	t.Helper()
	s, err := sandbox.New("shed", victim.Limit)
	if err != nil {
		t.Skip("no real memory limit: ", err)
	}
	defer s.Close()
	cmd := victim.command(t)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, s.Start(cmd))
	address, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	load.Address = strings.TrimSpace(address)
	text, err := load.command(t).Output()
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &a), "%s", text)
	in.Close()
	err = cmd.Wait()
	kills, kerr := s.Kills()
	require.NoError(t, kerr)
	return a, err == nil && kills == 0
}

// Seven times what fits under the limit, and the connections alone would fill it:
// the service lives and answers.
func TestProcessOverload(t *testing.T) {
	for _, keepAlive := range []bool{true, false} {
		survives(t, func() (alive bool) {
			a, alive := overload(t, part{Limit: 128 * mib}, part{Rate: 4000, KeepAlive: keepAlive, Duration: 7 * time.Second})
			t.Logf("keep-alive %v: %+v", keepAlive, a)
			if alive {
				require.NotZero(t, a.OK)
				require.NotZero(t, a.Refused)
			}
			return alive
		})
	}
}

// survives tries what lives on a machine of its own. Beside other tests the limiter
// may get no CPU for as long as it takes to fill the limit: how often that kills is for
// the lab to say, and here one life of three will do.
func survives(t *testing.T, try func() (alive bool)) {
	for range 3 {
		if try() {
			return
		}
		load, _ := os.ReadFile("/proc/loadavg")
		t.Logf("killed, at a load of %s", bytes.TrimSpace(load))
	}
	require.FailNow(t, "killed three times of three")
}

// CPU-bound work beside a live heap that leaves little room is delayed, not killed.
func TestProcessBatch(t *testing.T) {
	for _, percent := range []uint64{40, 75, 85} {
		survives(t, func() (alive bool) { return batchLives(t, percent) })
	}
}

func batchLives(t *testing.T, percent uint64) (alive bool) {
	const limit = 256 * mib
	s, err := sandbox.New("shed", limit)
	if err != nil {
		t.Skip("no real memory limit: ", err)
	}
	p := part{Limit: limit, Batch: limit / 100 * percent, Duration: 4 * time.Second}
	cmd := p.command(t)
	var out bytes.Buffer
	cmd.Stdout = &out
	require.NoError(t, s.Start(cmd))
	err = cmd.Wait()
	kills, kerr := s.Kills()
	require.NoError(t, kerr)
	require.NoError(t, s.Close())
	t.Logf("live heap at %d %%: killed %d, %s", percent, kills, out.Bytes())
	if kills > 0 {
		return false
	}
	require.NoError(t, err)
	var did answers
	require.NoError(t, json.Unmarshal(out.Bytes(), &did))
	require.NotZero(t, did.OK)
	return true
}
