// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestTrees opens groups in trees of text files, one machine each. A fixture
// has the pids to open, the files of the tree ("link NAME" for a symbolic
// link; a target that begins with "/" stays in the tree) and what is read.
// UPDATE=1 rewrites the last.
func TestTrees(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("testdata/tree/*.txtar")
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(name)
			require.NoError(t, err)
			pids, want, root := buildTree(t, string(text))
			var got strings.Builder
			for _, pid := range strings.Fields(pids) {
				n, err := strconv.Atoi(pid)
				require.NoError(t, err)
				describe(&got, filepath.Join(root, "proc"), n)
			}
			have := strings.ReplaceAll(got.String(), root, "$ROOT")
			if os.Getenv("UPDATE") != "" {
				head, _, _ := strings.Cut(string(text), "-- want --\n")
				require.NoError(t, os.WriteFile(name, []byte(head+"-- want --\n"+have), 0o644))
				return
			}
			assert.Equal(t, want, have)
		})
	}
}

// buildTree unpacks a fixture.
func buildTree(t *testing.T, text string) (pids, want, root string) {
	root = t.TempDir()
	_, text, _ = strings.Cut(text, "\n-- ") // behind the note
	for section := range strings.SplitSeq(text, "\n-- ") {
		name, body, ok := strings.Cut(section, " --\n")
		require.True(t, ok, section)
		if name != "want" {
			body += "\n" // the one that the cut took
		}
		switch name {
		case "pids":
			pids = body
			continue
		case "want":
			want = body
			continue
		}
		name, isLink := strings.CutPrefix(name, "link ")
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if !isLink {
			require.NoError(t, os.WriteFile(path, []byte(body), 0o644))
			continue
		}
		target := strings.TrimSpace(body)
		if strings.HasPrefix(target, "/") {
			target = filepath.Join(root, target)
		}
		require.NoError(t, os.Symlink(target, path))
	}
	return pids, want, root
}

// describe prints all that a Group says.
func describe(w *strings.Builder, proc string, pid int) {
	fmt.Fprintf(w, "pid %d\n", pid)
	g, err := Open(proc, pid)
	if err != nil {
		for _, is := range []error{ErrNoProcess, ErrNoController, ErrGone} {
			if errors.Is(err, is) {
				fmt.Fprintf(w, "\tis: %v\n", is)
			}
		}
		fmt.Fprintf(w, "\terror: %s\n", strings.ReplaceAll(err.Error(), "\n", "\n\t\t"))
		return
	}
	defer g.Close()
	fmt.Fprintf(w, "\tv%d %s\n\tdir %s\n", g.Version(), g.Path(), g.Dir())
	if n, err := g.Usage(); err != nil {
		fmt.Fprintf(w, "\tusage: %v\n", err)
	} else {
		fmt.Fprintf(w, "\tusage %d\n", n)
	}
	r, err := g.Read()
	fmt.Fprintf(w, "\tread: %v\n", err)
	fmt.Fprintf(w, "\tusage %v peak %v working set %v\n", r.Usage, r.Peak, r.WorkingSet)
	fmt.Fprintf(w, "\tlimit %v from %q high %v\n\tswap %v limit %v\n", r.Limit, r.LimitFrom, r.High, r.Swap, r.SwapLimit)
	for _, l := range r.Levels {
		fmt.Fprintf(w, "\tlevel %s: usage %v limit %v high %v\n", l.Dir, l.Usage, l.Limit, l.High)
	}
	if n, dir, ok := r.Room(); ok {
		fmt.Fprintf(w, "\troom %d in %s\n", n, dir)
	}
	fmt.Fprint(w, "\tstat")
	for f := range Fields() {
		if n, ok := r.Stat.Bytes(f); ok {
			fmt.Fprintf(w, " %v=%d", f, n)
		}
	}
	lines := 0
	for range r.Stat.Lines() {
		lines++
	}
	fmt.Fprintf(w, "\n\tlines %d\n", lines)
	fmt.Fprintf(w, "\tevents %+v\n\tlocal events %+v\n", r.Events, r.LocalEvents)
	some, someOK := r.PSI.Some()
	full, fullOK := r.PSI.Full()
	fmt.Fprintf(w, "\tpsi host=%v some %v %v full %v %v\n", r.PSI.Host, some, someOK, full, fullOK)
	for _, err := range r.Errs {
		fmt.Fprintf(w, "\terr: %v\n", err)
	}
	pids, err := g.Pids()
	fmt.Fprintf(w, "\tpids %v %v\n", pids, err)
}
