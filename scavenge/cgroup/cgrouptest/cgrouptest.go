// SPDX-License-Identifier: Apache-2.0

// Package cgrouptest decides what a test does where it may not make a memory
// cgroup: it skips and says why, unless skipping would be silence.
package cgrouptest

import (
	"os"
	"testing"
)

// Skip skips the test because of err. With MEMGUARD_REQUIRE_CGROUP set, as CI
// does on machines where it can be done, the test fails instead.
func Skip(t testing.TB, err error) {
	t.Helper()
	if os.Getenv("MEMGUARD_REQUIRE_CGROUP") != "" {
		t.Fatalf("MEMGUARD_REQUIRE_CGROUP is set: %v", err)
	}
	t.Skip(err)
}
