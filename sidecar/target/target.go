// SPDX-License-Identifier: Apache-2.0

// Package target finds the processes that a sidecar is to watch, by rules, and
// tells one life of a process from the next.
package target

import "time"

// Found is a process that a rule matches, and the rule's name.
type Found struct {
	Rule string `json:"rule"`
	Process
}

// Rule says which processes to watch. Every condition that is set must hold; at
// least one must be set. The doc tags are the descriptions in the JSON schema.
type Rule struct {
	Name    string `yaml:"name" json:"name" doc:"of the target: lower-case letters, digits, - and ."`
	PID     int    `yaml:"pid,omitempty" json:"pid,omitempty" doc:"the process with this id"`
	Command string `yaml:"command,omitempty" json:"command,omitempty" doc:"glob for the base name of its first argument"`
	Exe     string `yaml:"exe,omitempty" json:"exe,omitempty" doc:"glob for the path of its executable, as it sees it"`
	Cgroup  string `yaml:"cgroup,omitempty" json:"cgroup,omitempty" doc:"glob for the path of its memory cgroup"`
	Port    int    `yaml:"port,omitempty" json:"port,omitempty" doc:"it listens at this TCP port"`
	Labels  *Label `yaml:"labels,omitempty" json:"labels,omitempty" doc:"a file of labels in its own root"`
	// http://127.0.0.1:6060/debug/pprof: no condition, but where to ask for profiles
	// if its memory cannot be read.
	Pprof string `yaml:"pprof,omitempty" json:"pprof,omitempty" doc:"URL of its net/http/pprof, where its memory cannot be read"`
	// no condition either.
	Stderr string `yaml:"stderr,omitempty" json:"stderr,omitempty" doc:"file or fifo that its standard error is sent to, or unix:PATH of a socket"`
}

// Label is a file in the process's own root with lines key="value", as
// Kubernetes' downward API writes labels.
type Label struct {
	File  string            `yaml:"file" json:"file" doc:"its path, as the process sees it"`
	Match map[string]string `yaml:"match" json:"match" doc:"labels that must all be there"`
}

// Identity tells one process from all others of this boot: a pid comes again,
// with its start time it does not.
type Identity struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start_ticks"` // since boot (proc_pid_stat(5), field 22)
	Build string `json:"build_id"`    // of the executable; empty is unknown
}

// Process is a process that a rule matches.
type Process struct {
	Identity
	Started time.Time `json:"started"`
	UID     int       `json:"uid"`
	Exe     string    `json:"exe"`
	Command string    `json:"command"`    // base name of argv[0]
	Go      string    `json:"go_version"` // release that built it; empty is not a Go program, or not to be told
	Cgroup  string    `json:"cgroup"`
}
