// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/target"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func opened(t *testing.T, dir string) *journal {
	t.Helper()
	j, err := openJournal(dir, "boot")
	require.NoError(t, err)
	t.Cleanup(func() { _ = j.close() })
	return j
}

func begun(id, setting string, to int64) *write {
	return &write{
		ID: id, Time: time.Now(), By: "alice", Target: "app", Process: target.Identity{PID: 7, Start: 8}, Action: memguard.SetGCPercent,
		Setting: setting, To: to, Until: time.Now().Add(time.Hour), Reason: "r",
	}
}

func ids(es []entry) (out []string) {
	for _, e := range es {
		out = append(out, e.ID)
	}
	return out
}

func TestJournalSurvives(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	j := opened(t, dir)
	do := func(ls ...line) {
		for _, l := range ls {
			require.NoError(t, j.append(l))
		}
	}
	do(line{Begin: begun("1", "gcpercent", 50)}, line{End: &outcome{ID: "1", Seq: 11, Code: 200}})
	do(line{Begin: begun("2", "gcpercent", 60)}, line{End: &outcome{ID: "2", Seq: 12, Code: 200}}) // in the place of 1
	do(line{Begin: begun("3", "shed", 10)}, line{End: &outcome{ID: "3", Code: 422}})               // refused
	do(line{Begin: begun("4", "breaker", 2)})                                                      // cut off
	do(line{Begin: begun("5", "memorylimit", 1<<30)}, line{End: &outcome{ID: "5", Seq: 13, Code: 200}})
	undo := begun("6", "memorylimit", 0)
	undo.Until, undo.Undoes = time.Time{}, "5"
	do(line{Begin: undo}, line{End: &outcome{ID: "6", Seq: 14, Code: 200}})
	other := begun("7", "gcpercent", 70)
	other.Process.Start = 9
	do(line{Begin: other}, line{End: &outcome{ID: "7", Seq: 1, Code: 200}}, line{Over: &over{"7", "its process has ended"}})
	assert.Equal(t, []string{"2", "4"}, ids(j.standing()))

	_, err := openJournal(dir, "boot")
	assert.ErrorContains(t, err, "another sidecar uses it")
	require.NoError(t, j.close())
	assert.Error(t, j.append(line{Begin: begun("8", "shed", 1)}))

	// A kill cuts the last line off, a disk turns one in the middle to garbage.
	b, err := os.ReadFile(j.path)
	require.NoError(t, err)
	b = append([]byte("{\"begin\":{\"id\":\"x\"}}\n\x00\x00\x00\n"), b...)
	b = append(b, []byte(strings.Repeat("x", mostLine+10)+"\n"+`{"over":{"id":"2","why":"cut o`)...)
	require.NoError(t, os.WriteFile(j.path, b, 0o600))
	require.NoError(t, os.WriteFile(j.path+".new", []byte("left by a kill"), 0o600))
	j = opened(t, dir)
	assert.Equal(t, []string{"2", "4"}, ids(j.standing()))
	assert.Equal(t, 4, j.skipped)
	st, err := os.Stat(j.path)
	require.NoError(t, err)
	assert.EqualValues(t, 0o600, st.Mode().Perm())
	assert.NoFileExists(t, j.path+".new")
}

// What cannot be written did not happen, and what comes after is whole.
func TestJournalThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	j := opened(t, t.TempDir())
	require.NoError(t, j.append(line{Begin: begun("1", "gcpercent", 50)}))
	whole := j.file
	read, err := os.Open(j.path) // no writing through this one
	require.NoError(t, err)
	j.file = read
	assert.Error(t, j.append(line{Begin: begun("2", "gcpercent", 60)}))
	assert.Nil(t, j.state("2"))
	require.NoError(t, j.append(line{Begin: begun("3", "shed", 60)}), "the file is written anew")
	require.NoError(t, whole.Close())
	assert.Error(t, j.append(line{End: &outcome{ID: "3", Seq: 1, Body: bytes.Repeat([]byte("1"), mostAnswer+1)}}))
	require.NoError(t, j.close())
	assert.Equal(t, []string{"1", "3"}, ids(opened(t, filepath.Dir(j.path)).standing()))
}

