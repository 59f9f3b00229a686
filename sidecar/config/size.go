// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"math"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// Size is a number of bytes, written as 16MiB, 1GiB, 64KiB or plainly.
type Size int64

var sizeText = regexp.MustCompile(`^([0-9]{1,18})(|B|KiB|MiB|GiB)$`)

// UnmarshalYAML reads a size.
func (s *Size) UnmarshalYAML(n *yaml.Node) error {
	m := sizeText.FindStringSubmatch(n.Value)
	if n.Kind != yaml.ScalarNode || m == nil {
		return fmt.Errorf("line %d: want a size such as 16MiB", n.Line)
	}
	v, _ := strconv.ParseInt(m[1], 10, 64) // 18 digits fit
	unit := map[string]int64{"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[m[2]]
	if v > math.MaxInt64/unit {
		return fmt.Errorf("line %d: %s is too much", n.Line, n.Value)
	}
	*s = Size(v * unit)
	return nil
}
