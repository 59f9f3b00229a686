// SPDX-License-Identifier: Apache-2.0

package overhead

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/memguard/memguard-go/memguard/evidence"
	"github.com/memguard/memguard-go/scavenge/cgroup/sandbox"
)

// stage is a service in its cgroup, and the load for it.
type stage struct {
	sandbox       *sandbox.Sandbox
	dir           string
	service, load *part
}

// open starts both processes. The error wraps sandbox.ErrUnsupported where no
// memory cgroup may be made. If there is one, nothing is left behind.
func open(ctx context.Context, r role) (s *stage, err error) {
	s = new(stage)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.sandbox, err = sandbox.New("overhead", limit); err != nil {
		return s, err
	}
	if s.dir, err = os.MkdirTemp("", "overhead-"); err != nil {
		return s, err
	}
	if s.service, err = spawn(ctx, r, s.dir, s.sandbox.Start); err != nil {
		return s, err
	}
	s.load, err = spawn(ctx, role{Load: true}, s.dir, (*exec.Cmd).Start)
	return s, err
}

// close ends both, and says how they ended if that was not well.
func (s *stage) close() error {
	var errs []error
	for _, p := range []*part{s.load, s.service} {
		if p != nil {
			errs = append(errs, p.end())
		}
	}
	if s.sandbox != nil {
		if kills, err := s.sandbox.Kills(); err == nil && kills > 0 {
			errs = append(errs, fmt.Errorf("the kernel killed %d processes for lack of memory", kills))
		}
		errs = append(errs, s.sandbox.Close())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

// begin has the service run one way, under load for a while.
func (s *stage) begin(w *way, d time.Duration, rate float64, seed uint64) (to addresses, err error) {
	if err := s.service.ask(order{Do: be, Way: w.name}, &to); err != nil {
		return to, err
	}
	var warmed tally
	return to, s.load.ask(order{Do: send, To: to, For: d, Rate: rate, Seed: seed}, &warmed)
}

// compared runs the last way, which has all, and compares its requests.
func compared(ctx context.Context, t plan, seed uint64) (b bout, err error) {
	s, err := open(ctx, role{})
	if err != nil {
		return b, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	to, err := s.begin(&ways[len(ways)-1], t.warm+t.settle, t.rate, seed)
	if err != nil {
		return b, err
	}
	return b, s.load.ask(order{Do: pair, To: to, PID: s.service.cmd.Process.Pid, Window: t.window, For: t.load, Seed: seed}, &b)
}

// idle is what a service without load takes.
type idle struct {
	Start  float64 `json:"start_cpu_seconds"` // in each second, while the guard is new
	CPU    float64 `json:"cpu_seconds"`       // in each second after that
	Memory memory  `json:"memory"`            // at the end, when all that was idle is given back
	Box    uint64  `json:"box_bytes"`         // size of the black box; 0 is that there is none
}

// rest runs the service all ways, each in a process of its own, and when they have
// had some load leaves them alone, all in the same while. The load is sparse: how
// many requests happened to be under way at once decides how torn the heap is, and
// that by more than a guard holds.
func rest(ctx context.Context, t plan, seed uint64) (all []idle, err error) {
	var stages []*stage
	defer func() {
		for _, s := range stages {
			err = errors.Join(err, s.close())
		}
	}()
	for i := range ways {
		s, err := open(ctx, role{})
		if err != nil {
			return nil, err
		}
		stages = append(stages, s)
		if _, err := s.begin(&ways[i], t.warm, t.rate/10, seed); err != nil {
			return nil, fmt.Errorf("%s: %w", ways[i].name, err)
		}
	}
	for _, s := range stages {
		if err := s.service.ask(order{Do: quiet}, new(usage)); err != nil {
			return nil, err
		}
	}
	settled := time.Now().Add(t.settle)
	start, err := idleCPU(ctx, stages, t.start)
	if err != nil {
		return nil, err
	}
	if err := pass(ctx, time.Until(settled)); err != nil {
		return nil, err
	}
	cpu, err := idleCPU(ctx, stages, t.rest)
	if err != nil {
		return nil, err
	}
	all = make([]idle, len(stages))
	for i, s := range stages {
		all[i].Start, all[i].CPU = start[i], cpu[i]
		if all[i].Memory, err = readMemory(s.service.cmd.Process.Pid); err != nil {
			return nil, err
		}
		if all[i].Box, err = boxIn(filepath.Join(s.dir, evidenceDir)); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// idleCPU is how many seconds of CPU each service takes in a second, over a while.
func idleCPU(ctx context.Context, stages []*stage, d time.Duration) (cpu []float64, err error) {
	start, before := make([]time.Time, len(stages)), make([]usage, len(stages))
	for i, s := range stages {
		if err := s.service.ask(order{Do: look}, &before[i]); err != nil {
			return nil, err
		}
		start[i] = time.Now()
	}
	if err := pass(ctx, d); err != nil {
		return nil, err
	}
	for i, s := range stages {
		var after usage
		if err := s.service.ask(order{Do: look}, &after); err != nil {
			return nil, err
		}
		cpu = append(cpu, (after.CPU-before[i].CPU)/time.Since(start[i]).Seconds())
	}
	return cpu, nil
}

// pass lets time pass.
func pass(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// boxIn is the size of the black box in a directory, 0 if there is none.
func boxIn(dir string) (uint64, error) {
	boxes, err := evidence.Boxes(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(boxes) == 0 {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	st, err := os.Stat(boxes[len(boxes)-1])
	if err != nil {
		return 0, err
	}
	return uint64(st.Size()), nil
}

// memory is what a process has resident, in bytes.
type memory struct {
	RSS  uint64 `json:"rss_bytes"`
	Anon uint64 `json:"anon_bytes"`
	File uint64 `json:"file_bytes"` // the program, and the black box
}

// readMemory reads /proc/PID/status (proc_pid_status(5)).
func readMemory(pid int) (memory, error) {
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return memory{}, err
	}
	defer f.Close()
	m, err := parseMemory(f)
	if err != nil {
		return memory{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return m, nil
}

func parseMemory(r io.Reader) (m memory, err error) {
	want := map[string]*uint64{"VmRSS": &m.RSS, "RssAnon": &m.Anon, "RssFile": &m.File}
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		name, value, _ := strings.Cut(sc.Text(), ":")
		to := want[name]
		if to == nil {
			continue
		}
		kib, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(value, " kB")), 10, 54)
		if err != nil {
			return memory{}, fmt.Errorf("%s: %w", name, err)
		}
		*to = kib << 10
		delete(want, name)
	}
	switch {
	case sc.Err() != nil:
		return memory{}, sc.Err()
	case len(want) > 0: // a process that has ended has none
		return memory{}, fmt.Errorf("there is no %s", strings.Join(slices.Sorted(maps.Keys(want)), ", "))
	}
	return m, nil
}
