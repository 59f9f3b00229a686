// SPDX-License-Identifier: Apache-2.0

package memguard_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/testdata/hold/held"
)

// What is allowed. Beside what it holds on purpose a program has a few mebibytes
// of its own: its text, the runtime's tables, what it takes to look at itself.
const (
	closes   = 0.02         // residual, as a share of the whole ...
	closesBy = 2 * held.MiB // ... or so much, whichever is more;
	cgroupBy = 4 * held.MiB // of a cgroup, whose counters the kernel brings up to date lazily
	right    = 0.03         // how far a row may be from the truth ...
	rightBy  = 2 * held.MiB // ... or so much
	little   = 8 * held.MiB // what a row may hold that the case is not about
)

const (
	inPureGo = "./testdata/hold"
	inC      = "./testdata/hold/holdcgo"
)

type holdCase struct {
	name   string
	pkg    string
	env    string
	hidden string                                                       // why it is not looked at from outside
	then   func(t *testing.T, s *memguard.Sample, led *memguard.Ledger) // checks more, from outside
}

func (c *holdCase) command(t *testing.T, bin string) *exec.Cmd {
	cmd := exec.Command(bin, c.name)
	cmd.Env = append(os.Environ(), c.env)
	if strings.HasPrefix(c.name, "file-") {
		cmd.Dir = disk(t)
	}
	return cmd
}

// heapRows are one row, go/heap, from outside.
var heapRows = []string{
	memguard.RowLive, memguard.RowDead, memguard.RowUnused, memguard.RowFree,
	memguard.RowUntouched, memguard.RowRefill,
}

// cgroupRows are the rows that only a cgroup's ledger has.
var cgroupRows = []string{
	memguard.RowProcesses, memguard.RowDeferredSplit,
	memguard.RowCacheActive, memguard.RowCacheInactive, memguard.RowCacheLocked,
}

// lab builds hold programs, runs them, and keeps a table of what was seen.
type lab struct {
	dir string // of the programs

	mu    sync.Mutex
	table bytes.Buffer
}

// newLab returns a lab that logs its table when t and its subtests have ended.
func newLab(t *testing.T) *lab {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command to build the programs with:", err)
	}
	l := &lab{dir: t.TempDir()}
	t.Cleanup(func() {
		var out strings.Builder
		w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "case\tview\ttotal\trow\tbytes\ttruth\tresidual")
		w.Write(l.table.Bytes())
		w.Flush()
		t.Logf("in MiB\n%s", &out)
	})
	return l
}

// seen adds a line to the table.
func (l *lab) seen(test string, cells ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, test, _ = strings.Cut(test, "/")
	fmt.Fprintln(&l.table, test+"\t"+strings.Join(cells, "\t"))
}

// build builds a program of testdata/hold, once.
func (l *lab) build(t *testing.T, pkg, env string, flags ...string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	bin := filepath.Join(l.dir, filepath.Base(pkg)+env+strings.Join(flags, ""))
	if _, err := os.Stat(bin); err == nil {
		return bin
	}
	cmd := exec.Command("go", append([]string{"build", "-buildvcs=false", "-o", bin}, flags...)...)
	cmd.Args = append(cmd.Args, pkg)
	cmd.Env = append(os.Environ(), env)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s: %s", cmd, out)
	return bin
}

// needCgo skips the test where programs with C in them cannot be built.
func needCgo(t *testing.T) {
	out, err := exec.Command("go", "env", "CGO_ENABLED", "CC").Output()
	require.NoError(t, err)
	enabled, cc, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if enabled != "1" {
		t.Skip("cgo is switched off, or there is no C compiler: CGO_ENABLED is", enabled)
	}
	if _, err := exec.LookPath(strings.Fields(cc)[0]); err != nil {
		t.Skip("no C compiler:", err)
	}
}

// hold starts a program and waits until it holds: until it has printed a line,
// which it returns. The program goes on holding until the test ends.
func hold(t *testing.T, cmd *exec.Cmd, start func(*exec.Cmd) error) (line []byte) {
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	require.NoError(t, start(cmd))
	line, err = bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		_ = cmd.Wait()
		if cmd.ProcessState.ExitCode() == held.ExitUnsupported {
			t.Skip(strings.TrimSpace(stderr.String()))
		}
		t.Fatalf("%s: %v: %s", cmd, cmd.ProcessState, &stderr)
	}
	t.Cleanup(func() {
		stdin.Close()
		assert.NoError(t, cmd.Wait(), "%s: %s", cmd, &stderr)
	})
	return line
}

