// SPDX-License-Identifier: Apache-2.0

package page

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// build builds a program of the module above this one.
func build(t *testing.T, pkg string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), filepath.Base(pkg))
	c := exec.Command("go", "build", "-o", path, pkg)
	c.Dir = "../../.."
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return path
}

var listening = regexp.MustCompile(`msg=listening url=(\S+)/`)

// beside starts a real sidecar that watches the executable, and returns its URL.
func beside(t *testing.T, exe string) string {
	t.Helper()
	c := exec.Command(build(t, "./sidecar/cmd/memguard"), "sidecar", "--listen", "127.0.0.1:0", "--state-dir", filepath.Join(t.TempDir(), "state"), "--name", "leaky", "--exe", exe)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	pipe, err := c.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	var mu sync.Mutex
	var said bytes.Buffer
	found := make(chan string, 1)
	go func() {
		for s := bufio.NewScanner(pipe); s.Scan(); {
			mu.Lock()
			said.WriteString(s.Text() + "\n")
			mu.Unlock()
			if m := listening.FindStringSubmatch(s.Text()); m != nil {
				found <- m[1]
			}
		}
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		if t.Failed() {
			mu.Lock()
			t.Logf("the sidecar said:\n%s", &said)
			mu.Unlock()
		}
	})
	select {
	case url := <-found:
		return url
	case <-time.After(time.Minute):
		require.FailNow(t, "the sidecar does not listen")
		return ""
	}
}

// A real service leaks under a real limit until the kernel kills it, and is started
// again; a real sidecar watches, and a real browser shows it.
func TestRealServiceIsKilledBeforeTheEyesOfTheReader(t *testing.T) {
	b := newBrowser(t)
	box, err := sandbox.New("page", 128<<20)
	if err != nil {
		if os.Getenv("MEMGUARD_REQUIRE_CGROUP") != "" {
			require.NoError(t, err)
		}
		t.Skip(err)
	}
	t.Cleanup(func() { assert.NoError(t, box.Close()) })
	service := build(t, "./sidecar/testdata/leaky")
	url := beside(t, service)
	b.open(url)
	b.until(`document.querySelector(".lead")?.textContent.startsWith("No process matches")`, time.Minute)

	const long = 2 * time.Minute
	life := func(rate string) *exec.Cmd {
		c := exec.Command(service, "-rate", rate)
		require.NoError(t, box.Start(c))
		return c
	}
	first := life("8")
	b.until(`document.querySelectorAll(".area[d^=M]").length > 3`, long)
	b.until(`/^M.*[HV]/.test(document.querySelector(".limitline").getAttribute("d"))`, long)
	assert.Contains(t, b.text(".legend"), "128 MiB")
	b.click("#tab-goroutines")
	b.until(`document.getElementById("panel-goroutines").innerText.includes("main.")`, long)
	b.shot("real-goroutines")
	assert.Contains(t, b.text("#panel-goroutines"), "main.await", "where they wait")
	b.click("#tab-classes")
	b.until(`document.querySelectorAll("#panel-classes tbody tr").length > 3`, long)
	b.click("#tab-ledger")
	assert.Contains(t, b.text("#panel-ledger"), "go/heap/live")
	b.click("#tab-findings")
	b.until(`document.querySelector("#panel-findings .finding")`, long)
	b.shot("real-before")

	_ = first.Wait()
	kills, err := box.Kills()
	require.NoError(t, err)
	require.EqualValues(t, 1, kills, "the kernel killed it")
	b.until(`document.querySelector(".draw .mark.m-kill")`, long)
	second := life("1")
	b.until(`document.querySelector(".lead") && !document.querySelector(".lead").textContent.startsWith("No process matches")`, long)
	b.until(`document.querySelectorAll(".draw .life").length === 1`, long)
	b.shot("real-after")
	b.media("prefers-color-scheme", "dark")
	b.shot("real-after-dark")
	b.media("prefers-color-scheme", "light")

	b.click(".past a")
	b.until(`document.querySelectorAll(".area[d^=M]").length > 3 && document.querySelector("h1").textContent === "leaky: oom-kill"`, long)
	assert.Contains(t, b.text("main"), "main.remember", "the function whose memory it was")
	assert.Contains(t, b.text("main"), "128 MiB")
	b.shot("real-incident")
	b.open(url + "/#/events")
	b.until(`document.querySelectorAll("tbody tr").length > 3`, long)
	assert.Contains(t, b.text("tbody"), "appeared")
	b.shot("real-events")
	b.size(390, 844)
	b.open(url + "/#/t/leaky")
	b.until(`document.querySelectorAll(".area[d^=M]").length > 3`, long)
	assert.LessOrEqual(t, js[int](b, `document.documentElement.scrollWidth`), 390)
	b.shot("real-phone")
	_ = second.Process.Kill()
	_ = second.Wait()
	assert.Empty(t, b.heard(), "nothing was refused or went wrong")
}
