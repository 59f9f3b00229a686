// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The test binary runs itself again as a writer of a store.
const (
	writeEnv = "MEMGUARD_TEST_STORE"
	fullEnv  = "MEMGUARD_TEST_FULL_DISK"
)

func init() {
	if dir := os.Getenv(writeEnv); dir != "" {
		s, err := OpenStore(dir, Limits{Count: 10_000})
		for i := 0; err == nil; i++ {
			var id string
			id, err = s.Add(ended(i), []File{{Name: "heap.pb.gz", Content: bytes.Repeat([]byte{byte(i)}, 100_000)}})
			fmt.Println(id)
		}
		fmt.Println(err)
		os.Exit(1)
	}
	if dir := os.Getenv(fullEnv); dir != "" {
		if err := fillDisk(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// Killed at any moment, every incident that Add has returned is whole, and nothing
// half-written is left after the next start.
func TestStoreKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	acknowledged := map[string]bool{}
	for round := range 6 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), writeEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			require.True(t, validID(lines.Text()), lines.Text())
			acknowledged[lines.Text()] = true
			if n == 2+round {
				go func() { // in the middle of one of the next
					time.Sleep(time.Duration(round) * time.Millisecond)
					_ = cmd.Process.Kill()
				}()
			}
		}
		_ = cmd.Wait()
	}
	s := openStore(t, dir, Limits{Count: 10_000})
	all, err := s.List()
	require.NoError(t, err)
	assert.GreaterOrEqual(t, len(all), len(acknowledged))
	for _, i := range all {
		files, err := s.Files(i.ID)
		require.NoError(t, err)
		require.Len(t, files, 1)
		assert.Len(t, files[0].Content, 100_000)
		assert.NotContains(t, i.Verdict, "cannot be read")
		delete(acknowledged, i.ID)
	}
	assert.Empty(t, acknowledged)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		assert.False(t, strings.HasPrefix(e.Name(), unfinished), e.Name())
	}
}

// A disk of 1 MiB, in a mount namespace of its own.
func TestStoreFullDisk(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fullEnv+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || strings.HasPrefix(string(out), "skip:") {
		t.Skipf("no file system of our own: %v %s", err, out)
	}
	require.NoError(t, err, "%s", out)
}

func fillDisk(dir string) error {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		return fmt.Errorf("skip: %w", err)
	}
	s, err := OpenStore(dir, Limits{})
	if err != nil {
		return err
	}
	r := ended(0)
	first, err := s.Add(r, []File{{Name: "a", Content: make([]byte, 400_000)}})
	if err != nil {
		return err
	}
	r = ended(1)
	_, err = s.Add(r, []File{{Name: "a", Content: make([]byte, 900_000)}})
	switch files, readErr := s.Files(first); {
	case !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "no space left on device"):
		return fmt.Errorf("want an error that says so, not %v", err)
	case r.ID != "":
		return errors.New("the report that was not kept has an ID")
	case readErr != nil || len(files) != 1 || len(files[0].Content) != 400_000:
		return fmt.Errorf("the older incident is lost: %v", readErr)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 { // with the lock
		return fmt.Errorf("left behind: %v %v", entries, err)
	}
	if _, err := s.Add(ended(2), nil); err != nil {
		return fmt.Errorf("one that fits: %w", err)
	}
	return nil
}
