// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func openStore(t testing.TB, dir string, l Limits) *Store {
	t.Helper()
	s, err := OpenStore(dir, l)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// ended is a small report of an end so many seconds after theEnd.
func ended(seconds int) *Report {
	r, _ := New(&Evidence{Target: "orders", Ended: theEnd.Add(time.Duration(seconds) * time.Second), Exit: Exit{Known: true, Code: 1 + seconds%100}}, Meta{})
	return r
}

func TestStore(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "incidents")
	s := openStore(t, dir, Limits{})
	r, files := New(leaked(t), Meta{Pod: "p"})
	id, err := s.Add(r, append(files, File{Name: "Heap.pb.gz", What: "another", Content: []byte("x")}, File{Name: "../../x", Content: []byte("y")}))
	require.NoError(t, err)
	assert.Equal(t, "20261103T030405.600000000Z-orders", id)
	assert.Equal(t, id, r.ID)
	second, err := s.Add(ended(0), nil)
	require.NoError(t, err)
	assert.Equal(t, "20261103T030405.600000001Z-orders", second, "of the same moment")
	third, err := s.Add(ended(-1), nil)
	require.NoError(t, err)

	all, err := s.List()
	require.NoError(t, err)
	require.Len(t, all, 3)
	assert.Equal(t, []string{second, id, third}, []string{all[0].ID, all[1].ID, all[2].ID}, "the newest first")
	assert.Equal(t, r.Verdict, all[1].Verdict)
	assert.Equal(t, "p", all[1].Pod)
	assert.Greater(t, all[1].Bytes, int64(1000))
	n, bytes, err := s.Size()
	require.NoError(t, err)
	assert.Equal(t, 3, n)
	assert.Equal(t, all[0].Bytes+all[1].Bytes+all[2].Bytes, bytes)

	got, err := s.Get(id)
	require.NoError(t, err)
	_, _, _, want := write(t, r, nil)
	_, _, _, js := write(t, got, nil)
	assert.Equal(t, string(want), string(js))
	kept, err := s.Files(id)
	require.NoError(t, err)
	var names []string
	for _, f := range kept {
		names = append(names, f.Name)
	}
	assert.Equal(t, []string{"heap.pb.gz", "2-heap.pb.gz", "-..-x"}, names)
	assert.Equal(t, files[0].Content, kept[0].Content)
	b, err := s.File(id, "report.json")
	require.NoError(t, err)
	assert.Contains(t, string(b), `"cause": "oom-kill"`)

	// Nobody else may look.
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, _ error) error {
		st, err := os.Lstat(path)
		require.NoError(t, err)
		want := os.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		assert.Equal(t, want, st.Mode().Perm(), path)
		return nil
	}))

	_, err = OpenStore(dir, Limits{})
	require.ErrorIs(t, err, ErrInUse)
	reader, err := ReadStore(dir)
	require.NoError(t, err)
	_, err = reader.Get(id)
	require.NoError(t, err)
	_, err = reader.Add(ended(5), nil)
	require.ErrorIs(t, err, ErrReadOnly)
	_, err = ReadStore(filepath.Join(dir, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestStoreTricks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir, Limits{})
	id, err := s.Add(ended(0), nil)
	require.NoError(t, err)
	writeFile(t, filepath.Join(dir, "secret"), "x")
	for _, bad := range []string{"", ".", "..", "../" + filepath.Base(dir) + "/" + id, id + "/", id + "/..", id + "\x00", ".lock", strings.ToUpper(id), "20261103T030405.600000000Z-..", "20261103T030405.600000000Z-", id + "x", strings.Repeat("a", 9999)} {
		_, err := s.Get(bad)
		require.ErrorIs(t, err, ErrNoIncident, "%q", bad)
		_, err = s.File(bad, reportFile)
		require.ErrorIs(t, err, ErrNoIncident, "%q", bad)
	}
	for _, bad := range []string{"", ".", "..", "../../secret", "/etc/passwd", "a/b", ".post-x", "none", "x\x00"} {
		_, err := s.File(id, bad)
		require.ErrorIs(t, err, os.ErrNotExist, "%q", bad)
	}
	// What is damaged is listed, and takes its place in the bounds.
	require.NoError(t, os.WriteFile(filepath.Join(dir, id, summaryFile), []byte("{"), 0o600))
	all, err := s.List()
	require.NoError(t, err)
	require.Len(t, all, 1)
	assert.Contains(t, all[0].Verdict, "cannot be read")
	assert.True(t, all[0].Time.Equal(theEnd))
	assert.Positive(t, all[0].Bytes)
}

