// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Index is what a directory of results says of itself. Its runs are in files of
// their own.
type Index struct {
	Format    int           `json:"format"`
	Start     time.Time     `json:"start"`
	Go        string        `json:"go"`
	OS        string        `json:"os"` // GOOS/GOARCH
	Kernel    string        `json:"kernel"`
	CPUs      int           `json:"cpus"`
	Cut       string        `json:"cut,omitempty"` // why the series ended before its end
	Scenarios []ScenarioDoc `json:"scenarios"`
	Guards    []GuardDoc    `json:"guards"`
	Runs      []string      `json:"runs"` // names of the files, in the order of the runs
}

const (
	indexFormat = 1
	indexName   = "index.json"
	benchName   = "bench.txt"
)

// ScenarioDoc is what a report says about a scenario.
type ScenarioDoc struct {
	Name       string   `json:"name"`
	Story      string   `json:"story"`
	Claim      string   `json:"claim,omitempty"`
	Limit      uint64   `json:"limit_bytes"`
	Seconds    float64  `json:"seconds"`
	Survivable bool     `json:"survivable"`
	Best       string   `json:"best"`
	Cause      []string `json:"cause,omitempty"`
	Load       bool     `json:"load"` // driven from outside: work is answers
	Smoke      bool     `json:"smoke,omitempty"`
	Long       bool     `json:"long,omitempty"`
}

// GuardDoc is what a report says about a contender.
type GuardDoc struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Setup   string `json:"setup"`
}

func scenarioDoc(s *Scenario) ScenarioDoc {
	return ScenarioDoc{s.Name, s.Story, s.Claim, s.Limit, s.Duration.Seconds(), s.Survivable, s.Best, s.Cause, s.Load != nil, s.Smoke, s.Long}
}

func guardDoc(c *Contender) GuardDoc { return GuardDoc{c.Name, c.Version, c.Setup} }

// Results is a series of runs with what describes it.
type Results struct {
	Index
	Results []*Result
}

func newResults(s *series) *Results {
	i := Index{
		Format: indexFormat, Start: time.Now(), Go: runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH,
		Kernel: kernel(), CPUs: runtime.NumCPU(),
		Scenarios: []ScenarioDoc{}, Guards: []GuardDoc{}, Runs: []string{},
	}
	for _, sc := range s.scenarios {
		i.Scenarios = append(i.Scenarios, scenarioDoc(sc))
	}
	for _, c := range s.guards {
		i.Guards = append(i.Guards, guardDoc(c))
	}
	return &Results{Index: i}
}

// kernel is the release of the running kernel; empty if it does not say.
func kernel() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (r *Results) add(one *Result) {
	r.Results = append(r.Results, one)
	r.Runs = append(r.Runs, fmt.Sprintf("%s.%s.%d.json", one.Scenario, one.Guard, one.Repeat))
}

// A writer keeps a directory in step with a series: after each run it could be
// read.
func (r *Results) writeLast(dir string) error {
	if n := len(r.Results); n > 0 {
		if err := writeJSON(filepath.Join(dir, r.Runs[n-1]), r.Results[n-1]); err != nil {
			return err
		}
	}
	var b bytes.Buffer
	if err := r.writeBench(&b); err != nil {
		return err
	}
	if err := replace(filepath.Join(dir, benchName), b.Bytes()); err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, indexName), r.Index)
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return replace(path, append(b, '\n'))
}

// replace writes a file as a whole or not at all.
func replace(path string, b []byte) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// makeDir makes the directory for results. It must not have any yet: files of
// two series in one directory would be read as one.
func makeDir(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, indexName)); err == nil {
		return fmt.Errorf("%s has results already: name another directory", dir)
	}
	return os.MkdirAll(dir, 0o755)
}

// ReadResults reads a directory that "run --json" has written.
func ReadResults(dir string) (*Results, error) {
	r := &Results{}
	path := filepath.Join(dir, indexName)
	err := readJSON(path, &r.Index)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("lab: %s holds no results: there is no %s, which 'oomlab run --json %[1]s' writes", dir, indexName)
	}
	if err != nil {
		return nil, fmt.Errorf("lab: read results: %w", err)
	}
	if r.Format != indexFormat {
		return nil, fmt.Errorf("lab: %s has format %d: this program reads %d", path, r.Format, indexFormat)
	}
	for _, name := range r.Runs {
		if name != filepath.Base(name) {
			return nil, fmt.Errorf("lab: %s names %q, which is not a file beside it", path, name)
		}
		one := &Result{}
		if err := readJSON(filepath.Join(dir, name), one); err != nil {
			return nil, fmt.Errorf("lab: read results: %w", err)
		}
		if err := one.check(); err != nil {
			return nil, fmt.Errorf("lab: read results: %s: %w", filepath.Join(dir, name), err)
		}
		r.Results = append(r.Results, one)
	}
	return r, nil
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// check says what no run has, so that what follows can rely on it.
func (r *Result) check() error {
	switch {
	case r.Scenario == "" || r.Guard == "":
		return errors.New("no scenario or no guard")
	case r.Outcome != Alive && r.Outcome != Killed && r.Outcome != Died && r.Outcome != Failed:
		return fmt.Errorf("outcome %q", r.Outcome)
	case !(r.Planned > 0):
		return fmt.Errorf("planned_seconds is %v", r.Planned)
	case r.Limit == 0:
		return errors.New("limit_bytes is 0")
	case !(r.Goodput >= 0):
		return fmt.Errorf("goodput_per_second is %v", r.Goodput)
	}
	return nil
}
