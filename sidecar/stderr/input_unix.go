// SPDX-License-Identifier: Apache-2.0

//go:build unix

package stderr

import (
	"context"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// openRegular opens a file to read; a FIFO in its place would hang.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return f, nil
}

// openFIFO opens it for writing too, so that it has no end when its writers go, and
// they do not wait for us when they come.
func openFIFO(ctx context.Context, path string) (io.ReadCloser, error) {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	return &fifo{f, stop}, nil
}

type fifo struct {
	*os.File
	stop func() bool
}

func (f *fifo) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	if os.IsTimeout(err) {
		err = io.EOF
	}
	return n, err
}

func (f *fifo) Close() error { f.stop(); return f.File.Close() }
