// SPDX-License-Identifier: Apache-2.0

// Package plain makes text that others have chosen safe to show.
package plain

import "strings"

// Line returns s with a question mark in the place of every character that does more
// than stand there: controls of C0 and C1 (terminals act on both), line and paragraph
// separators, marks and overrides of direction (U+202A to U+202E, U+2066 to U+2069),
// and what is not UTF-8. So it is one line of a log, a terminal or a page.
func Line(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || 0x7f <= r && r < 0xa0 || r == 0xfffd || 0x2028 <= r && r <= 0x202e || 0x2066 <= r && r <= 0x2069 {
			return '?'
		}
		return r
	}, s)
}
