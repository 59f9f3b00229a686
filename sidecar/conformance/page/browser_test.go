// SPDX-License-Identifier: Apache-2.0

// Package page tests the live page in a real browser: against a sidecar whose
// words a test chooses, and beside a real service that is killed by the kernel.
package page

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// browser is a tab, and what it complained of.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu         sync.Mutex
	complaints []string
}

// chromium is the browser of all tests.
var chromium struct {
	once  sync.Once
	ctx   context.Context // nil: there is none
	stops []context.CancelFunc
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, stop := range slices.Backward(chromium.stops) {
		stop()
	}
	os.Exit(code)
}

// start starts the browser of all tests.
func start() {
	var exe string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			exe = p
			break
		}
	}
	if exe == "" {
		return
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(exe), chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	if os.Geteuid() == 0 {
		opts = append(opts, chromedp.NoSandbox) // Chromium has none to offer to root
	}
	ctx, stop := chromedp.NewExecAllocator(context.Background(), opts...)
	chromium.stops = append(chromium.stops, stop)
	ctx, stop = chromedp.NewContext(ctx)
	chromium.stops = append(chromium.stops, stop)
	if err := chromedp.Do(ctx); err != nil {
		panic(err)
	}
	chromium.ctx = ctx
}

// newBrowser opens a tab. The test is skipped where there is no Chromium.
func newBrowser(t *testing.T) *browser {
	chromium.once.Do(start)
	if chromium.ctx == nil {
		t.Skip("there is no chromium on this machine: the page is not tested in a browser")
	}
	ctx, stop := chromedp.NewContext(chromium.ctx)
	t.Cleanup(stop)
	b := &browser{t: t, ctx: ctx}
	require.NoError(t, chromedp.Do(ctx))
	messages := chromedp.Console(ctx)
	go func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			if m.IsException() || m.Type == "error" || m.Type == "warning" {
				b.complain(fmt.Sprintf("%s %s: %s %s", m.Source, m.Type, m.Text, m.URL))
			}
		}
	}()
	b.size(1360, 1000)
	return b
}

func (b *browser) complain(s string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.complaints = append(b.complaints, s)
}

// heard returns what the browser complained of since it was last asked: errors,
// exceptions, and what the policy of the page refused.
func (b *browser) heard() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.complaints
	b.complaints = nil
	return c
}

func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	require.NoError(b.t, chromedp.Do(ctx, actions...))
}

// call runs a command of the browser's protocol.
func call[P, R any](b *browser, cmd cdp.Command[P, R], params P) R {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	r, err := chromedp.Call(ctx, cmd, params)
	require.NoError(b.t, err)
	return r
}

func (b *browser) size(w, h int64) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(w, h))
}

// media sets a feature that styles ask for: prefers-color-scheme to dark.
func (b *browser) media(name, value string) {
	b.t.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: name, Value: value}}})
}

func (b *browser) open(url string) {
	b.t.Helper()
	b.do(chromedp.Navigate(url))
}

func (b *browser) keys(keys string) {
	b.t.Helper()
	b.do(chromedp.KeyEvent(keys))
}

// js evaluates an expression.
func js[T any](b *browser, expr string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expr, chromedp.EvalAwaitPromise))
	require.NoError(b.t, err, expr)
	return v
}

// until waits for an expression to become true; what is shown otherwise is in the
// failure.
func (b *browser) until(expr string, within time.Duration) {
	b.t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(50 * time.Millisecond) {
		if js[bool](b, "Boolean("+expr+")") {
			return
		}
		if time.Now().After(end) {
			b.shot("failed")
			require.Fail(b.t, "it did not come to be", "%s\ncomplaints: %q\nshown:\n%.3000s", expr, b.heard(), js[string](b, "document.body.innerText"))
		}
	}
}

// shot keeps a picture of the whole page in the directory that the environment
// names, for people to look at.
func (b *browser) shot(name string) {
	b.t.Helper()
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		return
	}
	all := true
	png := call(b, page.CaptureScreenshot, page.CaptureScreenshotParams{CaptureBeyondViewport: &all}).Data
	require.NoError(b.t, os.MkdirAll(dir, 0o755))
	require.NoError(b.t, os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644))
}

func nav(url string) chromedp.Action[chromedp.Void] { return chromedp.Navigate(url) }
