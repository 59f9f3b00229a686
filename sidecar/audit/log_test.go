// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// event is a record with a number in it.
func event(n int) Event {
	e := NewEvent(httptest.NewRequest("PUT", "/x", nil), time.Now())
	e.Level, e.Stage, e.Verb = LevelMetadata, StageRequestReceived, "update"
	e.StageTime = e.RequestReceived
	e.Annotations["n"] = fmt.Sprint(n)
	return e
}

// numbers returns the numbers of the records of a file, all of whose lines must be records.
func numbers(t testing.TB, path string) (all []int) {
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	if len(b) > 0 {
		require.Equal(t, byte('\n'), b[len(b)-1], "%s ends within a line", path)
	}
	for line := range bytes.Lines(b) {
		var e Event
		require.NoError(t, json.Unmarshal(line, &e), "%s: %q", path, line)
		n := 0
		_, err := fmt.Sscan(e.Annotations["n"], &n)
		require.NoError(t, err)
		all = append(all, n)
	}
	return all
}

func open(t testing.TB, c LogConfig) *Log {
	l, err := OpenLog(c)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

func TestAppend(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "for", "it")
	path := filepath.Join(dir, "audit.log")
	l := open(t, LogConfig{Path: path})
	require.NoError(t, l.Append(event(1)))
	require.NoError(t, l.Append(event(2)))
	require.NoError(t, l.Close())
	require.NoError(t, l.Close())
	require.ErrorIs(t, l.Append(event(3)), errClosed)
	l = open(t, LogConfig{Path: path})
	assert.Zero(t, l.Torn())
	require.NoError(t, l.Append(event(4)))
	assert.Equal(t, []int{1, 2, 4}, numbers(t, path))
	st, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), st.Mode().Perm())
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	l := open(t, LogConfig{Path: filepath.Join(t.TempDir(), "audit.log")})
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(l))
	require.NoError(t, l.Append(event(1)))
	e := event(2)
	e.Level = LevelRequestResponse
	require.NoError(t, l.Append(e))
	require.NoError(t, l.Close())
	require.Error(t, l.Append(event(3)))
	families, err := registry.Gather()
	require.NoError(t, err)
	var text strings.Builder
	for _, f := range families {
		_, err := expfmt.MetricFamilyToText(&text, f)
		require.NoError(t, err)
	}
	assert.Equal(t, `# HELP memguard_audit_error_total Audit records that could not be written (log), and older files that could not be begun or removed (rotate).
# TYPE memguard_audit_error_total counter
memguard_audit_error_total{plugin="log"} 1
memguard_audit_error_total{plugin="rotate"} 0
# HELP memguard_audit_event_total Audit records on the disk.
# TYPE memguard_audit_event_total counter
memguard_audit_event_total 2
# HELP memguard_audit_level_total Audit records on the disk by their level.
# TYPE memguard_audit_level_total counter
memguard_audit_level_total{level="Metadata"} 1
memguard_audit_level_total{level="Request"} 0
memguard_audit_level_total{level="RequestResponse"} 1
`, text.String())
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	require.NoError(t, err)
	assert.Empty(t, problems)
}

func TestOpenLogRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	foreign := filepath.Join(dir, "passwd")
	require.NoError(t, os.WriteFile(foreign, []byte("root:x:0:0\n"), 0o600))
	foreignEnd := filepath.Join(dir, "end")
	require.NoError(t, os.WriteFile(foreignEnd, []byte("{\"kind\":\"Event\"}\nroot:x:0:0"), 0o600))
	endless := filepath.Join(dir, "endless")
	require.NoError(t, os.WriteFile(endless, bytes.Repeat([]byte("{"), 4*maxTorn+1), 0o600))
	for want, c := range map[string]LogConfig{
		"no path":                  {},
		"a limit is negative":      {Path: foreign, MaxSize: -1},
		"MaxEvent 1 is not in":     {Path: foreign, MaxEvent: 1},
		"passwd: at byte 0 there":  {Path: foreign},
		"end: at byte 17 there is": {Path: foreignEnd},
		"no audit record in the":   {Path: endless},
		"is a directory":           {Path: dir},
	} {
		_, err := OpenLog(c)
		require.ErrorContains(t, err, want)
	}
	b, err := os.ReadFile(foreign)
	require.NoError(t, err)
	assert.Equal(t, "root:x:0:0\n", string(b), "another file is left alone")
}

