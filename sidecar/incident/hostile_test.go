// SPDX-License-Identifier: Apache-2.0

package incident

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/sidecar/attach"
	"github.com/memguard/memguard-go/sidecar/target"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// All markup of a page: tags with attributes in double quotes.
var (
	tag       = regexp.MustCompile(`^<(?:!doctype html|/?([a-z][a-z0-9]*)((?: [a-zA-Z-]+(?:="[^"<>]*")?)*)/?)>`)
	attribute = regexp.MustCompile(` ([a-zA-Z-]+)(?:="([^"]*)")?`)
	entity    = regexp.MustCompile(`^&(?:amp|lt|gt|#34|#39);`)
)

// checkHTML holds a page against what these writers may write: known tags and
// attributes, each closed, no script, and every address a data: URL of a file.
func checkHTML(t testing.TB, page []byte) {
	t.Helper()
	s := string(page)
	before, rest, ok := strings.Cut(s, "<style>")
	require.True(t, ok)
	_, after, ok := strings.Cut(rest, "</style>")
	require.True(t, ok)
	s = before + after
	empty := []string{"meta", "wbr"}
	var open []string
	for len(s) > 0 {
		switch {
		case s[0] == '<':
			m := tag.FindStringSubmatch(s)
			require.NotNil(t, m, "markup that is not ours: %.80q", s)
			name := m[1]
			for _, a := range attribute.FindAllStringSubmatch(m[2], -1) {
				require.Contains(t, []string{"lang", "charset", "name", "content", "http-equiv", "class", "style", "viewBox", "preserveAspectRatio", "role", "aria-labelledby",
					"aria-hidden", "aria-label", "id", "d", "title", "tabindex", "scope", "open", "download", "href"}, a[1], m[0])
				if a[1] == "href" {
					require.Regexp(t, `^data:application/(json|octet-stream);base64,[A-Za-z0-9+/=]*$`, a[2])
				}
				if a[1] == "style" {
					require.Regexp(t, `^(top|left):[0-9.]+%$`, a[2])
				}
				if a[1] == "class" {
					require.Regexp(t, `^[a-z0-9 -]*$`, a[2])
				}
			}
			switch {
			case strings.HasPrefix(m[0], "</"):
				require.NotEmpty(t, open)
				require.Equal(t, open[len(open)-1], name, "%.80q", s)
				open = open[:len(open)-1]
			case name != "" && !slices.Contains(empty, name) && !strings.HasSuffix(m[0], "/>"):
				require.Contains(t, []string{"html", "head", "title", "body", "main", "header", "section", "h1", "h2", "p", "dl", "div", "dt", "dd", "ul", "li", "ol", "table", "thead",
					"tbody", "tr", "th", "td", "details", "summary", "pre", "a", "code", "figure", "figcaption", "span", "svg", "path", "desc", "i", "em", "b"}, name)
				open = append(open, name)
			}
			s = s[len(m[0]):]
		case s[0] == '&':
			m := entity.FindString(s)
			require.NotEmpty(t, m, "%.40q", s)
			s = s[len(m):]
		default:
			require.NotContains(t, ">\"'", s[:1], "%.40q", s)
			s = s[1:]
		}
	}
	require.Empty(t, open)
	checkText(t, page)
}

var escaped = regexp.MustCompile(`\\.`)

// checkMarkdown: no HTML outside of blocks of code, and no link.
func checkMarkdown(t testing.TB, b []byte) {
	t.Helper()
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "    ") {
			continue
		}
		require.NotContains(t, line, "<")
		require.NotContains(t, line, "://")
		require.NotContains(t, line, "@")
		plain := escaped.ReplaceAllString(line, "")
		require.NotContains(t, plain, "](")
		require.NotContains(t, plain, "`")
		if n := strings.Count(plain, "|"); n > 0 {
			require.True(t, strings.HasPrefix(plain, "|") && strings.HasSuffix(plain, "|\n"), line)
		}
	}
	checkText(t, b)
}

// checkText: nothing that moves a terminal's cursor or turns the direction of text.
func checkText(t testing.TB, b []byte) {
	t.Helper()
	for _, r := range string(b) {
		if r != '\n' && (unicode.IsControl(r) || r == unicode.ReplacementChar || 0x202a <= r && r <= 0x202e || 0x2066 <= r && r <= 0x2069) {
			require.Failf(t, "unsafe", "%q in %.200q", r, b)
		}
	}
}

