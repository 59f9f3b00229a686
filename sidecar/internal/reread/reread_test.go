// SPDX-License-Identifier: Apache-2.0

package reread

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestValueFollowsItsFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	write := func(path, text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
	write(first, "a")
	write(second, "b")
	synctest.Test(t, func(t *testing.T) {
		made := 0
		v, err := New(func(read Read) (string, error) {
			made++
			a, err := read(first)
			if err != nil {
				return "", err
			}
			if bytes.Contains(a, []byte("bad")) {
				return "", errors.New("first is bad")
			}
			b, err := read(second)
			return string(a) + string(b), err
		})
		require.NoError(t, err)
		assert.Equal(t, "ab", v.Get())

		write(first, "A")
		assert.Equal(t, "ab", v.Get(), "looked at again before its time")
		time.Sleep(Every)
		assert.Equal(t, "Ab", v.Get())

		write(first, "bad")
		time.Sleep(Every)
		require.EqualError(t, v.Err(), "first is bad")
		assert.Equal(t, "Ab", v.Get(), "the old one stays")
		n := made
		time.Sleep(Every)
		v.Get()
		assert.Equal(t, n, made, "a bad file that did not change is not parsed again")

		write(first, "1")
		write(second, "2")
		time.Sleep(Every)
		assert.Equal(t, "12", v.Get())
		require.NoError(t, v.Err())

		require.NoError(t, os.Remove(second))
		time.Sleep(Every)
		require.ErrorContains(t, v.Err(), second)
		assert.Equal(t, "12", v.Get())

		// As Kubernetes does with a ConfigMap: a link takes the file's place.
		write(filepath.Join(dir, "third"), "3")
		require.NoError(t, os.Symlink("third", second))
		time.Sleep(Every)
		assert.Equal(t, "13", v.Get())
		require.NoError(t, v.Err())
	})
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	huge := filepath.Join(dir, "huge")
	require.NoError(t, os.WriteFile(huge, make([]byte, MaxFile+1), 0o600))
	for path, want := range map[string]string{
		filepath.Join(dir, "missing"): "no such file",
		dir:                           "not a regular file",
		huge:                          "larger than",
	} {
		_, err := New(func(read Read) ([]byte, error) { return read(path) })
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, path)
	}
}

func TestValueIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte("0"), 0o600))
	v, err := New(func(read Read) (string, error) {
		b, err := read(path)
		return string(b), err
	})
	require.NoError(t, err)
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for i := range 200 {
				v.due.Store(0)
				_ = os.WriteFile(path, []byte{byte('0' + i%10)}, 0o600)
				assert.LessOrEqual(t, len(v.Get()), 1)
			}
		})
	}
	wait.Wait()
	v.due.Store(0)
	require.NoError(t, v.Err())
}
