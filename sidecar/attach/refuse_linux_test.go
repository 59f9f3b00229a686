// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/memguard/memguard-go/sidecar/attach/internal/layout"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestWrongTable reads targets by the tables of other releases: a table is
// refused unless it says the same of everything that is checked.
func TestWrongTable(t *testing.T) {
	bins := []build{{release: current}, {release: current, flags: "-ldflags=-s,-w"}}
	if os.Getenv("MEMGUARD_TOOLCHAINS") != "" {
		for _, r := range releases {
			bins = append(bins, build{release: r}, build{release: r, flags: "-ldflags=-s,-w"})
		}
	} else {
		t.Log("MEMGUARD_TOOLCHAINS=1 tests every pair of releases")
	}
	for _, b := range bins {
		p := start(t, compile(t, b), "-goroutines=100")
		for _, other := range releases {
			t.Run(b.String()+" by "+other, func(t *testing.T) {
				right, err := layout.Lookup(b.release, "amd64")
				require.NoError(t, err)
				wrong, err := layout.Lookup(other, "amd64")
				require.NoError(t, err)
				target := &Target{pid: p.pid()}
				defer target.Close()
				err = target.openWith(wrong, 100*time.Millisecond)
				if err == nil {
					want, got := right.Fields, wrong.Fields
					// What only the heap profile uses is checked when it is read.
					got.Bucket = want.Bucket
					assert.Equal(t, want, got, "a wrong table was accepted")
				} else {
					assert.True(t, strings.Contains(err.Error(), ErrSelfCheck.Error()) || strings.Contains(err.Error(), ErrUnknownLayout.Error()), "%v", err)
					assert.NotEqual(t, right.Minor, wrong.Minor, "the right table was refused: %v", err)
				}
			})
		}
	}
}

// TestNotOptimised: the tables do not know the machine code of a runtime that was
// built without optimisation. With symbols that does not matter; without, the
// target is refused.
func TestNotOptimised(t *testing.T) {
	if os.Getenv("MEMGUARD_TOOLCHAINS") == "" {
		t.Skip("MEMGUARD_TOOLCHAINS=1 builds a runtime without optimisation")
	}
	p := start(t, compile(t, build{release: current, flags: "-gcflags=all=-N,-l"}), "-goroutines=1000")
	s, err := open(t, p.pid()).Snapshot(t.Context(), Goroutines)
	require.NoError(t, err)
	checkClusters(t, s, 1000)
	p = start(t, compile(t, build{release: current, flags: "-gcflags=all=-N,-l -ldflags=-s,-w"}))
	_, err = Open(p.pid())
	assert.ErrorIs(t, err, ErrUnknownLayout)
}

func TestNotGo(t *testing.T) {
	t.Parallel()
	sleep, err := exec.LookPath("sleep")
	require.NoError(t, err)
	c := exec.Command(sleep, "60")
	require.NoError(t, c.Start())
	_, err = Open(c.Process.Pid)
	assert.ErrorIs(t, err, ErrNotGo)
	require.NoError(t, c.Process.Kill())
	c.Wait()
	_, err = Open(c.Process.Pid)
	assert.ErrorIs(t, err, ErrGone)
	_, err = Open(0)
	assert.Error(t, err)
}

// TestEnds reads a target until after its death.
func TestEnds(t *testing.T) {
	p := start(t, compile(t, build{release: current}))
	target := open(t, p.pid())
	_, err := target.Snapshot(t.Context(), Spans|Goroutines)
	require.NoError(t, err)
	require.NoError(t, p.cmd.Process.Kill())
	p.cmd.Wait()
	_, err = target.Snapshot(t.Context(), Spans|Goroutines)
	assert.ErrorIs(t, err, ErrGone)
}
