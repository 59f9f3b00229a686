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
		assert.Empty(t, broken(r, modules))
	}
}

// broken says which rules a package breaks.
func broken(r room, modules map[string]string) (rules []string) {
	imports, withTests := ours(r.Imports), ours(r.Imports, r.TestImports, r.XTestImports)
	forbid := func(imports []string, rule string, rooms ...string) {
		for _, i := range imports {
			if within(i, rooms...) {
				rules = append(rules, fmt.Sprintf("%s imports %s: %s", r.at, i, rule))
			}
		}
	}
	switch {
	case within(r.at, "pacer"):
		forbid(withTests, "pacer is the ground floor", "memguard", "scavenge", "sidecar", "bench", "examples")
	case within(r.at, "scavenge"):
		forbid(withTests, "scavenge is the ground floor", "memguard", "pacer", "sidecar", "bench", "examples")
	case within(r.at, "memguard"):
		forbid(withTests, "memguard is the middle floor", "sidecar", "bench", "examples")
	case within(r.at, "sidecar"):
		forbid(imports, "nobody imports the lab or an example", "bench", "examples")
	case within(r.at, "bench"):
		forbid(imports, "nobody imports the sidecar or an example", "sidecar", "examples")
	case within(r.at, "examples"):
		forbid(imports, "nobody imports the sidecar or the lab", "sidecar", "bench")
	default:
		rules = append(rules, r.at+": the plan does not have this room")
	}
	switch {
	case slices.Contains(leaves, r.at):
		forbid(imports, "a leaf knows nothing of ours", imports...)
	case within(r.at, "scavenge/cgroup"):
		forbid(slices.DeleteFunc(slices.Clone(imports), func(i string) bool { return within(i, "scavenge/cgroup") }),
			"it stands on cgroup alone", imports...)
	case within(r.at, "memguard/shed", "memguard/evidence"):
		forbid(imports, "it is below the guard", "memguard")
	case r.at == "memguard":
		forbid(imports, "it is above the guard", "memguard/agent", "memguard/prommetrics", "memguard/auto")
	}
	for _, d := range r.Deps {
		m := modules[d]
		switch {
		case m == "" || m+"/" == module:
		case within(r.at, "memguard") && !within(r.at, "memguard/prommetrics") && d != "github.com/google/pprof/profile":
			rules = append(rules, fmt.Sprintf("%s links %s: a service that imports it must not", r.at, d))
		case m == "golang.org/x/exp" && !within(r.at, "pacer/exectrace", "sidecar"):
			rules = append(rules, fmt.Sprintf("%s links %s: that is for exectrace and the command", r.at, d))
		}
	}
	return rules
}

// leaves know nothing of the rest of the house.
var leaves = []string{
	"pacer/gctrace", "pacer/exectrace", "scavenge/smaps", "scavenge/cgroup", "memguard/sizeclass", "memguard/leak",
}

// The rules bite.
func TestArchitectureRules(t *testing.T) {
	t.Parallel()
	modules := map[string]string{
		"golang.org/x/exp/trace": "golang.org/x/exp", "golang.org/x/sys/unix": "golang.org/x/sys",
		"github.com/google/pprof/profile": "github.com/google/pprof", "github.com/google/pprof/driver": "github.com/google/pprof",
	}
	at := func(where string, imports ...string) room {
		for i := range imports {
			imports[i] = module + imports[i]
		}
		return room{at: where, Imports: imports}
	}
	links := func(where, what string) room { return room{at: where, Deps: []string{"fmt", what}} }
	for _, wrong := range []room{
		at("pacer", "memguard"), at("pacer", "scavenge/smaps"), at("pacer/gctrace", "pacer"), at("scavenge", "pacer"),
		at("scavenge/cgroup/sandbox", "scavenge/smaps"), at("memguard", "sidecar/attach"), at("memguard", "memguard/prommetrics"),
		at("memguard/evidence", "memguard"), at("memguard/leak", "memguard/sizeclass"), at("sidecar/demo", "examples/orders"),
		at("examples/orders", "bench"), at("bench/cmd/oomlab", "sidecar/page"), at("tools"),
		{at: "pacer", TestImports: []string{module + "memguard"}}, {at: "memguard", XTestImports: []string{module + "bench"}},
		links("memguard", "golang.org/x/sys/unix"), links("memguard/agent", "golang.org/x/exp/trace"), links("memguard", "github.com/google/pprof/driver"),
		links("pacer/gctrace", "golang.org/x/exp/trace"), links("examples/orders", "golang.org/x/exp/trace"),
	} {
		assert.Len(t, broken(wrong, modules), 1, "%+v", wrong)
	}
	for _, right := range []room{
		at("pacer", "pacer/gctrace"), at("scavenge", "scavenge/smaps", "scavenge/cgroup"), at("scavenge/cgroup/sandbox", "scavenge/cgroup"),
		at("memguard", "pacer", "scavenge", "memguard/leak"), at("memguard/agent", "memguard"), at("sidecar/demo", "memguard", "sidecar/attach"),
		at("bench/cmd/oomlab", "bench", "memguard"), at("examples/orders", "memguard"),
		links("memguard", "github.com/google/pprof/profile"), links("pacer/exectrace", "golang.org/x/exp/trace"),
		links("sidecar/cmd/memguard", "golang.org/x/exp/trace"), links("memguard/prommetrics", "golang.org/x/sys/unix"),
	} {
		assert.Empty(t, broken(right, modules))
	}
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

// Whoever imports a package of ours links these modules of others. A line that
// changes here is a change for every user: it goes into the CHANGELOG.
func TestDependencies(t *testing.T) {
	t.Parallel()
	rooms, modules := house(t)
	slices.SortFunc(rooms, func(a, b room) int { return strings.Compare(a.at, b.at) })
	var b strings.Builder
	for _, r := range rooms {
		if r.Name == "main" || !within(r.at, "pacer", "scavenge", "memguard") || strings.Contains(r.at, "internal") {
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
