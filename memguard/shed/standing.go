// SPDX-License-Identifier: Apache-2.0

package shed

import "slices"

// standing is what several want of one setting, each until it is taken back, in
// whatever order. The latest counts. Of those that nobody takes back only the last
// standingMost are remembered.
type standing[T any] []*T

const standingMost = 64

func (s *standing[T]) add(want T) (mine *T) {
	if len(*s) == standingMost {
		*s = slices.Delete(*s, 0, 1)
	}
	*s = append(*s, &want)
	return &want
}

// remove reports whether mine stood.
func (s *standing[T]) remove(mine *T) bool {
	at := slices.Index(*s, mine)
	if at < 0 {
		return false
	}
	*s = slices.Delete(*s, at, at+1)
	return true
}

// latest is what counts, or the zero value if nothing stands.
func (s standing[T]) latest() (want T) {
	if n := len(s); n > 0 {
		want = *s[n-1]
	}
	return want
}
