// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// file is a file of the image.
type file struct {
	name string
	from string // a file of the host, or
	text string
}

// writeImage writes a cpio archive of the "newc" format, which the kernel
// unpacks as its first root (Documentation/driver-api/early-userspace/buffer-format.rst).
func writeImage(path string, files []file) (err error) {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		if e := out.Close(); err == nil {
			err = e
		}
	}()
	for _, dir := range []string{"proc", "sys", "dev", "tmp"} {
		if err := writeEntry(out, dir, 0o40755, 0, nil); err != nil {
			return err
		}
	}
	for _, f := range files {
		if f.from == "" {
			if err := writeEntry(out, f.name, 0o100755, int64(len(f.text)), strings.NewReader(f.text)); err != nil {
				return err
			}
			continue
		}
		if err := copyFile(out, f); err != nil {
			return err
		}
	}
	return writeEntry(out, "TRAILER!!!", 0, 0, nil)
}

func copyFile(out io.Writer, f file) error {
	in, err := os.Open(f.from)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	return writeEntry(out, f.name, 0o100755, st.Size(), in)
}

func writeEntry(w io.Writer, name string, mode, size int64, body io.Reader) error {
	header := "070701"
	for _, n := range []int64{0, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, int64(len(name)) + 1, 0} {
		header += fmt.Sprintf("%08x", n)
	}
	header += name + "\x00"
	if _, err := io.WriteString(w, header+strings.Repeat("\x00", pad(len(header)))); err != nil {
		return err
	}
	if body != nil {
		if n, err := io.Copy(w, body); err != nil || n != size {
			return fmt.Errorf("%s: %d of %d bytes: %w", name, n, size, err)
		}
	}
	_, err := io.WriteString(w, strings.Repeat("\x00", pad(int(size))))
	return err
}

// pad is what is missing to a multiple of four.
func pad(n int) int { return (4 - n%4) % 4 }