// Thousands of writes leave a small file, and the overrides that stand are never
// forgotten for the sake of answers.
func TestJournalIsBounded(t *testing.T) {
	t.Parallel()
	j := opened(t, t.TempDir())
	sync := func(l line) { // without the disk, which is not what is tested here
		text, err := encodeLine(l)
		require.NoError(t, err)
		j.disk.Lock()
		defer j.disk.Unlock()
		if j.size+int64(len(text)) > j.compact {
			require.NoError(t, j.rewrite())
		}
		_, err = j.file.Write(text)
		require.NoError(t, err)
		j.size += int64(len(text))
		j.take(l)
	}
	sync(line{Begin: begun("stands", "gcpercent", 50)})
	sync(line{End: &outcome{ID: "stands", Seq: 1, Code: 200}})
	j.leave("stands")
	for caller := range 6 {
		for i := range 2 * mostKeys {
			w := begun(fmt.Sprintf("%d-%d", caller, i), "", 0)
			w.By, w.Key, w.Hash = fmt.Sprint("caller ", caller), fmt.Sprint("key ", i), "h"
			sync(line{Begin: w})
			sync(line{End: &outcome{ID: w.ID, Seq: 1, Code: 202, Body: json.RawMessage(`{}`)}})
			j.leave(w.ID)
		}
	}
	j.mu.Lock()
	j.tidy()
	n := len(j.order)
	j.mu.Unlock()
	assert.LessOrEqual(t, n, mostEntries)
	assert.Equal(t, []string{"stands"}, ids(j.standing()))
	assert.Less(t, j.size, int64(8<<20))
	w := &write{By: "caller 5", Key: fmt.Sprint("key ", 2*mostKeys-1), Hash: "h"}
	first, err := j.claim(w)
	require.NoError(t, err)
	assert.Equal(t, 202, first.Code, "the latest are kept")
}

func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := opened(t, dir)
	w := begun("1", "", 0)
	w.Key, w.Hash = "k", "h"
	first, err := j.claim(w)
	require.NoError(t, err)
	assert.Nil(t, first)
	_, err = j.claim(w)
	assert.ErrorContains(t, err, "under way")
	differs := *w
	differs.Hash = "i"
	_, err = j.claim(&differs)
	assert.ErrorContains(t, err, "another request")
	stranger := *w
	stranger.By = "bob"
	first, err = j.claim(&stranger)
	require.NoError(t, err)
	assert.Nil(t, first, "a key is the caller's own")

	j.disclaim(w) // it was refused before it began
	first, err = j.claim(w)
	require.NoError(t, err)
	assert.Nil(t, first)
	require.NoError(t, j.begin(w))
	j.disclaim(w)
	_, err = j.claim(w)
	assert.ErrorContains(t, err, "cut off")
	require.NoError(t, j.append(line{End: &outcome{ID: "1", Seq: 5, Code: 202, Body: json.RawMessage(`{"a":1}`)}}))
	j.leave("1")
	require.NoError(t, j.close())

	j = opened(t, dir)
	first, err = j.claim(w)
	require.NoError(t, err)
	require.NotNil(t, first, "also after a restart")
	assert.Equal(t, `{"a":1}`, string(first.Body))
	_, err = j.claim(&differs)
	assert.ErrorContains(t, err, "another request")
	j.entries["1"].Time = time.Now().Add(-answersKept)
	first, err = j.claim(w)
	require.NoError(t, err)
	assert.Nil(t, first, "a day later")
}

// Whatever is in the file, what is taken of it can be written and comes back the
// same.
func FuzzJournal(f *testing.F) {
	var seed bytes.Buffer
	w := begun("1", "gcpercent", 50)
	for _, l := range []line{{Begin: w}, {End: &outcome{ID: "1", Seq: 2, Code: 200, Body: json.RawMessage(`{}`)}}, {Over: &over{"1", "w"}}} {
		b, err := encodeLine(l)
		require.NoError(f, err)
		seed.Write(b)
	}
	f.Add(seed.Bytes())
	f.Add([]byte(`{"begin":{"id":"1","time":"2026-01-02T15:04:05Z","setting":"no-such"}}` + "\n"))
	f.Add([]byte(`{"begin":{"id":"1","time":"2026-01-02T15:04:05Z","undoes":"1","setting":"shed"}}` + "\n" + `{"end":{"id":"1","seq":1}}` + "\n"))
	f.Add([]byte("{}\nnull\n[]\n{\"end\":null}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		read := func(b []byte) (*journal, int, int) {
			j := &journal{entries: map[string]*entry{}, underway: map[[2]string]string{}}
			taken := 0
			skipped, err := readLines(bytes.NewReader(b), func(l line) { taken++; j.take(l) })
			if err != nil {
				t.Fatal(err)
			}
			return j, taken, skipped
		}
		j, taken, skipped := read(b)
		if n := bytes.Count(b, []byte("\n")); taken+skipped < n || taken+skipped > n+1 {
			t.Fatalf("%d lines: %d taken, %d left out", n, taken, skipped)
		}
		if len(j.order) != len(j.entries) || len(j.order) > taken {
			t.Fatalf("%d entries in order, %d by id, of %d lines", len(j.order), len(j.entries), taken)
		}
		for _, e := range j.standing() {
			if o := newOverride(&e); o.To == nil || e.Until.IsZero() {
				t.Fatalf("%+v", o)
			}
			text, err := encodeLine(line{Begin: &e.write})
			if err != nil {
				t.Fatal(err)
			}
			again, _, _ := read(text)
			if again.state(e.ID) == nil {
				t.Fatalf("%s: does not come back", text)
			}
		}
	})
}
