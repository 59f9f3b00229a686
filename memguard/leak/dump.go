// SPDX-License-Identifier: Apache-2.0

package leak

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// A goroutine in a dump (runtime/traceback.go, goroutineheader and traceback1;
// Go 1.18 to 1.27) is
//
//	goroutine 7 gp=0xc000 m=nil [chan receive (leaked), 3 minutes, locked to thread, synctest bubble 1]:
//	main.work(0xc000014a10, {0x1, 0x2})
//	        /src/main.go:12 +0x1d fp=0xc0 sp=0xb0 pc=0x4a1
//	...additional frames elided...
//	created by main.main in goroutine 1
//	        /src/main.go:7 +0x2f
//
// gp, m, fp, sp and pc are in dumps of fatal errors and GOTRACEBACK=system, "in
// goroutine N" since 1.21. Labels are inside the brackets in 1.26,
// [chan receive labels:{"k": "v"}]:, and behind them from 1.27,
// [chan receive] {k: "v"}:.

const (
	maxLine = 64 << 10 // of a dump, in bytes: the rest of a longer line is dropped
	maxName = 4 << 10  // of a function or file
)

// SyntaxError is a line of a dump that is no part of a goroutine, or that ends
// one too early.
type SyntaxError struct {
	Line int    `json:"line"` // counts from 1; of a profile, the sample's index
	Text string `json:"text"` // the line, shortened
	Why  string `json:"why"`
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("leak: line %d: %s: %q", e.Line, e.Why, e.Text)
}

// dumpReader reads goroutines one by one. A line that cannot be read ends its
// goroutine, which is kept as far as it was read; the next header starts anew.
type dumpReader struct {
	src   *bufio.Reader
	line  int
	text  string
	held  bool // text is still to be read
	short bool // text ended without a newline: a number at its end may lack digits
	err   error
	torn  int
	first *SyntaxError
}

// next reads one line without its end. A line longer than maxLine is cut.
func (r *dumpReader) next() bool {
	if r.held {
		r.held = false
		return true
	}
	if r.err != nil {
		return false
	}
	var long []byte
	for {
		part, err := r.src.ReadSlice('\n')
		if len(long) < maxLine {
			long = append(long, part[:min(len(part), maxLine-len(long))]...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		r.err = err
		break
	}
	if r.err != nil && len(long) == 0 {
		return false
	}
	r.line++
	r.short = r.err != nil
	r.text = strings.TrimRight(string(long), "\r\n")
	return true
}

func (r *dumpReader) fault(why string) {
	r.torn++
	if r.first == nil {
		r.first = &SyntaxError{r.line, strings.ToValidUTF8(r.text[:min(len(r.text), 80)], "?"), why}
	}
}

// read returns the next goroutine, false at the end.
func (r *dumpReader) read() (g goroutine, ok bool) {
	for r.next() {
		if at := headerAt(r.text); at >= 0 {
			if at > 0 && strings.TrimSpace(r.text[:at]) != "" {
				r.fault("text before a goroutine's header")
			}
			if g, ok = parseHeader(r.text[at:]); ok {
				r.body(&g)
				return g, true
			}
		}
	}
	return goroutine{}, false
}

// body reads the frames after a header.
func (r *dumpReader) body(g *goroutine) {
	for r.next() {
		line := strings.TrimSpace(r.text)
		switch {
		case line == "":
			return
		case headerAt(r.text) >= 0:
			r.held = true
			if headerAt(r.text) > 0 {
				g.cut = true
			}
			return
		case strings.HasPrefix(line, "[originating from goroutine "):
			r.skip() // GODEBUG=tracebackancestors
			return
		case line == "goroutine running on other thread; stack unavailable":
			g.cut = true
			continue
		case strings.HasPrefix(line, "...") && strings.HasSuffix(line, "elided..."):
			g.cut = true
			continue
		}
		if by, is := strings.CutPrefix(line, "created by "); is {
			r.created(g, by)
			return // nothing follows
		}
		name, is := callName(line)
		if !is {
			if !foreign(line) {
				r.fault("not a call")
				g.cut = true
			}
			continue // the rest of its frames may come yet
		}
		f := Frame{Func: name}
		if r.next() {
			if file, n, is := fileLine(r.text); is {
				f.File, f.Line = file, n
				g.cut = g.cut || r.short
			} else {
				r.held = true
			}
		}
		if f.File == "" {
			g.cut = true
			r.fault("a call without its file")
		}
		if len(g.stack) < maxFrames {
			g.stack = append(g.stack, f)
		}
	}
	if r.err != nil && !errors.Is(r.err, io.EOF) {
		g.cut = true
	}
}

// foreign says that a line is of a frame that is not Go's (runtime/traceback.go,
// printCgoTraceback).
func foreign(line string) bool {
	return line == "non-Go function" || strings.HasPrefix(line, "pc=0x")
}

// skip reads up to the end of a goroutine, or the header of the next.
func (r *dumpReader) skip() {
	for r.next() {
		if headerAt(r.text) >= 0 {
			r.held = true
			return
		}
		if strings.TrimSpace(r.text) == "" {
			return
		}
	}
}

func (r *dumpReader) created(g *goroutine, by string) {
	if i := strings.LastIndex(by, " in goroutine "); i >= 0 {
		if _, err := strconv.ParseUint(by[i+len(" in goroutine "):], 10, 64); err == nil {
			by = by[:i]
		}
	}
	g.created = Frame{Func: shorten(by)}
	if !r.next() {
		g.cut = true
		r.fault("a creator without its file")
		return
	}
	if file, n, ok := fileLine(r.text); ok {
		g.created.File, g.created.Line = file, n
		g.cut = g.cut || r.short
		return
	}
	r.held = true
	g.cut = true
	r.fault("a creator without its file")
}

// callName is the function of "main.(*T).work(0xc000, ...)".
func callName(line string) (string, bool) {
	if !strings.HasSuffix(line, ")") {
		return "", false
	}
	// Arguments have braces, never parentheses.
	i := strings.LastIndexByte(line, '(')
	if i <= 0 || !strings.ContainsAny(line[:i], ".") && line[:i] != "panic" {
		return "", false
	}
	return shorten(line[:i]), true
}

// fileLine reads "\t/src/main.go:12 +0x1d". Paths may have spaces and colons.
func fileLine(text string) (file string, line int, ok bool) {
	if text == "" || text[0] != '\t' && text[0] != ' ' {
		return "", 0, false
	}
	text = strings.TrimSpace(text)
	colon := -1
	for i := len(text) - 1; i > 0; i-- {
		if text[i] == ':' && i+1 < len(text) && '0' <= text[i+1] && text[i+1] <= '9' {
			colon = i
			break
		}
	}
	if colon <= 0 {
		return "", 0, false
	}
	digits, rest, _ := strings.Cut(text[colon+1:], " ")
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || rest != "" && rest[0] != '+' && !strings.HasPrefix(rest, "fp=") {
		return "", 0, false
	}
	return shorten(text[:colon]), int(n), true
}

func shorten(s string) string { return s[:min(len(s), maxName)] }

// headerAt is where a goroutine's header begins in a line, -1 if it has none:
// not at the line's start where another writer's unfinished line came before.
func headerAt(line string) int {
	if !strings.HasSuffix(line, ":") {
		return -1
	}
	for from, tries := 0, 0; tries < 16; tries++ { // what is torn is torn once or twice
		i := strings.Index(line[from:], "goroutine ")
		if i < 0 {
			break
		}
		if _, ok := parseHeader(line[from+i:]); ok {
			return from + i
		}
		from += i + len("goroutine ")
	}
	return -1
}

// parseHeader reads a whole header.
func parseHeader(line string) (g goroutine, ok bool) {
	rest, ok := strings.CutPrefix(line, "goroutine ")
	if !ok {
		return g, false
	}
	digits, rest, _ := strings.Cut(rest, " ")
	id, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return g, false
	}
	for !strings.HasPrefix(rest, "[") { // gp=0x1 m=2 mp=0x3
		word, more, ok := strings.Cut(rest, " ")
		if !ok || !strings.HasPrefix(word, "gp=") && !strings.HasPrefix(word, "m=") && !strings.HasPrefix(word, "mp=") {
			return g, false
		}
		rest = more
	}
	end := closing(rest)
	if end < 0 {
		return g, false
	}
	inside, behind := rest[1:end], strings.TrimSpace(rest[end+1:])
	g = goroutine{id: id, count: 1}
	if behind != ":" {
		labels, ok := strings.CutSuffix(behind, ":")
		if !ok || !strings.HasPrefix(labels, "{") || !strings.HasSuffix(labels, "}") {
			return goroutine{}, false
		}
		g.labels = parseLabels(labels[1 : len(labels)-1])
	}
	if i := strings.Index(inside, " labels:{"); i >= 0 && strings.HasSuffix(inside, "}") {
		g.labels = parseLabels(inside[i+len(" labels:{") : len(inside)-1])
		inside = inside[:i]
	}
	g.describe(inside)
	return g, true
}

func notInState(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune(" .()?-_", r))
}

