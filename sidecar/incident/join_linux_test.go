// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/evidence"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The black box and the profiles of a service with a guard become part of the
// report: what grew between them is told, by who allocated it.
func TestJoin(t *testing.T) {
	t.Parallel()
	box := story{usage: climb(100, 251, 60)}.write(t)
	dir := filepath.Dir(box)
	store := &evidence.Store{Dir: dir}
	at := time.Now().Add(30 * time.Minute)
	for name, content := range map[string][]byte{
		"001-50pct-heap.pb.gz":      heapProfile(t, map[string]int64{"main.index;main.main": 80 << 20, "main.(*cache).add;main.main": 10 << 20}),
		"002-95pct-heap.pb.gz":      heapProfile(t, map[string]int64{"main.index;main.main": 80 << 20, "main.(*cache).add;main.main": 150 << 20}),
		"002-95pct-goroutine.pb.gz": []byte("no profile"),
	} {
		_, err := store.PutAt(at, name, func(w io.Writer) error { _, err := w.Write(content); return err })
		require.NoError(t, err)
	}
	e := leaked(t)
	e.Snapshot, e.Timeline = nil, nil
	e.Ended = time.Now().Add(time.Hour)
	e.Process.Started = time.Now().Add(-time.Second)
	e.Boxes = []string{filepath.Join(dir, "none"), dir}
	r, files := New(e, Meta{})
	require.NotNil(t, r.BlackBox)
	assert.Equal(t, "orders", r.BlackBox.Service)
	assert.Equal(t, box, r.BlackBox.Path)
	held, err := os.Open(dir)
	require.NoError(t, err)
	defer held.Close()
	assert.Equal(t, box, named(filepath.Join("/proc/self/fd", strconv.Itoa(int(held.Fd())), filepath.Base(box))), "not by a descriptor of ours")
	assert.Contains(t, r.BlackBox.Build, "v1.2.3")
	require.NotNil(t, r.Growth)
	assert.Equal(t, int64(140<<20), r.Growth.Total)
	assert.Equal(t, "main.(*cache).add", r.Growth.Top[0].Func)
	assert.Contains(t, r.Verdict, "main.(*cache).add allocated 100 % of what the heap grew by (140.0 MiB)")
	assert.Contains(t, r.Growth.Base, "at 50 % of the limit")
	var names []string
	for _, f := range files {
		names = append(names, f.Name)
	}
	require.Len(t, names, 4, "%q", names)
	assert.Equal(t, "heap.pb.gz", names[0])
	assert.Contains(t, names[1], "-01-50pct-heap.pb.gz")
	assert.Contains(t, strings.Join(r.unknowns(), "\n"), "goroutines: goroutine profile taken by its own guard at 95 % of the limit")

	// Somebody else's box, of before or after, is none of ours.
	e.Process.Started = time.Now().Add(30 * time.Minute)
	r, _ = New(e, Meta{})
	assert.Nil(t, r.BlackBox)
	assert.Equal(t, "main.(*cache).add", r.Growth.Top[0].Func, "by the profile of its end")
}

// A clock that was set while the service lived takes nothing out of its report: how long
// it lived, what was watched, and its black box, which has the times of then.
func TestClockSetWhileItLived(t *testing.T) {
	t.Parallel()
	want, _ := New(leaked(t), Meta{})
	for _, d := range []time.Duration{-48 * time.Hour, -2 * time.Hour, 0, 2 * time.Hour, 48 * time.Hour} {
		e := leaked(t)
		e.Lived = e.Ended.Sub(e.Process.Started)
		e.Process.Started = e.Process.Started.Add(-d)
		r, _ := New(e, Meta{})
		assert.Equal(t, want.Verdict, r.Verdict, "%v", d)
		assert.Equal(t, want.Timeline, r.Timeline, "%v", d)
		assert.Equal(t, want.Process.Started, r.Process.Started, "by the clock at its end")
		assert.InDelta(t, (12 * time.Minute).Seconds(), *r.Lived, 0.001)
		for _, begun := range []time.Time{e.Process.Started, e.begun()} { // of a box: before, and after
			assert.True(t, e.lived(begun), "%v", d)
			assert.True(t, e.lived(begun.Add(11*time.Minute)), "%v", d)
		}
		assert.False(t, e.lived(theEnd.Add(-12*time.Minute-max(d, 0)-time.Minute)), "%v: of a predecessor", d)
		assert.False(t, e.lived(theEnd.Add(max(-d, 0)+time.Second)), "%v: of a successor", d)
	}
}

