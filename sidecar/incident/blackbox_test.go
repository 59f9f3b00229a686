// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/evidence"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fromJSON reads what these tests write: a line in JSON.
func fromJSON(layout uint32, r evidence.BoxRecord) (l Line, err error) {
	if layout != 1 {
		return l, errors.New("another layout")
	}
	switch r.Kind {
	case 1:
		err = json.Unmarshal(r.Payload, &l.Moment)
		if l.Moment != nil {
			l.Moment.Time = r.Time
		}
	case 2:
		err = json.Unmarshal(r.Payload, &l.Note)
		if l.Note != nil {
			l.Note.Time = r.Time
		}
	default:
		err = errors.New("another kind")
	}
	return l, err
}

const mebi = 1 << 20

// story is a service's life: usage in MiB of 256, once a second.
type story struct {
	usage  []uint64
	kills  string // JSON of the last moment's counter
	clean  bool
	cache  uint64 // MiB of page cache, part of the usage
	free   bool   // there is no limit
	layout uint32
}

// write writes it, and copies the box so that no process holds it.
func (s story) write(t testing.TB) string {
	dir := t.TempDir()
	b, err := evidence.OpenBox(evidence.BoxConfig{Dir: dir, Service: "orders", Build: "v1.2.3", Layout: max(s.layout, 1)})
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	require.NoError(t, err)
	defer b.Close()
	end := time.Now().Add(time.Hour)
	begin := end.Add(-time.Duration(len(s.usage)) * time.Second)
	for i, u := range s.usage {
		live := uint64(float64(u) * 0.8 * mebi)
		limit := memguard.Known[uint64](256 * mebi)
		if s.free {
			limit = memguard.Bytes{}
		}
		line, err := json.Marshal(map[string]any{"usage": u * mebi, "limit": limit, "undroppable": (u - s.cache) * mebi, "live": live, "oom_kills": json.RawMessage(or(s.kills, "null"))})
		require.NoError(t, err)
		at := begin.Add(time.Duration(i+1) * time.Second)
		require.NoError(t, b.Record(at, 1, line))
		if i == len(s.usage)/2 {
			require.NoError(t, b.Note(at, 2, []byte(`{"kind":"finding","severity":"warning","name":"oom-forecast","text":"It has 60 s \u001b[31mleft."}`)))
			require.NoError(t, b.Note(at, 2, []byte(`{"kind":"action","name":"gc-percent","text":"100 -> 50"}`)))
			require.NoError(t, b.Note(at, 9, []byte("?")))
		}
	}
	if s.clean {
		require.NoError(t, b.Close())
	}
	content, err := os.ReadFile(b.Path())
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), filepath.Base(b.Path()))
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func climb(from, to uint64, n int) (usage []uint64) {
	for i := range n {
		usage = append(usage, from+(to-from)*uint64(i)/uint64(max(n-1, 1)))
	}
	return usage
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		story   story
		o       Options
		cause   Cause
		says    []string
		saysNot string
	}{
		{"the kernel counted it", story{usage: climb(100, 251, 60), kills: "3"}, Options{OOMKills: memguard.Known[uint64](4)},
			OOMKill, []string{"orders (pid ", "killed by the kernel", "from 3 to 4", "251.0 MiB of 256.0 MiB (98 %)", "growing by"}, ""},
		{"also far from the limit", story{usage: climb(100, 101, 60), kills: "3"}, Options{OOMKills: memguard.Known[uint64](4)}, OOMKill, []string{"39 %"}, "growing"},
		{"near the limit", story{usage: climb(100, 251, 60)}, Options{}, OOMSuspected, []string{"suspected", "98 %", "did not close"}, "oom_kill"},
		{"near the limit, not counted", story{usage: climb(100, 251, 60), kills: "3"}, Options{OOMKills: memguard.Known[uint64](3)}, OOMSuspected, []string{"counts no kill"}, ""},
		{"a burst between two looks", story{usage: []uint64{100, 100, 100, 100, 100, 170, 230}}, Options{}, OOMSuspected, []string{"90 %", "growing by 43.3 MiB a second"}, ""},
		{"another death", story{usage: climb(100, 110, 60)}, Options{}, OtherDeath, []string{"not for lack of memory", "43 %"}, ""},
		{"a full page cache", story{usage: climb(100, 251, 60), cache: 90}, Options{}, OtherDeath, []string{"161.0 MiB of 256.0 MiB"}, ""},
		{"the machine", story{usage: climb(100, 110, 60)}, Options{Boot: "another"}, Restarted, []string{"started anew"}, ""},
		{"near the limit, and then the machine", story{usage: climb(100, 250, 60)}, Options{Boot: "another"}, OOMSuspected, nil, ""},
		{"as it meant to", story{usage: climb(100, 255, 60), clean: true}, Options{OOMKills: memguard.Known[uint64](4)}, CleanExit, []string{"as it meant to"}, "MiB"},
		{"no limit", story{usage: climb(100, 381, 60), cache: 20, free: true}, Options{}, OtherDeath, []string{"shows 361.0 MiB beside 20.0 MiB of page cache, and no limit that it knew of, growing by 5.0 MiB a second", "Exit 137"}, "does not say"},
		{"no limit, and the kernel counted it", story{usage: climb(100, 381, 60), free: true, kills: "3"}, Options{OOMKills: memguard.Known[uint64](4)}, OOMKill, []string{"from 3 to 4", "381.0 MiB"}, "%"},
		{"no moment", story{}, Options{}, OtherDeath, []string{"does not say how much memory"}, ""},
		{"another layout", story{usage: climb(100, 251, 60), layout: 2}, Options{}, OtherDeath, []string{"does not say"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.o.decode = fromJSON
			i, err := Read(test.story.write(t), test.o)
			require.NoError(t, err)
			assert.Equal(t, test.cause, i.Cause, i.Verdict)
			for _, s := range test.says {
				assert.Contains(t, i.Verdict, s)
			}
			if test.saysNot != "" {
				assert.NotContains(t, i.Verdict, test.saysNot)
			}
			b, err := json.Marshal(i)
			require.NoError(t, err)
			assert.Contains(t, string(b), `"cause":"`+string(test.cause)+`"`)
			for _, width := range []int{0, 60, 120} {
				require.NoError(t, i.WriteText(new(bytes.Buffer), width, width == 60))
			}
		})
	}
}

