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
					idle(b, service)
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

// maxIdle is how much memory a sidecar with one target may have resident, in bytes.
const maxIdle = 16 << 20

// What a sidecar has resident once it has settled; BenchmarkIdle looks for longer.
func TestIdle(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	service := build(t, "./testdata/leaky", "-ldflags=-s -w")
	idle(t, service)
	r := start(t, "--exe", service, "--name", "idle")
	p, err := procfs.NewProc(r.cmd.Process.Pid)
	require.NoError(t, err)
	var s procfs.ProcStatus
	require.Eventually(t, func() bool {
		s, err = p.NewStatus()
		return err == nil && s.VmHWM > s.VmRSS+2<<20
	}, 2*time.Minute, time.Second, "it gives nothing back")
	t.Logf("%.1f MiB resident, of them %.1f of files; at most it was %.1f", float64(s.VmRSS)/(1<<20), float64(s.RssFile)/(1<<20), float64(s.VmHWM)/(1<<20))
	require.LessOrEqual(t, s.VmRSS, uint64(maxIdle))
}

// idle starts a service that does nothing for an hour.
func idle(t testing.TB, service string) {
	c := exec.Command(service, "-after", "1h")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getuid() == 0 {
		c.SysProcAttr.Credential = &syscall.Credential{Uid: podUID, Gid: podUID}
	}
	require.NoError(t, c.Start())
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
}

// usage is CPU time in seconds, and resident memory in bytes.
func usage(b testing.TB, pid int) (cpu, rss float64) {
	p, err := procfs.NewProc(pid)
	require.NoError(b, err)
	s, err := p.Stat()
	require.NoError(b, err)
	return s.CPUTime(), float64(s.ResidentMemory())
}

// maxBinary is how large the binary of the sidecar's image may be, in bytes. What
// makes it smaller than it would be: see deploy/README.md, "The image".
const maxBinary = 14_000_000

// What the binary weighs, and whose code is in it.
func TestBinary(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds the binary")
	}
	st, err := os.Stat(command())
	require.NoError(t, err)
	t.Logf("%d bytes, stripped", st.Size())
	require.LessOrEqual(t, st.Size(), int64(maxBinary))
	dockerfile, err := os.ReadFile("deploy/Dockerfile")
	require.NoError(t, err)
	require.Contains(t, string(dockerfile), "-trimpath -tags memguard_sidecar,nethttpomithttp2 -ldflags='-s -w -funcalign=16'")

	path := build(t, "./cmd/memguard") // with every command
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
