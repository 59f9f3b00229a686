// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// input opens the file that the arguments name, or standard input.
func input(c *cobra.Command, args []string) (in io.ReadCloser, name string, err error) {
	if len(args) == 0 || args[0] == "-" {
		if isTerminal(c.InOrStdin()) {
			fmt.Fprintln(c.ErrOrStderr(), "reading standard input; Ctrl-D ends it")
		}
		return io.NopCloser(c.InOrStdin()), "standard input", nil
	}
	type opened struct {
		f   *os.File
		err error
	}
	done := make(chan opened, 1)
	go func() { // opening a FIFO waits for its writer
		f, err := os.Open(args[0])
		done <- opened{f, err}
	}()
	select {
	case o := <-done:
		if o.err != nil {
			return nil, "", o.err
		}
		return o.f, args[0], nil
	case <-c.Context().Done():
		return nil, "", fmt.Errorf("interrupted while opening %s", args[0])
	}
}

// grace is how long input may still come after an interrupt. The interrupt of a
// terminal reaches the program at the other end of a pipe too, and what that
// still has to say belongs to the story.
const grace = 500 * time.Millisecond

// untilDone reads from r until ctx ends, and then, after the grace, says that r
// has ended.
func untilDone(ctx context.Context, r io.Reader) io.Reader {
	pr, pw := io.Pipe()
	go func() {
		_, err := io.Copy(pw, r)
		pw.CloseWithError(err) // nil is io.EOF
	}()
	context.AfterFunc(ctx, func() { time.AfterFunc(grace, func() { pw.Close() }) })
	return bufio.NewReaderSize(pr, 64<<10)
}
