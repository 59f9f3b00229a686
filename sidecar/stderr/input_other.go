// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package stderr

import (
	"context"
	"errors"
	"io"
	"os"
)

func openRegular(path string) (*os.File, error) { return os.Open(path) }

func openFIFO(context.Context, string) (io.ReadCloser, error) {
	return nil, errors.New("there are no FIFOs on this system")
}