// hostile is evidence in which every text and figure is somebody else's.
func hostile(t testing.TB, s string, n int64, stderr []byte) *Evidence {
	e := leaked(t)
	f := attach.Frame{Func: s, File: s, Line: int(n)}
	e.Target, e.Exit.From, e.Eye, e.NoSnapshot = s, s, s, s
	e.Process = target.Process{Identity: target.Identity{PID: int(n), Build: s}, Exe: s, Command: s, Go: s, Cgroup: s, Started: time.Unix(n, 0)}
	e.Ended = time.Unix(n/3, n)
	e.Stderr = stderr
	e.Heap = heapProfile(t, map[string]int64{strings.ToValidUTF8(s, "?") + ";b": 1 << 40, "c": 7})
	e.Cgroups = []Level{{Dir: s, Limit: known(uint64(n)), Usage: known(uint64(n) * 3), Before: known(0), After: known(uint64(n))}, {Dir: s}}
	e.Ledger.Rows = append(e.Ledger.Rows, memguard.Row{Name: s, Why: s, Note: s, Bytes: memguard.Known(n)})
	e.Ledger.Cgroup = &memguard.CgroupLedger{Path: s, Rows: e.Ledger.Rows}
	e.Ledger.Time = time.Unix(-n, 0)
	e.Snapshot.How.Way = s
	e.Snapshot.Unknown = []memguard.Blind{{What: s, Why: s}}
	e.Snapshot.Goroutines.Clusters = []attach.Cluster{{Count: uint64(n), State: s, Reason: s, Start: s, CreatedBy: f, Stack: []attach.Frame{f, f}, StackWhy: s, LongestNs: memguard.Known(n)}}
	e.Snapshot.SizeClasses = []attach.SizeClass{{Bytes: uint64(n), Size: uint64(n), Objects: uint64(n), Free: uint64(n)}}
	e.Timeline.Rows = []string{s, s, "go/heap/live"}
	for i := range e.Timeline.Points {
		p := &e.Timeline.Points[i]
		p.Time, p.PID = time.Unix(n, 0).Add(time.Duration(i)*time.Second), int(n)
		p.Rows = []memguard.Value[int64]{memguard.Known(n), {}, memguard.Known(-n), memguard.Known(n)}
		if i%3 == 0 {
			p.Usage, p.Limit = known(uint64(n)), known(uint64(n)*uint64(i))
		}
	}
	e.Events = []memguard.Event{
		{Time: e.Ended.Add(-time.Second), Kind: memguard.Raised, Finding: memguard.Finding{ID: memguard.ID(s), Severity: memguard.Severity(n), Summary: s}},
		{Time: time.Unix(n, 5), Kind: memguard.EventKind(s), Why: s}, {Time: e.Ended, Kind: memguard.Applied, Action: memguard.Action{Name: memguard.ActionName(s), From: n, Reason: s}},
		{Time: e.Ended, Kind: memguard.Lost, Blind: memguard.Blind{What: s, Why: s}}, {Time: e.Ended, Kind: memguard.Saved, Path: s},
	}
	return e
}

