// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/memguard/memguard-go/scavenge/cgroup"
	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The test binary runs itself again as a service with ten thousand goroutines that
// captures at 95 % of its limit: what the planner allows, or everything.
const captureEnv = "MEMGUARD_TEST_CAPTURE"

func init() {
	how := os.Getenv(captureEnv)
	if how == "" {
		return
	}
	var there sync.WaitGroup
	for range 10000 {
		there.Add(1)
		go deep(25, there.Done, nil)
	}
	there.Wait()
	fmt.Println("ready")
	var dir string
	var limit, usage uint64
	if _, err := fmt.Scan(&dir, &limit, &usage); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	p := &Profiles{Store: &Store{Dir: dir}}
	plan := new(Planner).Step(&Pressure{
		Time: time.Now(), Limit: limit, Usage: usage, Held: limit, Cost: p.Cost(uint64(runtime.NumGoroutine())),
	})
	if how == "all" {
		plan.Heap, plan.Goroutines = true, true
	}
	_, err := p.Capture(plan)
	fmt.Printf("heap=%t goroutines=%t %v\n", plan.Heap, plan.Goroutines, err)
	os.Exit(0)
}

// A goroutine profile that does not fit is what kills; the planner does without.
func TestCaptureStopsWhereItWouldKill(t *testing.T) {
	t.Parallel()
	if raced {
		t.Skip("the race detector's shadow memory is several times what is measured here")
	}
	for _, test := range []struct {
		name string
		how  string
		room uint64
		says string // "" is killed
	}{
		{"no room, all the same", "all", 8 << 20, ""},
		{"no room", "planned", 8 << 20, "heap=true goroutines=false <nil>"},
		{"room", "planned", 96 << 20, "heap=true goroutines=true <nil>"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			group, err := sandbox.New("capture", 1<<30)
			if errors.Is(err, sandbox.ErrUnsupported) {
				t.Skip(err)
			}
			require.NoError(t, err)
			defer group.Close()
			exe, err := os.Executable()
			require.NoError(t, err)
			cmd := exec.Command(exe)
			// Garbage stays: the most that a capture can cost.
			cmd.Env = append(os.Environ(), captureEnv+"="+test.how, "GOGC=off")
			in, err := cmd.StdinPipe()
			require.NoError(t, err)
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, group.Start(cmd))
			lines := bufio.NewScanner(out)
			require.True(t, lines.Scan())
			require.Equal(t, "ready", lines.Text())

			g, err := cgroup.OpenDir(group.Dir())
			require.NoError(t, err)
			defer g.Close()
			usage, err := g.Usage()
			require.NoError(t, err)
			require.NoError(t, group.SetLimit(usage+test.room))
			fmt.Fprintln(in, t.TempDir(), usage+test.room, usage)
			said := ""
			for lines.Scan() {
				said = lines.Text()
			}
			err = cmd.Wait()
			kills, kerr := group.Kills()
			require.NoError(t, kerr)
			assert.Equal(t, test.says, said)
			if test.says == "" {
				assert.Error(t, err)
				assert.EqualValues(t, 1, kills)
				return
			}
			assert.NoError(t, err)
			assert.Zero(t, kills)
		})
	}
}

// BenchmarkCapture takes both profiles of ten thousand goroutines 25 frames deep.
func BenchmarkCapture(b *testing.B) {
	until := make(chan struct{})
	defer close(until)
	var there sync.WaitGroup
	for range 10000 {
		there.Add(1)
		go deep(25, there.Done, until)
	}
	there.Wait()
	p := &Profiles{Store: &Store{Dir: b.TempDir()}}
	var sum uint64
	n := 0
	for b.Loop() {
		c, err := p.Capture(Plan{Why: "bench", Series: time.Now(), Number: 1, Heap: true, Goroutines: true})
		require.NoError(b, err)
		sum += c.Allocated
		n++
	}
	b.ReportMetric(float64(sum)/float64(n)/10000, "bytes/goroutine")
}
