// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The test binary runs itself again as a process that is killed while it writes.
const putEnv = "MEMGUARD_TEST_PUT"

func init() {
	dir := os.Getenv(putEnv)
	if dir == "" {
		return
	}
	s := &Store{Dir: dir}
	_, err := s.Put("heap.pb.gz", func(w io.Writer) error {
		_, err := w.Write(make([]byte, 1<<10))
		fmt.Println("amid it", err)
		time.Sleep(time.Hour)
		return err
	})
	fmt.Println(err)
	os.Exit(1)
}

// A crash loop that dies of its captures does not fill the disk, and who shares
// the directory loses nothing.
func TestStoreInACrashLoop(t *testing.T) {
	t.Parallel()
	s := &Store{Dir: t.TempDir()}
	temporary := func() int {
		left, err := filepath.Glob(filepath.Join(s.Dir, tempPrefix+"*"))
		require.NoError(t, err)
		return len(left)
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	for range 3 {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), putEnv+"="+s.Dir)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		defer cmd.Process.Kill()
		lines := bufio.NewScanner(out)
		require.True(t, lines.Scan())
		require.Equal(t, "amid it <nil>", lines.Text())
		assert.Equal(t, 1, temporary(), "what the one before left is gone")
		_, err = s.Put("x", text("x"))
		require.NoError(t, err)
		assert.Equal(t, 1, temporary(), "it writes, in another process")
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
	}
	_, err = s.Put("x", func(w io.Writer) error {
		assert.Equal(t, 1, temporary(), "its own")
		return nil
	})
	require.NoError(t, err)
	assert.Zero(t, temporary())
}

// A clock that was set back does not make the last death the first to go.
func TestBoxAfterAClockSetBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := func(b *Box, at time.Time) string {
		return filepath.Join(dir, boxPrefix+at.UTC().Format(stamp)+strings.TrimPrefix(filepath.Base(b.Path()), boxPrefix)[len(stamp):])
	}
	cfg := BoxConfig{Dir: dir, Service: "orders", Keep: 2, Bytes: 64 << 10}
	var future []string
	for i := range 2 {
		b := open(t, cfg)
		b.die()
		future = append(future, name(b, time.Now().Add(time.Duration(24+i)*time.Hour)))
		require.NoError(t, os.Rename(b.Path(), future[i]))
	}
	last := open(t, cfg)
	last.die()
	now := open(t, cfg)
	boxes, err := Boxes(dir)
	require.NoError(t, err)
	assert.Equal(t, []string{last.Path(), now.Path(), future[1]}, boxes)
	previous, err := Previous(dir, "orders")
	require.NoError(t, err)
	require.Len(t, previous, 2)
	assert.Equal(t, strings.TrimSuffix(last.Path(), boxSuffix)+oldSuffix, previous[0], "the newest first")
}
