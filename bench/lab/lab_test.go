// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/memguard/memguard-go/scavenge/cgroup/cgrouptest"
	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
)

const mib = 1 << 20

// programEnv makes the test binary the lab itself, with its arguments.
const programEnv = "OOMLAB_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if IsChild() || os.Getenv(programEnv) != "" {
		os.Exit(Main(os.Args[1:], testScenarios, testContenders...))
	}
	os.Exit(m.Run())
}

// eat allocates and keeps until it is killed.
func eat(ctx context.Context, done func(int)) error {
	var kept [][]byte
	for ctx.Err() == nil {
		b := make([]byte, mib)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		kept = append(kept, b)
		done(1)
		time.Sleep(3 * time.Millisecond)
	}
	return fmt.Errorf("%d MiB and still alive", len(kept))
}

// life counts the lives of a victim, in its directory.
func life() (n int, err error) {
	f, err := os.OpenFile("lives", os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if _, err := f.WriteString("."); err != nil {
		return 0, err
	}
	fi, err := f.Stat()
	return int(fi.Size()), err
}

func get(ctx context.Context, c *Client) error {
	return c.Rate(ctx, 100, Request{Stream: "get", Path: "/", Check: func(b []byte) error {
		if string(b) != "hello" {
			return errors.New("not hello")
		}
		return nil
	}})
}

var testScenarios = []Scenario{
	{
		Name: "leak", Story: "It keeps <everything>.", Best: "nothing", Limit: 64 * mib, Duration: 30 * time.Second,
		Victim: func(ctx context.Context, h *Host) error { return eat(ctx, h.Done) },
	},
	{
		Name: "calm", Story: "It answers.", Survivable: true, Limit: 128 * mib, Duration: time.Second,
		Victim: func(ctx context.Context, h *Host) error {
			return h.Serve(ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }))
		},
		Load: get,
	},
	{
		Name: "again", Story: "It is killed, starts again, is killed again, and then has enough.", Limit: 64 * mib, Duration: 60 * time.Second,
		Victim: func(ctx context.Context, h *Host) error {
			n, err := life()
			if err != nil || n > 2 {
				return err
			}
			return eat(ctx, func(int) {})
		},
		Load: func(ctx context.Context, c *Client) error { <-ctx.Done(); return nil },
	},
	{
		Name: "pod", Story: "The other one eats.", Limit: 64 * mib, Duration: 3 * time.Second,
		Victim:    func(ctx context.Context, h *Host) error { <-ctx.Done(); return nil },
		Neighbour: func(ctx context.Context, limit uint64) error { return eat(ctx, func(int) {}) },
	},
	{
		Name: "asker", Story: "It asks its guard.", Survivable: true, Limit: 64 * mib, Duration: time.Second,
		Victim: func(ctx context.Context, h *Host) error {
			for range 10 {
				leave, ok := h.Hooks.Enter(ctx, "work")
				if ok {
					h.Done(1)
				}
				leave()
			}
			return h.Hooks.Close()
		},
	},
	{
		Name: "error", Story: "It goes wrong by itself.", Limit: 64 * mib, Duration: 30 * time.Second,
		Victim: func(ctx context.Context, h *Host) error { return errors.New("out of paper") },
	},
	{
		Name: "long", Story: "It does nothing for long.", Limit: 64 * mib, Duration: time.Minute,
		Victim: func(ctx context.Context, h *Host) error {
			fmt.Fprintln(os.Stderr, "here")
			<-ctx.Done()
			return nil
		},
		Load:      func(ctx context.Context, c *Client) error { <-ctx.Done(); return nil },
		Neighbour: func(ctx context.Context, limit uint64) error { <-ctx.Done(); return nil },
	},
}

var testContenders = []Contender{
	{Name: "plain", Setup: "nothing"},
	{
		Name: "seer", Setup: "says what it sees & no more", Version: "v1",
		Start: func(uint64) (Hooks, error) {
			fmt.Fprintf(os.Stderr, "event %d raised some-leak warning it <leaks> & grows\n", time.Now().UnixNano())
			return Hooks{}, nil
		},
	},
	{
		Name: "refuser", Setup: "refuses every other time",
		Start: func(uint64) (Hooks, error) {
			n := 0
			return Hooks{Enter: func(context.Context, string) (func(), bool) { n++; return nil, n%2 == 0 }}, nil
		},
	},
	{Name: "cripple", Setup: "does not start", Start: func(uint64) (Hooks, error) { return Hooks{}, errors.New("no legs") }},
}