func TestHeal(t *testing.T) {
	t.Parallel()
	lines := map[int]string{}
	for n := range 3 {
		b, err := encode(event(n), maxEvent)
		require.NoError(t, err)
		lines[n] = string(b)
	}
	whole := func(n int) string { return lines[n] }
	long := event(2)
	long.UserAgent = strings.Repeat("x", 200<<10)
	b, err := encode(long, maxEvent)
	require.NoError(t, err)
	big := string(b)
	for _, tt := range []struct {
		name, content string
		torn          string
		want          []int
	}{
		{"empty", "", "", nil},
		{"whole", whole(1) + whole(2), "", []int{1, 2}},
		{"half a line", whole(1) + whole(2)[:40], whole(2)[:40], []int{1}},
		{"all but the end of the line", whole(1) + strings.TrimSuffix(whole(2), "\n"), strings.TrimSuffix(whole(2), "\n"), []int{1}},
		{"one byte", whole(1) + "{", "{", []int{1}},
		{"nothing but a torn line", whole(1)[:40], whole(1)[:40], nil},
		{"zeros of a power cut", whole(1) + "\x00\x00\x00", "\x00\x00\x00", []int{1}},
		{"zeros between", whole(1) + "\x00\x00\n" + whole(2)[:10], "\x00\x00\n" + whole(2)[:10], []int{1}},
		{"a line cut within a batch", whole(1) + whole(2)[:10] + "\n", whole(2)[:10] + "\n", []int{1}},
		{"an empty line", whole(1) + "\n", "\n", []int{1}},
		{"longer than what is looked at first", whole(1) + big[:150<<10], big[:150<<10], []int{1}},
		{"whole, and long", whole(1) + big, "", []int{1, 2}},
	} {
		path := filepath.Join(t.TempDir(), "audit.log")
		require.NoError(t, os.WriteFile(path, []byte(tt.content), 0o644))
		l := open(t, LogConfig{Path: path})
		assert.EqualValues(t, len(tt.torn), l.Torn(), tt.name)
		assert.Equal(t, tt.want, numbers(t, path), tt.name)
		require.NoError(t, l.Append(event(9)))
		assert.Equal(t, append(tt.want, 9), numbers(t, path), tt.name)
		aside, _ := os.ReadFile(path + ".torn")
		assert.Equal(t, tt.torn, string(aside), tt.name)
		st, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), st.Mode().Perm(), tt.name)
	}
}

