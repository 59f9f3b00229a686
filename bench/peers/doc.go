// SPDX-License-Identifier: Apache-2.0

// Package peers runs other people's guards and leak detectors on the scenarios
// of this project. It is a module of its own, so that what it depends on reaches
// nobody else. Each subject runs in a process of its own.
package peers