func TestTextTellsTheStory(t *testing.T) {
	t.Parallel()
	i, err := Read(story{usage: climb(100, 251, 90)}.write(t), Options{decode: fromJSON, Last: time.Minute})
	require.NoError(t, err)
	assert.Len(t, i.Moments, 61, "the last minute")
	assert.Equal(t, 1, i.Unread)
	var b bytes.Buffer
	require.NoError(t, i.WriteText(&b, 80, false))
	text := b.String()
	for _, want := range []string{
		"VERDICT", "256.0 MiB ┤", "✗", "█", "▒", "-1m0s", "THE LAST MOMENTS", "251.0 MiB", "?",
		"44.0 s before  warning oom-forecast", "WHAT WAS DONE", "gc-percent", "100 -> 50", "1 not understood (another kind)", "v1.2.3",
	} {
		assert.Contains(t, text, want)
	}
	assert.NotContains(t, text, "\x1b", "nothing of the box reaches the terminal as it is")
	for line := range strings.Lines(text) {
		if !strings.Contains(line, i.Box) {
			assert.LessOrEqual(t, len([]rune(line)), 81, line)
		}
	}
}

// Whatever was captured while it lived is named, with what to compare.
func TestFiles(t *testing.T) {
	t.Parallel()
	path := story{usage: climb(100, 251, 10)}.write(t)
	store := &evidence.Store{Dir: filepath.Dir(path)}
	at := time.Now().Add(30 * time.Minute)
	for _, name := range []string{"001-50pct-heap.pb.gz", "002-95pct-heap.pb.gz", "002-95pct-goroutine.pb.gz"} {
		_, err := store.PutAt(at, name, func(io.Writer) error { return nil })
		require.NoError(t, err)
	}
	_, err := store.PutAt(at.Add(-24*time.Hour), "another life", func(io.Writer) error { return nil })
	require.NoError(t, err)
	i, err := Read(path, Options{decode: fromJSON})
	require.NoError(t, err)
	assert.Len(t, i.Files, 3)
	require.Len(t, i.Pairs, 1)
	var b bytes.Buffer
	require.NoError(t, i.WriteText(&b, 80, false))
	assert.Contains(t, b.String(), "from 50 % to 95 % of the limit")
	assert.Contains(t, b.String(), "go tool pprof -base "+i.Pairs[0].Base.Path+" "+i.Pairs[0].Later.Path)
	assert.Equal(t, `'/a b/it'\''s'`, quote("/a b/it's"))
}

func TestFind(t *testing.T) {
	t.Parallel()
	_, err := Find(t.TempDir())
	require.ErrorIs(t, err, ErrNone)
	_, err = Find("/does/not/exist")
	require.ErrorContains(t, err, "/does/not/exist")
	file := filepath.Join(t.TempDir(), "x")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	found, err := Find(file)
	require.NoError(t, err)
	assert.Equal(t, []string{file}, found)
	_, err = Read(file, Options{})
	require.ErrorIs(t, err, evidence.ErrNoBox)
}