func TestRotateBySizeAndCount(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	// Others beside it are not ours.
	for _, name := range []string{"audit-1.log", "audit-x.log", "audit-00000001.log.gz", "other-00000001.log"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	l := open(t, LogConfig{Path: path, MaxSize: 1000, MaxBackups: 3})
	for i := range 20 {
		require.NoError(t, l.Append(event(i)))
	}
	require.NoError(t, l.Close())
	l = open(t, LogConfig{Path: path, MaxSize: 1000, MaxBackups: 3})
	for i := range 20 {
		require.NoError(t, l.Append(event(20+i)))
	}
	kept, _, err := l.file.older()
	require.NoError(t, err)
	require.Len(t, kept, 3)
	var all []int
	for _, n := range kept {
		all = append(all, numbers(t, filepath.Join(dir, fmt.Sprintf("audit-%08d.log", n)))...)
	}
	all = append(all, numbers(t, path)...)
	for i, n := range all {
		assert.Equal(t, 40-len(all)+i, n, "the newest records are there, in their order, without a gap")
	}
	for _, name := range []string{"audit-1.log", "audit-x.log", "audit-00000001.log.gz", "other-00000001.log"} {
		assert.FileExists(t, filepath.Join(dir, name))
	}
	assert.NoFileExists(t, path+".new")
}

func TestRotateByAge(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	synctest.Test(t, func(t *testing.T) {
		c := LogConfig{Path: path, MaxAge: 24 * time.Hour}
		l, err := OpenLog(c)
		require.NoError(t, err)
		require.NoError(t, l.Append(event(1)))
		time.Sleep(20 * time.Hour)
		require.NoError(t, l.Append(event(2)))
		require.NoError(t, l.Close())
		time.Sleep(5 * time.Hour)
		// The age is the first record's, not the process's.
		l, err = OpenLog(c)
		require.NoError(t, err)
		require.NoError(t, l.Append(event(3)))
		older := filepath.Join(dir, "audit-00000001.log")
		assert.Equal(t, []int{1, 2}, numbers(t, older))
		assert.Equal(t, []int{3}, numbers(t, path))

		require.NoError(t, os.Chtimes(older, time.Now(), time.Now().Add(-23*time.Hour)))
		time.Sleep(30 * time.Minute)
		require.NoError(t, l.Append(event(4)))
		assert.FileExists(t, older)
		time.Sleep(2 * time.Hour)
		require.NoError(t, l.Append(event(5)))
		assert.NoFileExists(t, older, "too old, and nobody had to begin a file for it to be seen")
		assert.Equal(t, []int{3, 4, 5}, numbers(t, path))

		// A clock that is set back begins no file and removes none.
		require.NoError(t, os.Chtimes(path, time.Now(), time.Now().Add(100*time.Hour)))
		require.NoError(t, l.Append(event(6)))
		assert.Equal(t, []int{3, 4, 5, 6}, numbers(t, path))
		require.NoError(t, l.Close())
	})
}

// jumped is a time as it would have been read had the wall clock been set by d before:
// the monotonic reading is the same (time/time.go, Time: with the highest bit of wall
// set, 33 bits are seconds, 30 nanoseconds).
func jumped(t *testing.T, at time.Time, d time.Duration) time.Time {
	t.Helper()
	was := at
	wall := (*uint64)(unsafe.Pointer(&at))
	require.NotZero(t, *wall>>63, "a time without a monotonic reading: it is of the wall clock alone")
	*wall += uint64(d/time.Second) << 30
	require.Equal(t, d, at.Round(0).Sub(was.Round(0)))
	require.Zero(t, at.Sub(was))
	return at
}

// A clock that is set while the log is open, forward or back, neither begins a file nor
// removes one, and puts neither off.
func TestClockSetMeanwhile(t *testing.T) {
	t.Parallel()
	for _, d := range []time.Duration{-1000 * time.Hour, 1000 * time.Hour} {
		dir := t.TempDir()
		path, first := filepath.Join(dir, "audit.log"), filepath.Join(dir, "audit-00000001.log")
		l := open(t, LogConfig{Path: path, MaxAge: 24 * time.Hour})
		require.NoError(t, l.Append(event(1)))
		l.file.born = jumped(t, l.file.born.Add(-23*time.Hour), d)
		require.NoError(t, l.Append(event(2)))
		assert.NoFileExists(t, first, "%v", d)
		l.file.born = l.file.born.Add(-2 * time.Hour)
		require.NoError(t, l.Append(event(3)))
		assert.Equal(t, []int{1, 2}, numbers(t, first), "%v", d)

		w := l.file.ages[1]
		l.file.ages[1] = written{w.stamp, jumped(t, w.own.Add(-23*time.Hour), d)}
		require.NoError(t, l.file.sweep())
		assert.FileExists(t, first, "%v", d)
		l.file.ages[1] = written{w.stamp, jumped(t, w.own.Add(-25*time.Hour), d)}
		require.NoError(t, l.file.sweep())
		assert.NoFileExists(t, first, "%v", d)
		require.NoError(t, l.file.sweep())
		assert.Empty(t, l.file.ages, "what is gone is not remembered")
	}
}

// Records and files whose times lie in the future, from before the clock was set back,
// go when they have been there for as long as is allowed.
func TestTimesInTheFuture(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, first := filepath.Join(dir, "audit.log"), filepath.Join(dir, "audit-00000001.log")
	synctest.Test(t, func(t *testing.T) {
		c := LogConfig{Path: path, MaxAge: 24 * time.Hour}
		l, err := OpenLog(c)
		require.NoError(t, err)
		e := event(1)
		e.StageTime = MicroTime{time.Now().Add(1000 * time.Hour)}
		require.NoError(t, l.Append(e))
		require.NoError(t, l.Close())
		l, err = OpenLog(c)
		require.NoError(t, err)
		time.Sleep(23 * time.Hour)
		require.NoError(t, l.Append(event(2)))
		assert.Equal(t, []int{1, 2}, numbers(t, path))
		time.Sleep(2 * time.Hour)
		require.NoError(t, l.Append(event(3)))
		assert.Equal(t, []int{1, 2}, numbers(t, first), "a day old, whatever its record says")

		require.NoError(t, os.Chtimes(first, time.Now(), time.Now().Add(1000*time.Hour)))
		for i := range 22 { // which looks at the older files each hour
			time.Sleep(time.Hour)
			require.NoError(t, l.Append(event(4+i)))
		}
		assert.FileExists(t, first)
		time.Sleep(5 * time.Hour)
		require.NoError(t, l.Append(event(31)))
		assert.NoFileExists(t, first, "a day after it was seen, whatever its time says")
		require.NoError(t, l.Close())
	})
}

// TestMovedAway: what another program moves, removes or cuts is begun anew, not written
// into what nobody sees any more.
func TestMovedAway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	l := open(t, LogConfig{Path: path})
	require.NoError(t, l.Append(event(1)))
	require.NoError(t, os.Rename(path, path+".1"))
	require.NoError(t, l.Append(event(2)))
	assert.Equal(t, []int{1}, numbers(t, path+".1"))
	assert.Equal(t, []int{2}, numbers(t, path))
	require.NoError(t, os.Remove(path))
	require.NoError(t, l.Append(event(3)))
	assert.Equal(t, []int{3}, numbers(t, path))
	require.NoError(t, os.Truncate(path, 20))
	require.NoError(t, l.Append(event(4)))
	assert.Equal(t, []int{4}, numbers(t, path))
	require.NoError(t, os.Truncate(path, 0))
	require.NoError(t, l.Append(event(5)))
	assert.Equal(t, []int{5}, numbers(t, path))
	require.NoError(t, os.RemoveAll(dir))
	require.Error(t, l.Append(event(6)), "no directory, no record, no effect")
}

