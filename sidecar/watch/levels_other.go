// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package watch

import "errors"

type cgroupDir struct{}

func openCgroup(string) (cgroupDir, error)         { return cgroupDir{}, errors.ErrUnsupported }
func (cgroupDir) read(string, []byte) (int, error) { return 0, errors.ErrUnsupported }
func (cgroupDir) close()                           {}
