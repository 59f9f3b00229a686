// SPDX-License-Identifier: Apache-2.0

package memguard

import (
	"encoding/json"
	"math"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestZeroValueIsUnknown(t *testing.T) {
	t.Parallel()
	_, ok := Bytes{}.Get()
	assert.False(t, ok)
	assert.NotEqual(t, Bytes{}, Known[uint64](0), "an unknown figure must not compare equal to a measured zero")

	// Every figure of a Sample that nobody filled is null in JSON, never 0.
	var s Sample
	for _, block := range []any{s.Runtime, s.Process, s.Cgroup} {
		text, err := json.Marshal(block)
		require.NoError(t, err)
		var fields map[string]any
		require.NoError(t, json.Unmarshal(text, &fields))
		for name, v := range fields {
			if n, isNumber := v.(float64); isNumber {
				assert.Equal(t, "Version", name, "reads as %v", n) // 0 is "no cgroup"
			}
		}
	}
}

func TestValueJSON(t *testing.T) {
	t.Parallel()
	type all struct {
		Count  Count
		Signed Value[int64]
		Share  Value[float64]
	}
	for want, v := range map[string]all{
		`{"Count":null,"Signed":null,"Share":null}`:                                 {},
		`{"Count":0,"Signed":0,"Share":0}`:                                          {Known[uint64](0), Known[int64](0), Known(0.0)},
		`{"Count":18446744073709551615,"Signed":-9223372036854775808,"Share":0.25}`: {Known[uint64](math.MaxUint64), Known[int64](math.MinInt64), Known(0.25)},
	} {
		text, err := json.Marshal(v)
		require.NoError(t, err)
		assert.Equal(t, want, string(text))
		back := all{Known[uint64](7), Known[int64](7), Known(7.0)} // null must also clear what was there
		require.NoError(t, json.Unmarshal(text, &back))
		assert.Equal(t, v, back)
	}
}

func TestValueJSONRejects(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{`"12"`, `-1`, `1.5`, `18446744073709551616`, `{}`, `[]`, `true`} {
		v := Known[uint64](7)
		err := json.Unmarshal([]byte(bad), &v)
		require.Error(t, err, bad)
		assert.Equal(t, Bytes{}, v, "%s: what could not be read must be unknown", bad)
	}
}

func TestPlusMinus(t *testing.T) {
	t.Parallel()
	const huge = math.MaxUint64
	known := Known[uint64]
	for _, c := range []struct {
		name  string
		terms []Bytes
		want  Bytes
	}{
		{"nothing", nil, known(0)},
		{"all known", []Bytes{known(1), known(0), known(41)}, known(42)},
		{"first unknown", []Bytes{{}, known(1)}, Bytes{}},
		{"last unknown", []Bytes{known(1), {}}, Bytes{}},
		{"just fits", []Bytes{known(huge - 1), known(1)}, known(huge)},
		{"does not fit", []Bytes{known(huge), known(1)}, Bytes{}},
	} {
		assert.Equal(t, c.want, plus(c.terms...), c.name)
	}
	for _, c := range []struct {
		name string
		a, b Bytes
		want Value[int64]
	}{
		{"positive", known(5), known(3), Known[int64](2)},
		{"negative", known(3), known(5), Known[int64](-2)},
		{"zero is known", known(3), known(3), Known[int64](0)},
		{"minuend unknown", Bytes{}, known(3), Value[int64]{}},
		{"subtrahend unknown", known(3), Bytes{}, Value[int64]{}},
		{"largest", known(math.MaxInt64), known(0), Known[int64](math.MaxInt64)},
		{"beyond what is signed", known(huge), known(huge - 1), Value[int64]{}},
	} {
		assert.Equal(t, c.want, minus(c.a, c.b), c.name)
	}
}

func TestUnlimitedIsNoFigure(t *testing.T) {
	t.Parallel()
	_, isBounded := bounded(Known[uint64](Unlimited))
	assert.False(t, isBounded)
	_, isBounded = bounded(Bytes{})
	assert.False(t, isBounded)
	n, isBounded := bounded(Known[uint64](0))
	assert.True(t, isBounded, "a limit of 0 is a limit")
	assert.Zero(t, n)
}

func TestParseBytes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]uint64{"0": 0, "17": 17, "17B": 17, "3KiB": 3 << 10, "512MiB": 512 << 20, "2GiB": 2 << 30, "1TiB": 1 << 40, "8388607TiB": 8388607 << 40} {
		n, err := ParseBytes(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, n, text)
	}
	for _, text := range []string{"", "B", "KiB", "512MB", "512M", "1.5GiB", "-1", " 1", "1 MiB", "8388608TiB", "9223372036854775808", "1PiB", "1Ki"} {
		_, err := ParseBytes(text)
		assert.EqualError(t, err, "memguard: size "+strconv.Quote(text)+": want bytes, such as 512MiB")
	}
}

// What is accepted is a number of bytes, and the same size in its own words.
func FuzzParseBytes(f *testing.F) {
	for _, seed := range []string{"512MiB", "1TiB", "B", "-0", "+7KiB", "9223372036854775807", "00B"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ParseBytes(text)
		if err != nil {
			return
		}
		if n > math.MaxInt64 {
			t.Fatalf("%q became %d", text, n)
		}
		if again, err := ParseBytes(strconv.FormatUint(n, 10) + "B"); err != nil || again != n {
			t.Fatalf("%q became %d, and that %d (%v)", text, n, again, err)
		}
	})
}
