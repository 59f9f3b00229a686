// SPDX-License-Identifier: Apache-2.0

package plain

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
)

func TestLine(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                           "",
		"Größe 日本 ✗ main.(*T).f":     "Größe 日本 ✗ main.(*T).f",
		"a\tb\r\nc\x00d":             "a?b??c?d",
		"\x1b[2J\u009b31m\x7f":       "?[2J?31m?",
		"x\u2028y\u2029\u202egnp.sh": "x?y??gnp.sh",
		"\u2066\u2069\u202a":         "???",
		"cut \xe2\x82":               "cut ??",
	} {
		assert.Equal(t, want, Line(in), "%q", in)
	}
}

func FuzzLine(f *testing.F) {
	f.Add("ok")
	f.Add("\xff\x1b]0;x\a\u202e")
	f.Fuzz(func(t *testing.T, s string) {
		got := Line(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp) }) {
			t.Errorf("%q became %q", s, got)
		}
		if Line(got) != got {
			t.Errorf("%q changes once more", got)
		}
	})
}
