// SPDX-License-Identifier: Apache-2.0

package sidecar_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/require"
)

// BenchmarkIdle is what a sidecar costs beside services that do nothing special: CPU
// as a share of one core, and resident memory, a minute after it has met them.
//
//	go test -run - -bench Idle -benchtime 1x ./sidecar
func BenchmarkIdle(b *testing.B) {
	service := build(b, "./testdata/leaky", "-ldflags=-s -w")
	for _, targets := range []int{1, 50} {
		b.Run(fmt.Sprintf("targets=%d", targets), func(b *testing.B) {
			for b.Loop() {
				for range targets {
					c := exec.Command(service, "-after", "1h")
					c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
					if os.Getuid() == 0 {
						c.SysProcAttr.Credential = &syscall.Credential{Uid: podUID, Gid: podUID}
					}
					require.NoError(b, c.Start())
					defer c.Wait()
					defer c.Process.Kill()
				}
				r := start(b, "--exe", service, "--name", "idle")
				var list struct{ Items []struct{ State string } }
				require.Eventually(b, func() bool {
					r.get("/runtimes", &list)
					return len(list.Items) == targets
				}, time.Minute, 100*time.Millisecond)
				time.Sleep(15 * time.Second) // the first looks are the dear ones
				cpu, _ := usage(b, r.cmd.Process.Pid)
				const look = 45 * time.Second
				time.Sleep(look)
				after, rss := usage(b, r.cmd.Process.Pid)
				b.ReportMetric(100*(after-cpu)/look.Seconds(), "%cpu")
				b.ReportMetric(rss/(1<<20), "MiB-RSS")
				b.ReportMetric(0, "ns/op") // the time is that of the look
			}
		})
	}
}

// usage is CPU time in seconds, and resident memory in bytes.
func usage(b *testing.B, pid int) (cpu, rss float64) {
	p, err := procfs.NewProc(pid)
	require.NoError(b, err)
	s, err := p.Stat()
	require.NoError(b, err)
	return s.CPUTime(), float64(s.ResidentMemory())
}

// maxBinary is how large the stripped binary may be, in bytes, so that it does not
// grow unseen. The goal is 14 MB.
const maxBinary = 17_000_000

// What the binary weighs, and whose code is in it.
func TestBinary(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds the binary")
	}
	path := build(t, "./cmd/memguard", "-trimpath", "-ldflags=-s -w")
	st, err := os.Stat(path)
	require.NoError(t, err)
	t.Logf("%d bytes, stripped", st.Size())
	require.LessOrEqual(t, st.Size(), int64(maxBinary))

	out, err := exec.Command("go", "version", "-m", path).Output()
	require.NoError(t, err)
	var modules []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "dep" {
			modules = append(modules, f[1])
		}
	}
	want, err := os.ReadFile("testdata/modules.txt")
	if os.Getenv("UPDATE") != "" {
		require.NoError(t, os.WriteFile("testdata/modules.txt", []byte(strings.Join(modules, "\n")+"\n"), 0o600))
		return
	}
	require.NoError(t, err)
	require.Equal(t, strings.Fields(string(want)), modules, "UPDATE=1 rewrites the list; a new module is worth a line of why in the commit")
	require.NotContains(t, strings.Join(modules, " "), "k8s.io")
}
