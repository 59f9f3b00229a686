// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The house has three floors, and arrows go downwards only. See
// docs/architecture.md; when a rule here is in the way, that picture changes with it.

const module = "github.com/memguard/memguard-go/"

// A room is one of our packages as "go list" sees it.
type room struct {
	ImportPath, Name                   string
	Imports, TestImports, XTestImports []string
	Deps                               []string // all that is linked with it
	Module                             *struct{ Path string }

	at string // import path below the module
}

// within reports whether a package is one of these or below one.
func within(at string, rooms ...string) bool {
	return slices.ContainsFunc(rooms, func(r string) bool { return at == r || strings.HasPrefix(at, r+"/") })
}

// ours are those of the import paths that are of this module, below it.
func ours(paths ...[]string) (below []string) {
	for _, p := range slices.Concat(paths...) {
		if p, ok := strings.CutPrefix(p, module); ok {
			below = append(below, p)
		}
	}
	return below
}

// house lists our packages, and the module of every package that they link. It
// is the same on every machine: Linux, without cgo.
func house(t *testing.T) (rooms []room, modules map[string]string) {
	c := exec.Command("go", "list", "-deps", "-json=ImportPath,Name,Imports,TestImports,XTestImports,Deps,Module", "./...")
	c.Dir = ".."
	c.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0", "GOFLAGS=")
	out, err := c.Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		t.Fatalf("go list: %v\n%s", err, failed.Stderr)
	}
	if err != nil {
		t.Skip("the go command cannot be run here: ", err)
	}
	modules = map[string]string{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var r room
		err := d.Decode(&r)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if r.Module != nil {
			modules[r.ImportPath] = r.Module.Path
		}
		if at, ok := strings.CutPrefix(r.ImportPath, module); ok {
			r.at = at
			rooms = append(rooms, r)
		}
	}
	require.NotEmpty(t, rooms)
	return rooms, modules
}

func TestArchitecture(t *testing.T) {
	t.Parallel()
	rooms, modules := house(t)
	for _, r := range rooms {
		imports, withTests := ours(r.Imports), ours(r.Imports, r.TestImports, r.XTestImports)
		forbid := func(imports []string, why string, forbidden ...string) {
			for _, i := range imports {
				assert.False(t, within(i, forbidden...), "%s imports %s: %s", r.at, i, why)
			}
		}
		third := thirdParty(r, modules)

		switch {
		case within(r.at, "pacer"):
			forbid(withTests, "pacer is the ground floor", "memguard", "scavenge", "sidecar", "bench", "examples")
		case within(r.at, "scavenge"):
			forbid(withTests, "scavenge is the ground floor", "memguard", "pacer", "sidecar", "bench", "examples")
		case within(r.at, "memguard"):
			forbid(withTests, "memguard is the middle floor", "sidecar", "bench", "examples")
		case within(r.at, "sidecar"):
			forbid(imports, "the top floor stands beside itself", "bench", "examples")
		case within(r.at, "examples"):
			forbid(imports, "nobody imports an example or the lab", "bench", "sidecar")
		case within(r.at, "bench"):
			forbid(imports, "nobody imports an example", "examples")
		default:
			assert.Fail(t, "a room that the plan does not know", r.at)
		}
		if leaf(r.at) {
			assert.Empty(t, imports, "%s is a leaf and imports nothing of ours", r.at)
		}
		if within(r.at, "scavenge/cgroup") && r.at != "scavenge/cgroup" {
			for _, i := range imports {
				assert.True(t, within(i, "scavenge/cgroup"), "%s may import cgroup and nothing else of ours, but imports %s", r.at, i)
			}
		}
		if within(r.at, "memguard") && !within(r.at, "memguard/prommetrics") {
			assert.Subset(t, []string{"github.com/google/pprof"}, third, "%s: what a service links that imports it", r.at)
			for _, d := range r.Deps {
				if modules[d] == "github.com/google/pprof" {
					assert.Equal(t, "github.com/google/pprof/profile", d)
				}
			}
		}
		if slices.Contains(third, "golang.org/x/exp") {
			assert.True(t, within(r.at, "pacer/exectrace", "sidecar"), "%s links golang.org/x/exp, which is for pacer/exectrace and the command", r.at)
		}
	}
}

// leaf reports whether a package knows nothing of the others.
func leaf(at string) bool {
	return slices.Contains([]string{
		"pacer/gctrace", "pacer/exectrace", "scavenge/smaps", "scavenge/cgroup", "memguard/sizeclass", "memguard/leak",
	}, at)
}

// thirdParty are the modules that a package links, beside ours and the standard library.
func thirdParty(r room, modules map[string]string) []string {
	var third []string
	for _, d := range r.Deps {
		if m := modules[d]; m != "" && m+"/" != module {
			third = append(third, m)
		}
	}
	slices.Sort(third)
	return slices.Compact(third)
}

// Who imports a package of ours links these modules of others. A line that
// changes here is a change for every user: it goes into the CHANGELOG.
func TestDependencies(t *testing.T) {
	t.Parallel()
	rooms, modules := house(t)
	slices.SortFunc(rooms, func(a, b room) int { return strings.Compare(a.at, b.at) })
	var b strings.Builder
	for _, r := range rooms {
		if r.Name == "main" {
			continue
		}
		third := strings.Join(thirdParty(r, modules), " ")
		if third == "" {
			third = "-"
		}
		fmt.Fprintf(&b, "%-28s %s\n", r.at, third)
	}
	golden(t, "dependencies.txt", b.String())
}
