// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
)

type lineFigures struct {
	Lines    map[string]int `json:"lines"` // of the trace, by how they begin
	Claimed  int            `json:"lines_as_claimed"`
	InSource *int           `json:"occurrences_in_source"` // null: the toolchain has no source here
}

const claimedLine = "scavenge not needed"

func measureLine() (f lineFigures, err error) {
	garbage := blocks(16 * mib)
	runtime.KeepAlive(garbage)
	runtime.GC()
	debug.FreeOSMemory()

	trace, err := io.ReadAll(io.NewSectionReader(os.Stderr, 0, math.MaxInt64))
	if err != nil {
		return f, err
	}
	f.Lines = map[string]int{}
	for line := range bytes.Lines(trace) {
		word, _, _ := strings.Cut(string(line), " ")
		f.Lines[word]++
		if bytes.Contains(line, []byte(claimedLine)) {
			f.Claimed++
		}
	}
	if found, err := inSource(claimedLine); err == nil {
		n := found[claimedLine]
		f.InSource = &n
	}
	return f, nil
}

func judgeLine(all []lineFigures) (Verdict, string) {
	f := all[0]
	happened := fmt.Sprintf("Collections and a release printed %d lines \"gc …\" and %d lines \"scav …\", %d of them with \"%s\".", f.Lines["gc"], f.Lines["scav"], f.Claimed, claimedLine)
	if f.InSource != nil {
		happened += fmt.Sprintf(" The runtime's source has it %d×.", *f.InSource)
	}
	switch {
	case f.Lines["gc"] == 0 || f.Lines["scav"] == 0:
		return Unclear, happened
	case f.Claimed > 0 || f.InSource != nil && *f.InSource > 0:
		return True, happened
	}
	return False, happened
}

type nameFigures struct {
	Claimed map[string]int `json:"occurrences_of_claimed"`
	Real    map[string]int `json:"occurrences_of_real"` // the control
}

func measureNames(claimed, real []string) (f nameFigures, err error) {
	if f.Claimed, err = inSource(claimed...); err != nil {
		return f, err
	}
	f.Real, err = inSource(real...)
	return f, err
}

func measurePacerNames() (nameFigures, error) {
	return measureNames([]string{"gcPacerState", "gcPacerIdle", "gc/pacer/state"}, []string{"gcControllerState", "_GCmarktermination"})
}

func measureScavengerNames() (nameFigures, error) {
	return measureNames([]string{"scavengingLoop", "scavChunk", "scanInUse"}, []string{"bgscavenge", "scavengeOne"})
}

func judgeNames(all []nameFigures) (Verdict, string) {
	f := all[0]
	list := func(names map[string]int) (text string, none, every bool) {
		none, every = true, true
		var each []string
		for _, name := range sortedKeys(names) {
			each = append(each, fmt.Sprintf("%s %d×", name, names[name]))
			none, every = none && names[name] == 0, every && names[name] > 0
		}
		return strings.Join(each, ", "), none, every
	}
	claimed, none, every := list(f.Claimed)
	actual, _, control := list(f.Real)
	happened := fmt.Sprintf("The runtime's source has %s; it has %s.", claimed, actual)
	switch {
	case !control:
		return Unclear, happened
	case none:
		return False, happened
	case every:
		return True, happened
	}
	return Partly, happened
}

// inSource counts whole words in the source of the runtime that this program
// was built with.
func inSource(words ...string) (map[string]int, error) {
	root, err := sourceRoot()
	if err != nil {
		return nil, err
	}
	found := map[string]int{}
	patterns := map[string]*regexp.Regexp{}
	for _, w := range words {
		found[w] = 0
		patterns[w] = regexp.MustCompile(`\b` + regexp.QuoteMeta(w) + `\b`)
	}
	for _, dir := range []string{"runtime", filepath.Join("internal", "trace")} {
		err := filepath.WalkDir(filepath.Join(root, "src", dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
				return err
			}
			text, err := os.ReadFile(path)
			for w, p := range patterns {
				found[w] += len(p.FindAllIndex(text, -1))
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("%w: no source of the runtime: %w", errNotHere, err)
		}
	}
	return found, nil
}

// sourceRoot asks the go command, which go run puts first on the path.
func sourceRoot() (string, error) {
	out, err := exec.Command("go", "env", "-json", "GOROOT", "GOVERSION").Output()
	if err != nil {
		return "", fmt.Errorf("%w: the go command, which knows where the runtime's source is: %w", errNotHere, err)
	}
	var env struct{ GOROOT, GOVERSION string }
	if err := json.Unmarshal(out, &env); err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	if version, _, _ := strings.Cut(runtime.Version(), " "); version != env.GOVERSION { // "go1.26.8 X:experiment"
		return "", fmt.Errorf("%w: the go command is of %s and has the source of that; this was built with %s", errNotHere, env.GOVERSION, version)
	}
	return env.GOROOT, nil
}