// The box of a real guard: its moments are the timeline, or its end.
func TestProcessJoinGuard(t *testing.T) {
	begin := time.Now()
	dir := t.TempDir()
	g := memguard.Start(memguard.Config{DryRun: true, Evidence: &evidence.Store{Dir: dir}})
	defer g.Close()
	copied := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.Mkdir(copied, 0o700))
	require.Eventually(t, func() bool {
		boxes, err := evidence.Boxes(dir)
		if err != nil || len(boxes) == 0 {
			return false
		}
		b, err := os.ReadFile(boxes[0])
		require.NoError(t, err)
		box := filepath.Join(copied, filepath.Base(boxes[0]))
		writeFile(t, box, string(b))
		bb, err := Read(box, Options{})
		return err == nil && len(bb.Moments) >= 2
	}, 20*time.Second, 50*time.Millisecond)
	require.NoError(t, g.Close())

	e := leaked(t)
	e.Ended, e.Process.Started, e.Process.PID, e.Boxes, e.Timeline = time.Now(), begin, os.Getpid(), []string{copied}, nil
	r, _ := New(e, Meta{})
	require.NotNil(t, r.BlackBox, r.unknowns())
	require.NotNil(t, r.Timeline)
	assert.GreaterOrEqual(t, len(r.Timeline.Points), 2)
	assert.Equal(t, []string{"go/heap/live", "go/stacks", "go/other", "not go"}, r.Timeline.Rows)

	e.Timeline = &Timeline{Rows: []string{"x"}}
	for i := range 2 {
		e.Timeline.Points = append(e.Timeline.Points, Point{Time: begin.Add(time.Duration(i) * time.Nanosecond), PID: os.Getpid(), Usage: known(1)})
	}
	more, _ := New(e, Meta{})
	assert.Len(t, more.Timeline.Points, 2+len(r.Timeline.Points), "goes on with the box's")
	assert.Nil(t, more.Timeline.Points[2].Rows)

	// Its exit was not seen, and the box of the real directory was closed.
	e.Exit, e.Cgroups, e.Boxes = Exit{}, nil, []string{dir}
	r, _ = New(e, Meta{})
	assert.Equal(t, CleanExit, r.Cause, r.Verdict)
}

func (r *Report) unknowns() (all []string) {
	for _, b := range r.Unknown {
		all = append(all, b.What+": "+b.Why)
	}
	return all
}

// A service's directory is its own to fill: links and FIFOs are not followed, and
// what is too large is left out.
func TestJoinHostileDirectory(t *testing.T) {
	t.Parallel()
	box := story{usage: climb(100, 251, 10)}.write(t)
	dir := filepath.Dir(box)
	secret := filepath.Join(t.TempDir(), "secret")
	writeFile(t, secret, "s3cret")
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()
	require.NoError(t, os.Symlink(secret, filepath.Join(dir, "link")))
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "dir"), 0o700))
	require.NoError(t, os.Truncate(box, mostFile+1))
	for _, name := range []string{"link", "fifo", "dir", filepath.Base(box), "none", "../" + filepath.Base(dir)} {
		b, err := regular(root, name)
		require.Error(t, err, name)
		assert.NotContains(t, string(b), "s3cret")
	}
	e := leaked(t)
	e.Ended, e.Process.Started = time.Now().Add(2*time.Hour), time.Time{}
	e.Boxes = []string{dir}
	r, _ := New(e, Meta{})
	write(t, r, nil)
}

func TestThin(t *testing.T) {
	t.Parallel()
	tl := &Timeline{}
	for i := range 10_000 {
		u := uint64(100)
		if i == 5003 {
			u = 900
		}
		tl.Points = append(tl.Points, Point{Time: theEnd.Add(time.Duration(i) * time.Second), Usage: known(u)})
	}
	last := tl.Points[9999]
	tl.thin(200)
	assert.LessOrEqual(t, len(tl.Points), 201)
	assert.Greater(t, len(tl.Points), 150)
	assert.Equal(t, last, tl.Points[len(tl.Points)-1])
	peak := uint64(0)
	for _, p := range tl.Points {
		u, _ := p.Usage.Get()
		peak = max(peak, u)
	}
	assert.Equal(t, uint64(900), peak, "the peak stays")
}

// Unknown is a gap and never zero; a limit far above does not flatten the rest.
func TestChart(t *testing.T) {
	t.Parallel()
	r := &Report{Ended: theEnd, Timeline: &Timeline{Rows: []string{"a", "b"}}}
	for i := range 10 {
		p := Point{Time: theEnd.Add(time.Duration(i-10) * time.Second), Usage: known(100), Limit: known(100_000)}
		if i != 5 {
			p.Rows = []memguard.Value[int64]{memguard.Known(int64(30)), memguard.Known(int64(-5))}
		}
		r.Timeline.Points = append(r.Timeline.Points, p)
	}
	r.Timeline.Points[7].Usage = memguard.Bytes{}
	c := r.chart()
	require.NotNil(t, c)
	assert.True(t, c.far)
	assert.Len(t, c.points, 9)
	require.Len(t, c.areas, 2)
	assert.Equal(t, "a", c.areas[0].name)
	assert.Equal(t, "told by no row", c.areas[1].name)
	assert.Equal(t, 70.0, c.areas[1].last)
	assert.Equal(t, 2, strings.Count(c.shape(&c.areas[0]), "M"), "a gap where no row is known")
	assert.Nil(t, (&Report{}).chart())
	assert.Nil(t, (&Report{Timeline: &Timeline{Points: r.Timeline.Points[:1]}}).chart())
	var b bytes.Buffer
	require.NoError(t, r.WriteHTML(&b, nil))
	assert.Contains(t, b.String(), "is far above what is shown")
}
