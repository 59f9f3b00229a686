// SPDX-License-Identifier: Apache-2.0

// Package adapters joins memguard to other people's libraries: circuit breakers to
// the pacer, and gRPC servers to the limiter. It is a module of its own, so that
// nobody who does not use these libraries has to fetch them. Each adapter is a few
// lines, tested against the library; copy the one you need.
package adapters