// tell starts a hold program and returns what it tells.
func tell(t *testing.T, cmd *exec.Cmd, start func(*exec.Cmd) error) (told held.Told) {
	line := hold(t, cmd, start)
	require.NoError(t, json.Unmarshal(line, &told), "%s", line)
	require.Equal(t, cmd.Process.Pid, told.Ledger.PID)
	return told
}

// survey looks at a process from outside.
func survey(t *testing.T, pid int) (*memguard.Sample, *memguard.Ledger) {
	src, err := memguard.Open(pid)
	require.NoError(t, err)
	defer src.Close()
	s := new(memguard.Sample)
	require.NoError(t, src.Survey(s))
	require.NotNil(t, s.Process.Maps, "%v", s.Blind)
	return s, memguard.NewLedger(s)
}

// view is a ledger of a process or of a cgroup, as somebody saw it.
type view struct {
	from     string
	total    memguard.Bytes
	rows     []memguard.Row
	residual memguard.Value[int64]
	slack    int64            // of the residual
	others   map[string]int64 // what rows may hold that the case is not about, if not little
}

func processView(from string, l *memguard.Ledger, others map[string]int64) view {
	return view{from, l.RSS, l.Rows, l.Residual, closesBy, others}
}

func cgroupView(from string, l *memguard.CgroupLedger) view {
	return view{from, l.Usage, l.Rows, l.Residual, cgroupBy, nil}
}

// droppable are rows of page cache. The kernel may take some of it away at any
// time, and does where it reclaims ahead of need (DAMON, MGLRU): the row is right
// then, and the program's own idea of what it holds is not.
var droppable = []string{memguard.RowFile, memguard.RowCacheActive, memguard.RowCacheInactive}

// check checks that the rows and the residual add up to the total, that the residual is
// small, that the rows hold what they should, and that every other row holds
// little or says why it is unknown.
func (l *lab) check(t *testing.T, v view, holds held.Holds) {
	total, ok := v.total.Get()
	require.True(t, ok, "%s: the total is unknown", v.from)
	residual, ok := v.residual.Get()
	require.True(t, ok, "%s: the residual is unknown", v.from)
	assert.LessOrEqual(t, abs(residual), max(int64(closes*float64(total)), v.slack), "%s: residual", v.from)
	sum := residual
	names := map[string]bool{}
	for _, r := range v.rows {
		n, known := r.Bytes.Get()
		sum += n
		assert.False(t, names[r.Name], "%s: %s comes twice", v.from, r.Name)
		names[r.Name] = true
		want, about := holds[r.Name]
		switch {
		case !known:
			assert.NotEmpty(t, r.Why, "%s: %s", v.from, r.Name)
			assert.False(t, about, "%s: %s is unknown: %s", v.from, r.Name, r.Why)
		case about:
			l.seen(t.Name(), v.from, mib(int64(total)), r.Name, mib(n), mib(want), mib(residual))
			tolerance := max(int64(right*float64(abs(want))), rightBy)
			if r.Name == memguard.RowHeap || strings.HasPrefix(r.Name, "process/") {
				tolerance += little // it has the program's own in it
			}
			if n < want && slices.Contains(droppable, r.Name) {
				tolerance += want / 10
			}
			assert.LessOrEqual(t, abs(n-want), tolerance, "%s: %s is %d, not %d", v.from, r.Name, n, want)
		default:
			assert.LessOrEqual(t, abs(n), max(v.others[r.Name], little), "%s: %s", v.from, r.Name)
		}
	}
	assert.Equal(t, int64(total), sum, "%s: the rows and the residual add up", v.from)
	for name := range holds {
		assert.True(t, names[name], "%s: no row %s", v.from, name)
	}
}