func FuzzReport(f *testing.F) {
	for _, s := range []string{"orders", `<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, "a\x1b[2J\x07b\r\nc\x00\xff", "| a | b |\n---", "[x](javascript:x) `y` ![z](http://evil/)",
		"http://evil.example www.evil.example a@b.c", "\u202egnp.exe \u2066 \u2028", "1. one", "# head", "    code", "../../etc/passwd", strings.Repeat("é", 3000), "&lt;&#60;", "-->", "]]>", "</style>", "</title>"} {
		f.Add(s, int64(260<<20), []byte("panic: "+s+"\n\ngoroutine 1 [running]:\n"+s+"(...)\n\t"+s+":1 +0x1\n"))
	}
	f.Add("x", int64(math.MaxInt64), []byte("fatal error: out of memory\n"))
	f.Add("x", int64(math.MinInt64), []byte("SIGQUIT: quit\nPC=0x1\n\ngoroutine 1 gp=0x1 m=0 mp=0x2 [running]:\n"))
	f.Add("x", int64(-1), []byte(nil))
	f.Fuzz(func(t *testing.T, s string, n int64, stderr []byte) {
		r, files := New(hostile(t, s, n, stderr), Meta{Namespace: s, Pod: s, Container: s, Node: s})
		r.Where = Meta{Pod: tame(s, mostName)}
		files = append(files, File{Name: s, What: s, Content: []byte(s)})
		text, markdown, page, js := write(t, r, files)
		checkText(t, text)
		checkMarkdown(t, markdown)
		checkHTML(t, page)
		require.NotContains(t, r.Verdict, "\n")
		require.Less(t, len(js), 1<<20)
		var again Report
		require.NoError(t, json.Unmarshal(js, &again))
		second, err := json.MarshalIndent(&again, "", "  ")
		require.NoError(t, err)
		require.Equal(t, string(js), string(second)+"\n")
	})
}

func FuzzReadWords(f *testing.F) {
	f.Add([]byte("panic: boom [recovered]\n\tpanic: again\n[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x1]\n\ngoroutine 1 [running]:\nmain.main()\n\t/src/main.go:8 +0x1\n"))
	f.Add([]byte("runtime: out of memory: cannot allocate 1-byte block (2 in use)\nfatal error: out of memory\n"))
	f.Add([]byte("SIGQUIT: quit\nPC=0x1 m=0 sigcode=0\n\ngoroutine 0 gp=0x1 m=0 mp=0x2 [idle]:\n\ngoroutine 1 [select, 3 minutes]:\n"))
	f.Add([]byte("panic: \n\tfatal error: \nfatal error: x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		w := ReadWords(b)
		if w == nil {
			return
		}
		require.Contains(t, []Cause{GoPanic, GoFatal, GoOutOfMemory, Signalled}, w.Cause)
		require.Equal(t, w.Cause == Signalled, w.Signal != "")
		require.LessOrEqual(t, len(w.Text), 520)
		require.LessOrEqual(t, len(w.Stack), mostFrames)
		checkText(t, []byte(w.Text+w.State+fmt.Sprint(w.Stack)))
	})
}

func FuzzGrown(f *testing.F) {
	small, big := heapProfile(f, map[string]int64{"main.a;main.main": 1 << 20}), heapProfile(f, map[string]int64{"main.a;main.main": 9 << 20, "main.b": 3 << 20})
	f.Add([]byte(nil), big)
	f.Add(small, big)
	f.Add(big, small)
	f.Add([]byte{0x1f, 0x8b}, []byte("x"))
	f.Fuzz(func(t *testing.T, base, later []byte) {
		g, err := grown(base, later)
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(g.Top), mostStacks)
		for i := range g.Top {
			require.Positive(t, g.Top[i].Bytes)
			require.LessOrEqual(t, len(g.Top[i].Stack), mostFrames)
			if share := g.share(&g.Top[i]); share < 0 || share > 1 {
				t.Fatal(share)
			}
		}
	})
}

func FuzzBox(f *testing.F) {
	path := story{usage: climb(100, 251, 20)}.write(f)
	box, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(box)
	f.Add(box[:5000])
	f.Add([]byte("memguard"))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, filepath.Base(path)), string(b))
		e := leaked(t)
		e.Ended, e.Timeline, e.Exit = time.Now().Add(2*time.Hour), nil, Exit{}
		e.Process.Started = time.Time{}
		e.Boxes = []string{dir, dir + "/none"}
		r, files := New(e, Meta{})
		text, markdown, page, _ := write(t, r, files)
		checkText(t, text)
		checkMarkdown(t, markdown)
		checkHTML(t, page)
	})
}

func TestGrown(t *testing.T) {
	t.Parallel()
	base := heapProfile(t, map[string]int64{"main.a;main.main": 10 << 20, "main.b;main.main": 50 << 20})
	later := heapProfile(t, map[string]int64{"main.a;main.main": 90 << 20, "main.b;main.main": 20 << 20, "bytes.growSlice;main.c": 5 << 20})
	g, err := grown(base, later)
	require.NoError(t, err)
	assert.Equal(t, int64(55<<20), g.Total)
	require.Len(t, g.Top, 2)
	assert.Equal(t, "main.a", g.Top[0].Func)
	assert.Equal(t, int64(80<<20), g.Top[0].Bytes)
	assert.Equal(t, "main.c", g.Top[1].Func, "not the library's function that it called")

	_, err = grown(nil, []byte("x"))
	require.Error(t, err)
	bomb := new(bytes.Buffer)
	zip := gzip.NewWriter(bomb)
	_, err = zip.Write(make([]byte, mostProfile+1))
	require.NoError(t, err)
	require.NoError(t, zip.Close())
	_, err = grown(nil, bomb.Bytes())
	require.ErrorContains(t, err, "more than 32 MiB unpacked")
}
