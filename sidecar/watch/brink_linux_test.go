// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What is in the way of holding kills may go while the process lives.
func TestOOMHoldAgain(t *testing.T) {
	t.Parallel()
	bin := programFile(t)
	box := sandboxOf(t, 96<<20)
	if box.Version() != 1 {
		t.Skip("cgroup version 2 cannot hold a kill")
	}
	below := filepath.Join(box.Dir(), "below")
	require.NoError(t, os.Mkdir(below, 0o755))
	w := watch(t, Config{Rules: exeRule("api", bin), Hold: -1, OOMHold: true, OOMDir: t.TempDir()})
	p := startChildBy(t, bin, box.Start)
	w.until("api", "refused", func(st *Status) bool {
		s := st.source("oom-hold")
		return s.State == Failed && strings.Contains(s.Why, "such as below")
	})
	require.NoError(t, os.Remove(below))
	w.until("api", "oom hold", func(st *Status) bool { return st.source("oom-hold").State == OK })
	p.kill()
	w.death()
}

// What a watcher that was killed left set is taken back by the next one, whether it is
// to hold kills or not.
func TestOOMLeftSet(t *testing.T) {
	t.Parallel()
	box := sandboxOf(t, 96<<20)
	if box.Version() != 1 {
		t.Skip("cgroup version 2 cannot hold a kill")
	}
	control := filepath.Join(box.Dir(), "memory.oom_control")
	require.NoError(t, os.WriteFile(control, []byte("1"), 0))
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	require.NoError(t, err)
	var st syscall.Stat_t
	require.NoError(t, syscall.Stat(box.Dir(), &st))
	dir := t.TempDir()
	note := filepath.Join(dir, fmt.Sprintf("%d-%d", st.Dev, st.Ino))
	require.NoError(t, os.WriteFile(note, []byte(string(boot)+box.Dir()+"\n"), 0o600))
	watch(t, Config{OOMDir: dir})
	require.Eventually(t, func() bool {
		b, err := os.ReadFile(control)
		_, gone := os.Stat(note)
		return err == nil && strings.Contains(string(b), "oom_kill_disable 0") && os.IsNotExist(gone)
	}, patience, 5*time.Millisecond)
}

// Where the kernel takes the memory at once, an exit that is held saves nothing of a
// kill for lack of memory.
func TestOOMHoldReaped(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, reaps := range []bool{false, true} {
		l := &life{w: &Watcher{reaps: reaps}, ctx: ctx}
		l.sources[srcHold].State = OK
		assert.Equal(t, reaps, l.exitNotHeld())
		assert.Equal(t, !reaps, l.holdsKilled())
	}
}