// describe reads "chan receive (leaked), 3 minutes, locked to thread".
func (g *goroutine) describe(inside string) {
	words := strings.Split(inside, ", ")
	state := words[0]
	for _, mark := range [...]string{" (scan)", " (leaked)"} {
		if s, is := strings.CutSuffix(state, mark); is {
			state = s
			if mark == " (leaked)" {
				g.proved = 1
			}
		}
	}
	// The runtime's own words; what is torn may have anything there.
	if len(state) <= 64 && strings.IndexFunc(state, notInState) < 0 {
		g.state = State(state)
	}
	// Waits under a minute are not printed; who runs does not wait.
	if c := g.state.class(); c != onCPU && c != unknownState {
		g.waits.known = true
	}
	for _, word := range words[1:] {
		if n, is := strings.CutSuffix(word, " minutes"); is {
			if m, err := strconv.ParseInt(n, 10, 32); err == nil && m >= 0 {
				g.waits = Waits{time.Duration(m) * time.Minute, true}
			}
		}
		g.locked = g.locked || word == "locked to thread"
	}
}

// closing is where the bracket that a text begins with is closed, outside of
// quotes.
func closing(text string) int {
	quoted := false
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == ']' && !quoted:
			return i
		}
	}
	return -1
}

// parseLabels reads `k: "v", "a b": c` and the JSON-like set of debug=1.
func parseLabels(text string) (ls []Label) {
	token := func() (string, bool) {
		text = strings.TrimLeft(text, " ")
		if q, err := strconv.QuotedPrefix(text); err == nil {
			text = text[len(q):]
			s, err := strconv.Unquote(q)
			return s, err == nil
		}
		i := strings.IndexAny(text, ":,")
		if i < 0 {
			i = len(text)
		}
		s := text[:i]
		text = text[i:]
		return s, s != ""
	}
	for len(ls) < maxLabels && text != "" {
		key, ok := token()
		var sep bool
		text, sep = strings.CutPrefix(text, ":")
		if !ok || !sep {
			return ls
		}
		value, ok := token()
		if !ok {
			return ls
		}
		ls = append(ls, Label{Key: shorten(key), Value: shorten(value)})
		if text, sep = strings.CutPrefix(text, ","); !sep {
			return ls
		}
	}
	return ls
}