// TestAppendTogether: many at once lose nothing, with files being begun all the time.
func TestAppendTogether(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, LogConfig{Path: filepath.Join(dir, "audit.log"), MaxSize: 20_000, MaxBackups: 1000})
	var wait sync.WaitGroup
	for g := range 16 {
		wait.Go(func() {
			for i := range 25 {
				assert.NoError(t, l.Append(event(g*25+i)))
			}
		})
	}
	wait.Wait()
	require.NoError(t, l.Close())
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	require.NoError(t, err)
	seen := map[int]bool{}
	for _, f := range files {
		for _, n := range numbers(t, f) {
			assert.False(t, seen[n])
			seen[n] = true
		}
	}
	assert.Len(t, seen, 400)
	assert.Greater(t, len(files), 3)
}

// TestTooManyWait: what waits for a disk that does not answer is bounded.
func TestTooManyWait(t *testing.T) {
	t.Parallel()
	l := open(t, LogConfig{Path: filepath.Join(t.TempDir(), "audit.log")})
	l.mu.Lock()
	l.busy, l.waiting = true, maxWaiting
	l.mu.Unlock()
	require.ErrorContains(t, l.Append(event(1)), "the disk does not keep up")
	l.mu.Lock()
	l.busy, l.waiting = false, 0
	l.mu.Unlock()
	require.NoError(t, l.Append(event(2)))
}

func TestBound(t *testing.T) {
	t.Parallel()
	body := json.RawMessage(`"` + strings.Repeat("x", 200<<10) + `"`)
	e := event(1)
	e.Level, e.RequestObject, e.ResponseObject = LevelRequestResponse, body, json.RawMessage(`{}`)
	before := maps.Clone(e.Annotations)
	line, err := encode(e, 100<<10)
	require.NoError(t, err)
	var got Event
	require.NoError(t, json.Unmarshal(line, &got))
	assert.Nil(t, got.RequestObject)
	assert.Nil(t, got.ResponseObject, "both go, as in Kubernetes")
	assert.Equal(t, "true", got.Annotations[AnnotationTruncated])
	assert.Equal(t, e.AuditID, got.AuditID)
	assert.Equal(t, before, e.Annotations, "the caller's event is as it was")

	// Everything as large as it can be, and of what grows most in JSON.
	bad := strings.Repeat("\x01<", 1<<11)
	huge := Event{Kind: "Event", APIVersion: "audit.k8s.io/v1", Level: LevelMetadata, AuditID: bad, Stage: StagePanic, RequestURI: bad, Verb: bad, UserAgent: bad,
		User: User{Username: bad, UID: bad, Extra: map[string][]string{}}, Annotations: map[string]string{}, ObjectRef: &ObjectReference{bad, bad, bad, bad, bad, bad, bad, bad},
		ResponseStatus: &Status{Kind: bad, APIVersion: bad, Status: bad, Message: bad, Reason: bad, Details: &StatusDetails{Name: bad}}}
	for i := range 100 {
		huge.User.Groups = append(huge.User.Groups, bad)
		huge.SourceIPs = append(huge.SourceIPs, bad)
		huge.User.Extra[fmt.Sprint(i, bad)] = []string{bad, bad}
		huge.Annotations[fmt.Sprint(i, bad)] = bad
	}
	for _, limit := range []int{minEvent, 100 << 10} {
		line, err = encode(huge, limit)
		require.NoError(t, err)
		assert.LessOrEqual(t, len(line), limit)
		require.NoError(t, json.Unmarshal(line, &got))
		assert.NotEmpty(t, got.User.Username)
		assert.NotEmpty(t, got.RequestURI)
	}
}

