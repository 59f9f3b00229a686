// SPDX-License-Identifier: Apache-2.0

package brink

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/memguard/memguard-go/scavenge/cgroup"
)

// What a note says is taken back wherever the group can be seen, and nothing else is
// touched.
func TestReclaimAll(t *testing.T) {
	t.Parallel()
	c := start(t, true)
	dir, err := os.Open(c.box.Dir())
	require.NoError(t, err)
	defer dir.Close()
	id, err := idOf(dir)
	require.NoError(t, err)
	g, err := cgroup.Open("/proc", c.Process.Pid)
	require.NoError(t, err)
	defer g.Close()
	boot, err := bootID()
	require.NoError(t, err)
	other := groupID{id.dev, id.inode + 1<<40}
	const gone = "/proc/4194305/root/sys/fs/cgroup/memory\n"
	for _, x := range []struct {
		name string
		id   groupID
		text string
		back bool
	}{
		{"where it was", id, boot + c.box.Dir() + "\n" + g.Path() + "\n", true},
		{"by our mounts", id, boot + gone + g.Path() + "\n", true},
		{"by its process", id, boot + gone, true},
		{"another group there", other, boot + c.box.Dir() + "\n" + g.Path() + "\n", false},
		{"another boot", id, "00000000-0000-0000-0000-000000000000\n" + c.box.Dir() + "\n", false},
		{"cut off", id, boot[:8], false},
		{"empty", id, "", false},
	} {
		k := &Keeper{Dir: t.TempDir()}
		require.NoError(t, os.WriteFile(filepath.Join(c.box.Dir(), oomControl), []byte("1"), 0))
		require.NoError(t, os.WriteFile(k.note(x.id), []byte(x.text), 0o600))
		assert.NoError(t, k.ReclaimAll(), x.name)
		disabled, _ := c.state()
		assert.Equal(t, x.back, !disabled, x.name)
		assert.NoFileExists(t, k.note(x.id), x.name)
	}

	empty := version(t, 1)
	g2, err := cgroup.OpenDir(empty.Dir())
	require.NoError(t, err)
	defer g2.Close()
	dir2, err := os.Open(empty.Dir())
	require.NoError(t, err)
	defer dir2.Close()
	id2, err := idOf(dir2)
	require.NoError(t, err)
	k := &Keeper{Dir: t.TempDir()}
	require.NoError(t, os.WriteFile(filepath.Join(empty.Dir(), oomControl), []byte("1"), 0))
	require.NoError(t, os.WriteFile(k.note(id2), []byte(boot+gone+g2.Path()+"\n"), 0o600))
	assert.NoError(t, k.ReclaimAll())
	disabled, _, err := oomState(int(dir2.Fd()))
	require.NoError(t, err)
	assert.False(t, disabled, "nobody is in it, but our mounts show it")

	k = &Keeper{Dir: t.TempDir()}
	require.NoError(t, os.Mkdir(k.note(other), 0o700))
	require.NoError(t, os.WriteFile(k.note(id), []byte(boot+c.box.Dir()+"\n"), 0o600))
	assert.ErrorContains(t, k.ReclaimAll(), other.String(), "what cannot be read is told")
	disabled, _ = c.state()
	assert.False(t, disabled, "and keeps none of the others")

	k = &Keeper{Dir: t.TempDir()}
	h := newHeldBy(t, k, c, time.Second, func(context.Context) {})
	c.order("use %d", near)
	assert.Equal(t, "done 0\n", c.line())
	c.disabled(true)
	require.NoError(t, k.ReclaimAll())
	disabled, _ = c.state()
	assert.True(t, disabled, "what is our own and stands now")
	assert.FileExists(t, k.note(id))
	h.stop(t)

	assert.NoError(t, (&Keeper{}).ReclaimAll())
	assert.NoError(t, (&Keeper{Dir: filepath.Join(t.TempDir(), "none")}).ReclaimAll())
}

// The process moves to another cgroup while the setting stands, which goes with it.
func TestHoldMoved(t *testing.T) {
	t.Parallel()
	c := start(t, true)
	to := version(t, 1)
	h := newHeld(t, c, time.Second, func(context.Context) {})
	c.order("use %d", near)
	assert.Equal(t, "done 0\n", c.line())
	c.disabled(true)
	require.NoError(t, os.WriteFile(filepath.Join(to.Dir(), "cgroup.procs"), []byte(strconv.Itoa(c.Process.Pid)), 0))
	c.disabled(false)
	err := <-h.over
	require.ErrorIs(t, err, ErrNot)
	assert.ErrorContains(t, err, "the process has left "+c.box.Dir())
	assert.Equal(t, err.Error(), h.last())
	next, err := NewHold(c.Process.Pid, h.keeper, time.Second)
	require.NoError(t, err)
	assert.Equal(t, to.Dir(), next.dir())
	next.group.close()
	_ = c.Process.Kill() // before its group is removed
	_ = c.Wait()
}

// The sidecar has no descriptor left: the kernel kills as ever all the same, and the
// rest is done as soon as it can be.
func TestHolderFull(t *testing.T) {
	t.Parallel()
	c := start(t, true)
	dir := t.TempDir()
	h := startHolder(t, c, time.Hour, dir)
	c.order("use %d", near)
	assert.Equal(t, "done 0\n", c.line())
	c.disabled(true)
	var was unix.Rlimit
	require.NoError(t, unix.Prlimit(h.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: 4096}, &was))
	c.order("free")
	assert.Equal(t, "done 0\n", c.line())
	c.disabled(false)
	time.Sleep(4 * lookSet)
	notes, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, notes, 1, "groups below could not be looked for")
	require.NoError(t, unix.Prlimit(h.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 4096, Max: 4096}, nil))
	require.Eventually(t, func() bool {
		notes, err := os.ReadDir(dir)
		return err == nil && len(notes) == 0
	}, patience, 5*time.Millisecond)
	assert.True(t, h.alive())
}

// A keeper that stands still does not hold up who speaks to it.
func TestSend(t *testing.T) {
	t.Parallel()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	require.NoError(t, err)
	defer unix.Close(fds[1])
	f := os.NewFile(uintptr(fds[0]), "keeper")
	defer f.Close()
	over := make(chan error)
	go func() {
		for {
			if err := send(f, []byte(strings.Repeat("x", maxNote)), nil); err != nil {
				over <- err
				return
			}
		}
	}()
	select {
	case err := <-over:
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
	case <-time.After(patience):
		assert.Fail(t, "it waits")
	}
}

func TestReapsAtOnce(t *testing.T) {
	t.Parallel()
	for release, want := range map[string]bool{
		"4.19.0-27-amd64": true, "5.15.0-1071-aws": true, "5.17.15": true,
		"5.18.0": false, "6.1.0": false, "10.0.1": false, "5.x": false, "": false,
	} {
		assert.Equal(t, want, reapsAtOnce(release), release)
	}
}