// look runs a case and checks its ledger from both sides.
func (l *lab) look(t *testing.T, c holdCase, bin string, others map[string]int64) {
	cmd := c.command(t, bin)
	told := tell(t, cmd, (*exec.Cmd).Start)
	for _, row := range cgroupRows {
		delete(told.Holds, row)
	}
	l.check(t, processView("inside", told.Ledger, others), told.Holds)
	wantForm(t, told.Ledger)
	if c.hidden != "" {
		t.Log("not looked at from outside:", c.hidden)
		return
	}
	s, led := survey(t, cmd.Process.Pid)
	l.check(t, processView("outside", led, others), fromOutside(told.Holds, c.pkg == inC))
	wantForm(t, led)
	wantSame(t, told.Ledger, led)
	if c.then != nil {
		c.then(t, s, led)
	}
}

// fromOutside is what a case holds by the rows that are seen from outside.
// Stacks of goroutines are in the heap, those of C threads are not.
func fromOutside(holds held.Holds, c bool) held.Holds {
	out := held.Holds{}
	for row, n := range holds {
		if slices.Contains(heapRows, row) || row == memguard.RowStacks && !c {
			row = memguard.RowHeap
		}
		out[row] += n
	}
	return out
}

// wantSame checks that both sides see the same bytes. From outside the runtime's
// tables are told from the program's own mappings only by their shape.
func wantSame(t *testing.T, inside, outside *memguard.Ledger) {
	heap := append([]string{memguard.RowHeap, memguard.RowStacks}, heapRows...)
	sum := func(l *memguard.Ledger) map[string]int64 {
		m := map[string]int64{}
		for _, r := range l.Rows {
			n, _ := r.Bytes.Get()
			if slices.Contains(heap, r.Name) {
				r.Name = "heap and stacks"
			}
			m[r.Name] += n
		}
		return m
	}
	rss, _ := inside.RSS.Get()
	in, out := sum(inside), sum(outside)
	for name, n := range in {
		assert.LessOrEqual(t, abs(n-out[name]), max(int64(right*float64(rss)), rightBy), "%s: %d from inside, %d from outside", name, n, out[name])
	}
	for _, row := range heapRows {
		_, known := outside.Row(row)
		assert.False(t, known, "%s from outside", row)
	}
}

// wantForm checks the form of the JSON that other programs read.
func wantForm(t *testing.T, led *memguard.Ledger) {
	text, err := json.Marshal(led)
	require.NoError(t, err)
	var l map[string]any
	require.NoError(t, json.Unmarshal(text, &l))
	assert.EqualValues(t, led.PID, l["pid"])
	wantFigure := func(of map[string]any, key string) { // a number, or null
		n, has := of[key]
		assert.True(t, has, "%v: no %s", of, key)
		if n != nil {
			assert.IsType(t, 0.0, n, "%v: %s", of, key)
		}
	}
	wantRows := func(l map[string]any, total string) {
		wantFigure(l, total)
		wantFigure(l, "residual")
		rows, _ := l["rows"].([]any)
		assert.NotEmpty(t, rows, total)
		for _, r := range rows {
			r, _ := r.(map[string]any)
			assert.NotEmpty(t, r["name"])
			wantFigure(r, "bytes")
			assert.NotEqual(t, r["bytes"] == nil, r["why"] == nil, "%v: bytes, or why not", r)
		}
	}
	wantRows(l, "rss")
	require.Contains(t, l, "cgroup")
	if l["cgroup"] != nil {
		group, _ := l["cgroup"].(map[string]any)
		wantRows(group, "usage")
	}
}

func mib(n int64) string { return fmt.Sprintf("%.1f", float64(n)/held.MiB) }

func abs(n int64) int64 { return max(n, -n) }

// disk returns a directory for files that are not in memory anyway.
func disk(t *testing.T) string {
	const tmpfs = 0x01021994 // statfs(2)
	for _, parent := range []string{os.TempDir(), "/var/tmp"} {
		var fs syscall.Statfs_t
		if err := syscall.Statfs(parent, &fs); err != nil || fs.Type == tmpfs {
			continue
		}
		dir, err := os.MkdirTemp(parent, "memguard-hold-")
		require.NoError(t, err)
		t.Cleanup(func() { os.RemoveAll(dir) })
		return dir
	}
	t.Skip("the directories for temporary files are on a tmpfs: files in them are shared memory")
	return ""
}