// A clock that was set back, by whom does not matter: what comes then is the newest,
// not the first to go, and webhooks are told of it last. It says when it was.
func TestStoreAfterTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir, Limits{Count: 3})
	require.NoError(t, s.register([]string{"hook"}, nil))
	first, err := s.Add(ended(1000), nil)
	require.NoError(t, err)
	want := []string{first}
	for i := range 4 {
		r := ended(i)
		id, err := s.Add(r, nil)
		require.NoError(t, err)
		assert.Greater(t, id, want[len(want)-1])
		want = append(want, id)
		got, err := s.Get(id)
		require.NoError(t, err)
		assert.True(t, got.Ended.Equal(theEnd.Add(time.Duration(i)*time.Second)))
		require.NoError(t, s.Close())
		s = openStore(t, dir, Limits{Count: 3}) // also over a restart
		require.NoError(t, s.register([]string{"hook"}, nil))
	}
	pending, err := s.pending("hook")
	require.NoError(t, err)
	assert.Equal(t, want[2:], pending, "the oldest went first")
	all, err := s.List()
	require.NoError(t, err)
	assert.True(t, all[0].Time.Equal(theEnd.Add(3*time.Second)))

	// A name that somebody else made does not lead out of the calendar.
	require.NoError(t, os.Mkdir(filepath.Join(dir, "99991231T235959.999999999Z-x"), 0o700))
	id, err := s.Add(ended(9), nil)
	require.NoError(t, err)
	assert.True(t, validID(id), id)
}

func TestStoreBounds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir, Limits{Count: 3})
	var ids []string
	for i := range 5 {
		id, err := s.Add(ended(i), nil)
		require.NoError(t, err)
		ids = append(ids, id)
	}
	have := func(s *Store) (ids []string) {
		all, err := s.List()
		require.NoError(t, err)
		for _, i := range all {
			ids = append([]string{i.ID}, ids...)
		}
		return ids
	}
	assert.Equal(t, ids[2:], have(s))
	// One that is told of a little late is in its place, and stays.
	late, err := s.Add(ended(-10), nil)
	require.NoError(t, err)
	assert.Equal(t, []string{late, ids[3], ids[4]}, have(s))
	require.NoError(t, s.Close())

	_, size, err := s.Size()
	require.NoError(t, err)
	size *= 4
	s = openStore(t, dir, Limits{Bytes: size})
	id, err := s.Add(ended(10), []File{{Name: "a", Content: make([]byte, size/4)}, {Name: "b", Content: make([]byte, size)}})
	require.NoError(t, err)
	r, err := s.Get(id)
	require.NoError(t, err)
	require.Len(t, r.Files, 1)
	assert.Equal(t, "a", r.Files[0].Name)
	assert.Contains(t, fmt.Sprint(r.Unknown), "more than the store has room for")
	_, now, err := s.Size()
	require.NoError(t, err)
	assert.LessOrEqual(t, now, size)
	require.NoError(t, s.Close())

	s = openStore(t, dir, Limits{Count: 1})
	assert.Equal(t, []string{id}, have(s), "bounds that are lower than they were")
	require.NoError(t, s.Close())
	s = openStore(t, t.TempDir(), Limits{Bytes: 100})
	_, err = s.Add(ended(1), nil)
	require.ErrorContains(t, err, "more than the store takes")
	_, err = OpenStore(dir, Limits{Count: -1})
	require.Error(t, err)
}

func TestStoreTogether(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), Limits{Count: 7})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 5 {
				_, err := s.Add(ended(i), nil)
				assert.NoError(t, err)
				_, err = s.List()
				assert.NoError(t, err)
			}
		})
	}
	wg.Wait()
	all, err := s.List()
	require.NoError(t, err)
	assert.Len(t, all, 7)
	left, err := filepath.Glob(filepath.Join(s.dir, unfinished+"*"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

// A crash loop that ends as it means to does not drive out the report of a kill.
func TestPruneKeepsWhatMatters(t *testing.T) {
	t.Parallel()
	s := openStore(t, filepath.Join(t.TempDir(), "incidents"), Limits{Count: 3})
	kill := add(t, s, 0)
	for i := range 10 {
		r, _ := New(&Evidence{Target: "job", Ended: theEnd.Add(time.Duration(i+1) * time.Second), Exit: Exit{Known: true}}, Meta{})
		_, err := s.Add(r, nil)
		require.NoError(t, err)
	}
	all, err := s.List()
	require.NoError(t, err)
	require.Len(t, all, 3)
	assert.Equal(t, kill, all[2].ID)
	assert.Equal(t, theEnd.Add(10*time.Second), all[0].Time, "the last one is there, too")
}
