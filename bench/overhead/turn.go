// SPDX-License-Identifier: Apache-2.0

package overhead

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

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
	if s.sandbox, err = sandbox.New("overhead-"+r.Way, limit); err != nil {
		return s, err
	}
	if s.dir, err = os.MkdirTemp("", "overhead-"); err != nil {
		return s, err
	}
	if s.service, err = spawn(ctx, r, s.dir, s.sandbox.Start); err != nil {
		return s, err
	}
	var addr string
	if err = s.service.ask(order{Do: address}, &addr); err != nil {
		return s, err
	}
	s.load, err = spawn(ctx, role{Load: addr, Way: r.Way}, s.dir, (*exec.Cmd).Start)
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

// figures are what was measured in one turn of one way.
type figures struct {
	Requests tally   `json:"requests"`
	CPU      float64 `json:"cpu_seconds"`      // of the service under load
	Wall     float64 `json:"wall_seconds"`     // that the load lasted
	RestCPU  float64 `json:"rest_cpu_seconds"` // for each second without load
	Cycles   uint64  `json:"gc_cycles"`        // under load
	Memory   memory  `json:"memory"`           // at the end, when all that was idle is given back
}

// perRequest is the CPU time for each answered request, in seconds.
func (f *figures) perRequest() float64 { return f.CPU / float64(f.Requests.Answered) }

// turn runs the service one way.
func turn(ctx context.Context, w *way, t plan, seed uint64) (f figures, err error) {
	s, err := open(ctx, role{Way: w.name})
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.load.ask(order{Do: send, For: t.warm, Rate: t.rate, Seed: ^seed}, &f.Requests); err != nil {
		return f, err
	}
	var before, after usage
	if err := s.service.ask(order{Do: look}, &before); err != nil {
		return f, err
	}
	start := time.Now()
	if err := s.load.ask(order{Do: send, For: t.load, Rate: t.rate, Seed: seed}, &f.Requests); err != nil {
		return f, err
	}
	f.Wall = time.Since(start).Seconds()
	if err := s.service.ask(order{Do: look}, &after); err != nil {
		return f, err
	}
	f.CPU, f.Cycles = after.CPU-before.CPU, after.Cycles-before.Cycles
	if f.Requests.Answered == 0 {
		return f, fmt.Errorf("not one request was answered: %s", f.Requests.Error)
	}

	if err := s.service.ask(order{Do: quiet}, &before); err != nil {
		return f, err
	}
	start = time.Now()
	select {
	case <-time.After(t.rest):
	case <-ctx.Done():
		return f, ctx.Err()
	}
	if f.Memory, err = readMemory(s.service.cmd.Process.Pid); err != nil {
		return f, err
	}
	if err := s.service.ask(order{Do: look}, &after); err != nil {
		return f, err
	}
	f.RestCPU = (after.CPU - before.CPU) / time.Since(start).Seconds()
	return f, nil
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
