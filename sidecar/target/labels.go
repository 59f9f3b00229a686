// SPDX-License-Identifier: Apache-2.0

package target

import (
	"fmt"
	"strconv"
	"strings"
)

// maxLabels bounds a label file. Kubernetes bounds a label to 317 bytes and all
// annotations of a pod to 256 KiB (apimachinery, TotalAnnotationSizeLimitB).
const maxLabels = 256 << 10

// parseLabels reads lines key="value" as Kubernetes' downward API writes them, the
// value with Go's escapes (kubernetes/pkg/fieldpath, FormatMap). A value without
// quotes is taken as it is. The error names the first bad line; the others count.
func parseLabels(text string) (map[string]string, error) {
	labels := map[string]string{}
	var first error
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, found := strings.Cut(line, "=")
		if found && strings.HasPrefix(value, `"`) {
			var err error
			value, err = strconv.Unquote(value)
			found = err == nil
		}
		if key = strings.TrimSpace(key); !found || key == "" {
			if first == nil {
				first = fmt.Errorf("line %d is not key=\"value\"", n)
			}
			continue
		}
		labels[key] = value
	}
	return labels, first
}
