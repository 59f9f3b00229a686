// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package evidence

import (
	"io/fs"
	"os"
)

func freeDisk(string) (int64, bool) { return 0, false }

func inMemory(string) bool { return false }

func hold(*os.File) {}

func publish(f *os.File, path string) error {
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path) // Windows renames no open file
}

func abandoned(_ string, st fs.FileInfo) bool { return old(st) }