func TestNewEvent(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("GET", "/a?b=c", nil)
	r.Header.Set("User-Agent", strings.Repeat("u", 5000))
	r.Header.Set("X-Forwarded-For", strings.Repeat("192.0.2.1,", 1000)+"192.0.2.2")
	r.RemoteAddr = "198.51.100.1:1"
	at := time.Date(2026, 11, 22, 1, 2, 3, 4_567, time.FixedZone("x", 3600))
	e := NewEvent(r, at)
	assert.Equal(t, "/a?b=c", e.RequestURI)
	assert.Len(t, e.UserAgent, maxUserAgent+len("...TRUNCATED"))
	assert.Len(t, e.SourceIPs, maxForwarded+1)
	assert.Equal(t, []string{"192.0.2.2", "198.51.100.1"}, e.SourceIPs[maxForwarded-1:])
	b, err := json.Marshal(e.RequestReceived)
	require.NoError(t, err)
	assert.Equal(t, `"2026-11-22T00:02:03.000004Z"`, string(b))
	b, err = json.Marshal(MicroTime{})
	require.NoError(t, err)
	assert.Equal(t, "null", string(b))
	require.Error(t, new(MicroTime).UnmarshalJSON([]byte(`"yesterday"`)))

	ids := map[string]bool{}
	for range 1000 {
		id := newID()
		assert.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, id)
		ids[id] = true
	}
	assert.Len(t, ids, 1000)
}

// FuzzHeal: whatever lies in the file, opening it refuses it, or leaves lines that are
// records, and takes one more.
func FuzzHeal(f *testing.F) {
	whole, _ := encode(event(1), maxEvent)
	f.Add(string(whole) + string(whole[:50]))
	f.Add("\x00\x00")
	f.Add("{}\n{\n\n{}")
	f.Add("root\n{}")
	f.Fuzz(func(t *testing.T, content string) {
		path := filepath.Join(t.TempDir(), "audit.log")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		l, err := OpenLog(LogConfig{Path: path})
		if err != nil {
			b, _ := os.ReadFile(path)
			require.Equal(t, content, string(b), "what is refused is left alone")
			return
		}
		defer l.Close()
		require.NoError(t, l.Append(event(7)))
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		kept := b[:int64(len(content))-l.Torn()]
		require.True(t, strings.HasPrefix(content, string(kept)), "only the end is cut off")
		lines := slices.Collect(bytes.Lines(b))
		last := lines[len(lines)-1]
		require.True(t, json.Valid(last))
		require.Contains(t, string(last), `"n":"7"`)
		if len(lines) > 1 {
			require.True(t, json.Valid(lines[len(lines)-2]))
		}
		torn, _ := os.ReadFile(path + ".torn")
		require.Equal(t, content, string(kept)+string(torn), "nothing is lost")
	})
}

// BenchmarkAppend is what sharing an fsync is worth to 16 who wait at the same time.
func BenchmarkAppend(b *testing.B) {
	l := open(b, LogConfig{Path: filepath.Join(b.TempDir(), "audit.log")})
	const together = 16
	var alone, shared time.Duration
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		for i := range together {
			require.NoError(b, l.Append(event(i)))
		}
		alone += time.Since(start)
		start = time.Now()
		var wait sync.WaitGroup
		for i := range together {
			wait.Go(func() { assert.NoError(b, l.Append(event(i))) })
		}
		wait.Wait()
		shared += time.Since(start)
	}
	b.ReportMetric(float64(alone)/float64(shared), "alone/shared")
}
