// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// settings changes settings of the kernel and puts them back.
type settings struct {
	root string // "/", or in tests a directory
	old  []Setting
}

// value returns a setting. Of a choice such as "always [madvise] never" it is
// what stands in brackets (Documentation/admin-guide/mm/transhuge.rst).
func (s *settings) value(file string) (string, error) {
	b, err := os.ReadFile(filepath.Join(s.root, file))
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(b))
	if _, choice, ok := strings.Cut(text, "["); ok {
		text, _, _ = strings.Cut(choice, "]")
	}
	return text, nil
}

// set writes a setting, unless it is as wanted already, and checks that the
// kernel took it.
func (s *settings) set(to Setting) error {
	old, err := s.value(to.File)
	if err != nil || old == to.Value {
		return err
	}
	s.old = append(s.old, Setting{to.File, old}) // first: a write that fails may have had its effect
	if err := s.write(to); err != nil {
		return err
	}
	if now, err := s.value(to.File); err != nil {
		return err
	} else if now != to.Value {
		return fmt.Errorf("%s is %q after %q was written", to.File, now, to.Value)
	}
	return nil
}

// restore puts everything back, the last change first. It tries all of them
// whatever happens, and the error names each that it could not put back.
func (s *settings) restore() error {
	var errs []error
	for _, old := range slices.Backward(s.old) {
		now, err := s.value(old.File)
		if err == nil && now != old.Value {
			err = s.write(old)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("kernel setting %s not put back to %q: %w", old.File, old.Value, err))
		}
	}
	s.old = nil
	return errors.Join(errs...)
}

func (s *settings) write(to Setting) error {
	f, err := os.OpenFile(filepath.Join(s.root, to.File), os.O_WRONLY|os.O_TRUNC, 0) // never create one
	if err != nil {
		return err
	}
	_, err = f.WriteString(to.Value)
	return errors.Join(err, f.Close())
}
