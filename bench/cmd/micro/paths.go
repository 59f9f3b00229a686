// SPDX-License-Identifier: Apache-2.0

package main

const module = "github.com/memguard/memguard-go/"

// figure is one metric that a benchmark reports.
type figure struct{ bench, metric string }

// path is a hot path and somebody else's way to do the same.
type path struct {
	Name string
	Peer string

	pkg   string // below the module
	bench string

	// Metrics of bench. Those of the two sides are empty where it reports the
	// ratio alone. ratio is theirs to ours in cost; with oursFirst ours to theirs.
	ours, theirs, ratio string
	oursFirst           bool

	allocs figure // of ours per operation; zero if no benchmark counts them
}

// paths is the whole table.
var paths = []path{
	{
		Name: "sample the memory of this process", Peer: "runtime.ReadMemStats",
		pkg: "memguard", bench: "BenchmarkTickAgainst",
		ours: "tick-ns", theirs: "ReadMemStats-ns", ratio: "ReadMemStats/tick",
		allocs: figure{"BenchmarkTick", "allocs/op"},
	},
	{
		Name: "sample the memory of this process", Peer: "client_golang's Go collector",
		pkg: "memguard", bench: "BenchmarkTickAgainst",
		ours: "tick-ns", theirs: "GoCollector-ns", ratio: "GoCollector/tick",
		allocs: figure{"BenchmarkTick", "allocs/op"},
	},
	{
		Name: "sample the memory of this process", Peer: "the same with all runtime metrics",
		pkg: "memguard", bench: "BenchmarkTickAgainst",
		ours: "tick-ns", theirs: "GoCollector-all-ns", ratio: "GoCollector-all/tick",
		allocs: figure{"BenchmarkTick", "allocs/op"},
	},
	{
		Name: "usage of the memory cgroup", Peer: "a bare pread",
		pkg: "scavenge/cgroup", bench: "BenchmarkUsage",
		ours: "ns/usage", theirs: "ns/pread", ratio: "usage/pread", oursFirst: true,
		allocs: figure{"BenchmarkUsage", "allocs/usage"},
	},
	{
		Name: "all of the memory cgroup", Peer: "opening and reading the same files",
		pkg: "scavenge/cgroup", bench: "BenchmarkRead",
		ours: "ns/read", ratio: "read/reopen", oursFirst: true,
		allocs: figure{"BenchmarkRead", "allocs/read"},
	},
	{
		Name: "smaps: every mapping and its owner", Peer: "procfs: ten sums",
		pkg: "scavenge/smaps", bench: "BenchmarkProcfs/smaps",
		ours: "this-ns", theirs: "procfs-ns", ratio: "procfs/this",
	},
	{
		Name: "smaps_rollup", Peer: "procfs",
		pkg: "scavenge/smaps", bench: "BenchmarkProcfs/smaps_rollup",
		ours: "this-ns", theirs: "procfs-ns", ratio: "procfs/this",
	},
	{
		Name: "a record into the black box", Peer: "pwrite of the same", // at most 1 us is promised
		pkg: "memguard/evidence", bench: "BenchmarkBox",
		ours: "ns/record", theirs: "ns/pwrite", ratio: "pwrite/record",
		allocs: figure{"BenchmarkBox", "allocs/record"},
	},
	{
		Name: "gctrace lines", Peer: "a regular expression",
		pkg: "pacer/gctrace", bench: "BenchmarkRegexp",
		ours: "reader-MB/s", theirs: "regexp-MB/s", ratio: "x-faster",
		allocs: figure{"BenchmarkCycles", "allocs/op"}, // of a MiB
	},
	{
		Name: "execution trace, 4 MiB", Peer: "x/exp/trace's loop, which looks at nothing",
		pkg: "pacer/exectrace", bench: "BenchmarkRead/4MiB",
		ratio: "x-loop-cpu", oursFirst: true, // there are few turns in a second, and the clock has what others do in it
	},
}