// play runs one scenario under one guard. Its directory is gone afterwards, and
// so is its cgroup.
func play(t *testing.T, name, guard string) *Result {
	t.Helper()
	scenarios, err := choose("scenario", testScenarios, func(s *Scenario) string { return s.Name }, []string{name})
	require.NoError(t, err)
	guards, err := choose("guard", testContenders, func(c *Contender) string { return c.Name }, []string{guard})
	require.NoError(t, err)
	s := series{scenarios: scenarios, guards: guards, repeat: 1}
	b := s.bouts()[0]
	r, err := b.run(t.Context())
	if errors.Is(err, sandbox.ErrUnsupported) {
		cgrouptest.Skip(t, err)
	}
	require.NoError(t, err)
	require.NoError(t, r.check())
	return r
}

func TestKilledByTheKernel(t *testing.T) {
	t.Parallel()
	r := play(t, "leak", "seer")
	assert.Equal(t, Killed, r.Outcome)
	assert.EqualValues(t, 1, r.Kills)
	require.Len(t, r.Deaths, 1)
	d := r.Deaths[0]
	assert.Equal(t, victimPart, d.Who)
	assert.True(t, d.Kernel)
	assert.Equal(t, "killed", d.How)
	assert.Equal(t, 1, r.Lives, "it drives itself: one life")
	assert.Less(t, r.Ran, r.Planned)

	// What it reported before is counted, and cannot be more than fits.
	assert.Positive(t, r.Done)
	assert.Less(t, r.Done, uint64(64))
	assert.InDelta(t, float64(r.Done)/30, r.Goodput, 1e-9)
	assert.Positive(t, r.CPU)
	require.NotNil(t, r.Peak)
	assert.Greater(t, *r.Peak, uint64(60*mib))

	require.NotEmpty(t, r.Memory)
	for i, u := range r.Memory {
		require.NotNil(t, u.Held)
		assert.LessOrEqual(t, *u.Held, u.Usage)
		if i > 0 {
			assert.Greater(t, u.At, r.Memory[i-1].At)
		}
	}

	require.Len(t, d.Named, 1)
	assert.Equal(t, "some-leak", d.Named[0].Finding)
	assert.Equal(t, "it <leaks> & grows", d.Named[0].Text)
	assert.Positive(t, d.Named[0].Ahead)
	assert.Less(t, d.Named[0].Ahead, d.At)
}

func TestStartedAgain(t *testing.T) {
	t.Parallel()
	r := play(t, "again", "plain")
	assert.Equal(t, Killed, r.Outcome)
	assert.EqualValues(t, 2, r.Kills)
	assert.Len(t, r.Deaths, 2)
	assert.Equal(t, 3, r.Lives)
	assert.Equal(t, []File{{"lives", 3}}, r.Artefacts)
}

func TestNeighbourIsKilled(t *testing.T) {
	t.Parallel()
	r := play(t, "pod", "plain")
	assert.Equal(t, Killed, r.Outcome)
	require.NotEmpty(t, r.Deaths)
	assert.Equal(t, neighbourPart, r.Deaths[0].Who)
	assert.True(t, r.Deaths[0].Kernel)
}

func TestAnswersCount(t *testing.T) {
	t.Parallel()
	r := play(t, "calm", "plain")
	assert.Equal(t, Alive, r.Outcome)
	assert.Zero(t, r.Kills)
	assert.Empty(t, r.Deaths)
	require.NotNil(t, r.Load)
	assert.Positive(t, r.Load.Good)
	assert.Equal(t, r.Load.Good, r.Done)
	assert.Equal(t, r.Load.Good, r.Load.Streams["get"].Good)
	_, ok := r.Load.P99.Value()
	assert.True(t, ok)
}

func TestRefusedIsNotDone(t *testing.T) {
	t.Parallel()
	r := play(t, "asker", "refuser")
	assert.Equal(t, Alive, r.Outcome)
	assert.EqualValues(t, 5, r.Done)
	assert.EqualValues(t, 5, r.Refused)
	assert.Nil(t, r.Load)

	// What the guard leaves out lets everything pass.
	r = play(t, "asker", "seer")
	assert.EqualValues(t, 10, r.Done)
	assert.Zero(t, r.Refused)
}

func TestDiedByItself(t *testing.T) {
	t.Parallel()
	r := play(t, "error", "plain")
	assert.Equal(t, Died, r.Outcome)
	assert.Zero(t, r.Kills)
	require.Len(t, r.Deaths, 1)
	assert.Equal(t, "exit status 1", r.Deaths[0].How)
	assert.False(t, r.Deaths[0].Kernel)
	assert.Equal(t, []string{"oomlab: out of paper"}, r.Stderr)
}

func TestGuardThatDoesNotStart(t *testing.T) {
	t.Parallel()
	r := play(t, "again", "cripple")
	assert.Equal(t, Failed, r.Outcome)
	assert.Equal(t, 1, r.Lives, "it would not start the next time either")
	assert.Contains(t, r.Error, "did not start")
	assert.Contains(t, strings.Join(r.Stderr, "\n"), "no legs")
}

