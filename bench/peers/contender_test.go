// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/bench/contender"
	"github.com/memguard/memguard-go/bench/lab"
	"github.com/memguard/memguard-go/bench/scenario"
	"github.com/memguard/memguard-go/scavenge/cgroup/cgrouptest"
	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
)

func TestAll(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range slices.Concat(contender.All, All) {
		assert.False(t, seen[c.Name], c.Name)
		seen[c.Name] = true
	}
	for _, c := range All {
		assert.Contains(t, c.Setup, "https://", "%s: on whose word", c.Name)
	}
	assert.Equal(t, []string{"GOMEMLIMIT=640"}, memoryLimiter.Env(1000))
	assert.Equal(t, []string{"GOMEMLIMIT=900"}, bulkheadOfRightSize.Env(1000))
}

// The program itself, as a test binary does not know the versions of its modules.
func TestVersions(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "run", "./cmd/oomlab", "list", "--json").Output()
	require.NoError(t, err)
	var listing struct{ Guards []lab.GuardDoc }
	require.NoError(t, json.Unmarshal(out, &listing))
	guards := map[string]lab.GuardDoc{}
	for _, g := range listing.Guards {
		guards[g.Name] = g
	}
	for _, c := range All {
		assert.Regexp(t, `^v\d+\.\d+\.\d+`, guards[c.Name].Version, c.Name)
	}
	for _, c := range contender.All {
		assert.Contains(t, guards, c.Name)
	}
}

func start(name string, limit uint64) lab.Hooks {
	i := slices.IndexFunc(All, func(c lab.Contender) bool { return c.Name == name })
	hooks, err := All[i].Start(limit)
	if err != nil {
		panic(err)
	}
	return hooks
}

// plenty is far more than a service uses that does nothing.
const plenty = 1 << 30

// used is what a contender did with a service that has memory to spare.
type used struct {
	Entered int    // units of work of 20
	Status  int    // of a request, if the contender wants to see it
	Closed  string // the error; empty if there is none
}

func use(name string) (u used) {
	hooks := start(name, plenty)
	for range 20 {
		if hooks.Enter == nil {
			u.Entered++
			continue
		}
		if leave, ok := hooks.Enter(context.Background(), "work"); ok {
			u.Entered++
			leave()
		}
	}
	u.Status = http.StatusOK
	if hooks.Handler != nil {
		u.Status = request(hooks.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	}
	if hooks.Close != nil {
		if err := hooks.Close(); err != nil {
			u.Closed = err.Error()
		}
	}
	return u
}

func request(h http.Handler) int {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	return w.Code
}

// A service that has memory to spare is let alone by every contender, and what it
// started it can end.
func TestContendersStartAndClose(t *testing.T) {
	t.Parallel()
	for _, c := range All {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			var env []string
			if c.Env != nil {
				env = c.Env(plenty)
			}
			var got used
			child(t, "use "+c.Name, &got, env...)
			assert.Equal(t, used{Entered: 20, Status: http.StatusOK}, got)
		})
	}
}

// refuse puts a service into the trouble that a contender refuses work for: it
// holds twice its limit, its work never ends, and its requests fail. It says
// after how much of it the first was refused, -1 if none was.
func refuse(name string) int {
	const limit = 64 << 20
	held := make([]byte, 2*limit)
	for i := range held {
		held[i] = 1 // RSS counts what was written to
	}
	hooks := start(name, limit)
	failing := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) })
	end := time.Now().Add(20 * time.Second) // a limiter that looks takes its second for it
	for n := 0; time.Now().Before(end); n++ {
		if hooks.Enter != nil {
			if _, ok := hooks.Enter(context.Background(), "work"); !ok {
				return n
			}
		} else if s := request(hooks.Handler(failing)); s == http.StatusServiceUnavailable {
			return n
		}
		time.Sleep(time.Millisecond)
	}
	runtime.KeepAlive(held)
	return -1
}

func TestSheddersRefuse(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]int{ // how much is done before
		memoryLimiter.Name:       -1, // until its next look
		memoryAdaptive.Name:      -1, // 100 in the second of its clock
		circuitBreaker.Name:      3,
		adaptiveLimiter.Name:     20,
		bulkheadOfRightSize.Name: atOnce,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var after int
			child(t, "refuse "+name, &after)
			assert.Positive(t, after)
			if limit >= 0 {
				assert.Equal(t, limit, after)
			}
		})
	}
}

// The quick subset for real, under a guard that stays within the Go runtime and
// one that keeps evidence: both see the limit of the cgroup that they run in.
func TestProcessSmoke(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some 20 s of real services and kills")
	}
	probe, err := sandbox.New("peers-test", 64<<20)
	if errors.Is(err, sandbox.ErrUnsupported) {
		cgrouptest.Skip(t, err)
	}
	require.NoError(t, err)
	require.NoError(t, probe.Close())

	dir := t.TempDir()
	args := []string{"run", "--smoke", "--guard", autoMemLimit.Name + "," + gcTuner.Name, "--duration", "5s", "--timeout", "60s", "--json", dir}
	require.Zero(t, lab.Main(args, scenario.All, All...))
	got, err := lab.ReadResults(dir)
	require.NoError(t, err)
	require.Len(t, got.Results, 6)
	kills := uint64(0)
	for _, r := range got.Results {
		assert.Contains(t, []lab.Outcome{lab.Alive, lab.Killed}, r.Outcome, "%s under %s: %v", r.Scenario, r.Guard, r.Stderr)
		kills += r.Kills
		if r.Guard == autoMemLimit.Name {
			assert.Contains(t, strings.Join(r.Stderr, "\n"), "GOMEMLIMIT is updated", r.Scenario)
		}
	}
	assert.NotZero(t, kills, "neither can save all of them")
}
