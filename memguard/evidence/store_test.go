// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

func TestStoreKeepsTheNewest(t *testing.T) {
	t.Parallel()
	s := &Store{Dir: filepath.Join(t.TempDir(), "deep", "down"), MaxFiles: 3, MaxBytes: 1000}
	var last string
	for i := range 5 {
		var err error
		last, err = s.Put(fmt.Sprintf("file%d", i), text("x"))
		require.NoError(t, err)
	}
	files, err := s.Files()
	require.NoError(t, err)
	require.Len(t, files, 3)
	assert.Equal(t, last, files[2])
	assert.True(t, strings.HasSuffix(files[0], "-file2"), files[0])

	st, err := os.Stat(last)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o600), st.Mode().Perm())

	_, err = s.Put("big", text(strings.Repeat("x", 999)))
	require.NoError(t, err)
	files, err = s.Files()
	require.NoError(t, err)
	assert.Len(t, files, 2, "999 bytes leave room for one of the others")
}

func TestStoreIsWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	s := &Store{Dir: t.TempDir(), MaxBytes: 100}
	keep, err := s.Put("keep", text("kept"))
	require.NoError(t, err)

	_, err = s.Put("large", text(strings.Repeat("x", 101)))
	require.ErrorIs(t, err, ErrFull)
	broken := errors.New("broken")
	_, err = s.Put("half", func(w io.Writer) error {
		_, _ = io.WriteString(w, "half")
		return broken
	})
	require.ErrorIs(t, err, broken)
	for _, name := range []string{"", "a/b", "../x", "a\x00b"} {
		_, err = s.Put(name, text("x"))
		require.Error(t, err, "%q", name)
	}

	entries, err := os.ReadDir(s.Dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing of a write that failed is left")
	assert.Equal(t, filepath.Base(keep), entries[0].Name())
}

func TestStoreRemovesWhatAKilledWriteLeft(t *testing.T) {
	t.Parallel()
	s := &Store{Dir: t.TempDir()}
	old, young, other := filepath.Join(s.Dir, ".tmp-memguard-1"), filepath.Join(s.Dir, ".tmp-memguard-2"), filepath.Join(s.Dir, "notes")
	for _, name := range []string{old, other} {
		require.NoError(t, os.WriteFile(name, []byte("x"), 0o600))
	}
	require.NoError(t, os.WriteFile(young, nil, 0o600))
	past := time.Now().Add(-2 * time.Hour)
	require.NoError(t, os.Chtimes(old, past, past))
	require.NoError(t, os.Chtimes(other, past, past))
	_, err := s.Put("x", text("x"))
	require.NoError(t, err)
	assert.NoFileExists(t, old)
	assert.FileExists(t, young, "it may be another process's, made just now")
	assert.FileExists(t, other, "it is not the store's")
}

func TestStoreWithoutADirectory(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	s := &Store{Dir: filepath.Join(file, "below")}
	_, err := s.Put("x", text("x"))
	require.ErrorContains(t, err, file)
	_, err = s.Files()
	require.Error(t, err)
}

// names are what is left of a store's names after the time.
func names(t *testing.T, s *Store) (short []string) {
	files, err := s.Files()
	require.NoError(t, err)
	for _, path := range files {
		short = append(short, filepath.Base(path)[len(prefix)+len(stamp)+1:])
	}
	return short
}

func TestStoreKeepsTheLastSeries(t *testing.T) {
	t.Parallel()
	s := &Store{Dir: t.TempDir(), MaxFiles: 6}
	begin := time.Now().Add(-24 * time.Hour)
	put := func(series int, names ...string) {
		for _, name := range names {
			_, err := s.PutAt(begin.Add(time.Duration(series)*time.Hour), name, text("x"))
			require.NoError(t, err)
		}
	}
	put(1, "1-a", "1-b")
	put(2, "single")
	put(3, "1-c", "1-d", "2-c")
	assert.Len(t, names(t, s), 6)
	put(3, "2-d")
	assert.Equal(t, []string{"single", "1-c", "1-d", "2-c", "2-d"}, names(t, s), "a series goes as a whole")
	put(4, "single4")
	put(5, "single5")
	put(6, "single6")
	assert.Equal(t, []string{"1-c", "1-d", "2-c", "2-d", "single5", "single6"}, names(t, s), "and the last one after the others")
	put(3, "3-c", "3-d")
	assert.Equal(t, []string{"1-c", "1-d", "2-c", "2-d", "3-c", "3-d"}, names(t, s))
	put(3, "4-c")
	assert.Equal(t, []string{"1-c", "1-d", "3-c", "3-d", "4-c"}, names(t, s), "first and last are what is compared")
	put(3, "4-d", "5-c", "5-d")
	assert.Equal(t, []string{"1-c", "1-d", "4-c", "4-d", "5-c", "5-d"}, names(t, s))

	s.MaxFiles = 1
	put(3, "5-e")
	assert.Equal(t, []string{"5-e"}, names(t, s))

	_, err := s.PutAt(begin, "old clock", text("x"))
	require.NoError(t, err)
	assert.Equal(t, []string{"old clock"}, names(t, s), "what was written just now is never removed")
}

// What a clock has left that was ahead goes first, also when it was set back amid a
// ramp-up.
func TestStoreAfterAClockSetBack(t *testing.T) {
	t.Parallel()
	s := &Store{Dir: t.TempDir()}
	put := func(series time.Time, from, to int) {
		for n := from; n <= to; n++ {
			for _, name := range []string{"report.txt", heapFile, goroutineFile} {
				_, err := s.PutAt(series, fmt.Sprintf("%03d-%02dpct-%s", n, 50+n, name), text("x"))
				require.NoError(t, err)
			}
		}
	}
	future := time.Now().Add(240 * time.Hour)
	put(future, 1, 3)
	put(future.Add(time.Hour), 1, 2)
	put(future, 4, 6)
	files, err := s.Files()
	require.NoError(t, err)
	pairs := Pairs(files)
	require.Len(t, pairs, 1)
	assert.True(t, pairs[0].Base.Series.Equal(future), "its series is the last one, whatever the clock says")
	assert.Equal(t, [2]int{1, 6}, [2]int{pairs[0].Base.Number, pairs[0].Later.Number})

	now := time.Now()
	put(now, 1, 4)
	files, err = s.Files()
	require.NoError(t, err)
	assert.Len(t, files, 12)
	pairs = Pairs(files)
	require.Len(t, pairs, 1)
	assert.True(t, pairs[0].Base.Series.Equal(now))
	assert.Equal(t, [2]int{1, 4}, [2]int{pairs[0].Base.Number, pairs[0].Later.Number})
}