// program is the lab's own program, in a process.
func program(t *testing.T, args ...string) *exec.Cmd {
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), programEnv+"=1")
	return cmd
}

func TestProgram(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "results")
	cmd := program(t, "run", "error", "asker", "--guard", "plain,refuser", "--repeat", "2", "--json", dir, "--out", filepath.Join(t.TempDir(), "page.html"))
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	skipUnsupported(t, stderr.String())
	require.NoError(t, err, stderr.String())
	assert.Contains(t, stdout.String(), "\nBenchmarkOOM/scenario=asker/guard=refuser 1 5 goodput/s ")
	assert.Contains(t, stderr.String(), "[8/8]")
	assert.Contains(t, strings.Join(strings.Fields(stderr.String()), " "), "Repeats agree on the outcome in all 4 cases.")

	r, err := ReadResults(dir)
	require.NoError(t, err)
	assert.Len(t, r.Results, 8)
	bench, err := os.ReadFile(filepath.Join(dir, benchName))
	require.NoError(t, err)
	assert.Equal(t, stdout.String(), string(bench))
}

func skipUnsupported(t *testing.T, stderr string) {
	if strings.Contains(stderr, sandbox.ErrUnsupported.Error()) {
		cgrouptest.Skip(t, errors.New(stderr))
	}
}

// Ctrl-C leaves no process, no cgroup and no directory, and keeps what was measured.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	dir, tmp := filepath.Join(t.TempDir(), "results"), t.TempDir()
	cmd := program(t, "run", "error", "long", "--guard", "plain", "--json", dir)
	cmd.Env = append(cmd.Env, "TMPDIR="+tmp)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var parts []string
	require.Eventually(t, func() bool { // the victim and its neighbour are there
		select {
		case err := <-done:
			done <- err
			return true
		default:
		}
		parts = group(t, cmd.Process.Pid, "long")
		return len(parts) == 2
	}, 30*time.Second, 5*time.Millisecond)
	if len(parts) != 2 {
		<-done
		skipUnsupported(t, stderr.String())
		t.Fatal(stderr.String())
	}
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	err := <-done
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, stderr.String())
	assert.Equal(t, exitInterrupted, exit.ExitCode(), stderr.String())
	assert.Empty(t, group(t, cmd.Process.Pid, "long"))
	assert.Empty(t, groups(t, cmd.Process.Pid))
	for _, pid := range parts {
		assert.NoDirExists(t, filepath.Join("/proc", pid))
	}
	left, err := os.ReadDir(tmp)
	require.NoError(t, err)
	assert.Empty(t, left)

	r, err := ReadResults(dir)
	require.NoError(t, err)
	assert.Len(t, r.Results, 1)
	assert.Contains(t, r.Cut, "interrupted")
}

// groups are the directories of the sandboxes that a process has made.
func groups(t *testing.T, pid int) (dirs []string) {
	roots, err := filepath.Glob("/sys/fs/cgroup/*/memguard-oomlab-*")
	require.NoError(t, err)
	more, err := filepath.Glob("/sys/fs/cgroup/memguard-oomlab-*")
	require.NoError(t, err)
	for _, d := range append(roots, more...) {
		if strings.Contains(d, fmt.Sprintf("-%d-", pid)) {
			dirs = append(dirs, d)
		}
	}
	return dirs
}

// group lists the processes in the sandbox of a scenario.
func group(t *testing.T, pid int, scenario string) []string {
	for _, d := range groups(t, pid) {
		if strings.Contains(d, "-"+scenario+"-") {
			b, err := os.ReadFile(filepath.Join(d, "cgroup.procs"))
			if err == nil {
				return strings.Fields(string(b))
			}
		}
	}
	return nil
}

func TestTimeoutKeepsWhatWasMeasured(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "results")
	cmd := program(t, "run", "long", "--guard", "plain", "--json", dir, "--timeout", "300ms")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	err := cmd.Run()
	skipUnsupported(t, stderr.String())
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	assert.Equal(t, exitCannot, exit.ExitCode())
	r, err := ReadResults(dir)
	require.NoError(t, err)
	assert.Empty(t, r.Results)
	assert.Contains(t, r.Cut, "--timeout")
	assert.Empty(t, groups(t, cmd.Process.Pid))
}

func TestFreeAddr(t *testing.T) {
	t.Parallel()
	addr, err := freeAddr()
	require.NoError(t, err)
	l, err := net.Listen("tcp", addr)
	require.NoError(t, err)
	defer l.Close()
	other, err := freeAddr()
	require.NoError(t, err)
	assert.NotEqual(t, addr, other)
}
