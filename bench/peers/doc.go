// SPDX-License-Identifier: Apache-2.0

// Package peers runs other people's guards and leak detectors on the scenarios
// of this project, each set up as its own documentation says. It is a module of
// its own, so that what it depends on reaches nobody else. Each subject runs in a
// process of its own; the libraries are in the binary of all of them, and so is
// what their init functions allocate.
//
// Left out are guards that are no library (oomhero, oomd, parca-agent's oomprof),
// that live inside a database (TiDB's and CockroachDB's), and a second of a kind
// that is here: cch123/gogctuner beside gctuner, go-zero and kratos aegis beside
// the limiters that go by latency.
package peers
