// SPDX-License-Identifier: Apache-2.0

// Package conformance holds the sidecar against those who define what it speaks:
// Kubernetes' audit codec and policy evaluator, Prometheus' exporter-toolkit, a
// real Prometheus, and a real browser. It is a module of its own, so that their
// dependencies reach nobody else.
package conformance
