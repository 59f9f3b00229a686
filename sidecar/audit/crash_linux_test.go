// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestMain is also the children of TestProcessKilled and TestProcessSyncFails.
func TestMain(m *testing.M) {
	path := os.Getenv("MEMGUARD_AUDIT_CHILD")
	switch os.Getenv("MEMGUARD_AUDIT_EIO") {
	case "fsync":
		eioChild(path, unix.SYS_FSYNC)
	case "fsync,ftruncate":
		eioChild(path, unix.SYS_FSYNC, unix.SYS_FTRUNCATE)
	default:
		if path == "" {
			os.Exit(m.Run())
		}
		killedChild(path)
	}
}

// killedChild appends until it is killed, from several goroutines, and says which records
// Append took.
func killedChild(path string) {
	l, err := OpenLog(LogConfig{Path: path, MaxSize: 50_000, MaxBackups: 100_000})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var out sync.Mutex
	for g := range 4 {
		go func() {
			for i := 0; ; i++ {
				n := os.Getpid()*1_000_000 + g*200_000 + i
				e := event(n)
				e.UserAgent = strings.Repeat("x", i%3000)
				if err := l.Append(e); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				out.Lock()
				fmt.Println(n)
				out.Unlock()
			}
		}()
	}
	select {}
}

// TestProcessKilled kills a writer at random moments, again and again on the same log: what
// Append took is there, once, and every line is a record.
func TestProcessKilled(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	taken := map[int]bool{}
	for range 12 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), "MEMGUARD_AUDIT_CHILD="+path)
		var stderr strings.Builder
		child.Stderr = &stderr
		out, err := child.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, child.Start())
		after := 1 + rand.IntN(60) // records
		for s := bufio.NewScanner(out); s.Scan(); {
			var n int
			if _, err := fmt.Sscan(s.Text(), &n); err != nil {
				break // half a line
			}
			taken[n] = true
			if after--; after == 0 {
				time.AfterFunc(time.Duration(rand.IntN(3000))*time.Microsecond, func() { child.Process.Kill() })
			}
		}
		require.ErrorContains(t, child.Wait(), "killed", stderr.String())
	}
	l := open(t, LogConfig{Path: path, MaxBackups: 100_000})
	t.Logf("%d records taken; %d bytes torn in the end", len(taken), l.Torn())
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	require.NoError(t, err)
	found := map[int]int{}
	for _, f := range files {
		for _, n := range numbers(t, f) {
			found[n]++
		}
	}
	for n := range taken {
		assert.Equal(t, 1, found[n], "record %d", n)
	}
	assert.Greater(t, len(taken), 12)
}

func TestOneWriter(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, LogConfig{Path: path})
	_, err := OpenLog(LogConfig{Path: path})
	require.ErrorContains(t, err, "another process writes this log")
	require.NoError(t, l.Close())
	open(t, LogConfig{Path: path})
}

// TestProcessDiskFull fills a real file system. What does not fit is refused and leaves
// nothing behind; when there is room again it goes on.
func TestProcessDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=128k"); err != nil {
		t.Skipf("a file system of 128 KiB cannot be mounted (it takes root): %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	path := filepath.Join(dir, "audit.log")
	l := open(t, LogConfig{Path: path, MaxSize: 60_000, MaxBackups: 10})
	var taken []int
	refused := 0
	for i := range 600 {
		e := event(i)
		e.UserAgent = strings.Repeat("x", i%700)
		if err := l.Append(e); err != nil {
			require.ErrorIs(t, err, unix.ENOSPC)
			refused++
			continue
		}
		taken = append(taken, i)
	}
	assert.Greater(t, refused, 100)
	assert.Greater(t, len(taken), 100)
	read := func() (all []int) {
		files, err := filepath.Glob(filepath.Join(dir, "audit-*.log"))
		require.NoError(t, err)
		for _, f := range append(files, path) {
			all = append(all, numbers(t, f)...)
		}
		return all
	}
	assert.Equal(t, taken, read(), "what was taken is there, what was refused is not")

	// Torn by a kill on the full disk: it is healed although nothing can be kept aside.
	require.NoError(t, l.Close())
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, b[:len(b)-10], 0o600))
	l = open(t, LogConfig{Path: path})
	assert.Positive(t, l.Torn())
	assert.Equal(t, taken[:len(taken)-1], read())

	require.NoError(t, os.Remove(filepath.Join(dir, "audit-00000001.log")))
	require.NoError(t, l.Append(event(1000)))
	all := read()
	assert.Equal(t, 1000, all[len(all)-1])
}
