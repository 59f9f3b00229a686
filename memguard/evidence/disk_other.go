// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package evidence

func freeDisk(string) (int64, bool) { return 0, false }

func inMemory(string) bool { return false }
