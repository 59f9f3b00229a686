// SPDX-License-Identifier: Apache-2.0

package reread

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// YAML decodes the first document of b, all of whose fields must be known. No document
// is no settings. The error names every line that is wrong, in words of the file.
func YAML(b []byte, to any) error {
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	err := d.Decode(to)
	var fields *yaml.TypeError
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return nil
	case errors.As(err, &fields):
		said := make([]string, len(fields.Errors))
		for i, s := range fields.Errors {
			// "line 3: field x not found in type auth.webFile": the type is ours, not theirs.
			said[i], _, _ = strings.Cut(s, " in type ")
		}
		return errors.New(strings.Join(said, "; "))
	}
	return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
}
