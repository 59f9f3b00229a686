// SPDX-License-Identifier: Apache-2.0

package control

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDecodeBody(t *testing.T) {
	t.Parallel()
	in, err := decodeBody([]byte(`{"to":50,"reason":"a leak","ttl":"90s","expected":{"pid":7,"start_ticks":18446744073709551615,"value":100}}` + "\n"))
	require.NoError(t, err)
	assert.Equal(t, "50", string(in.to))
	assert.Equal(t, "a leak", in.reason)
	assert.Equal(t, 90*time.Second, in.ttl)
	assert.EqualValues(t, 7, *in.expected.pid)
	assert.EqualValues(t, uint64(1<<64-1), *in.expected.start)
	assert.Equal(t, "100", string(in.expected.value))
	in, err = decodeBody([]byte(`{"reason":"r"}`))
	require.NoError(t, err)
	assert.Equal(t, defaultTTL, in.ttl)
	assert.Nil(t, in.to, "not said is not 0")
	assert.Nil(t, in.expected.pid)

	for _, test := range []struct{ name, in, field, says string }{
		{"nothing", ``, "", "no JSON object"},
		{"a form", `to=50`, "", "no JSON object"},
		{"an array", `[{"to":50}]`, "", "no JSON object"},
		{"null", `null`, "", "no JSON object"},
		{"cut short", `{"to":50,"reason":"r"`, "", "not JSON from byte"},
		{"two", `{"reason":"r"}{"reason":"r"}`, "", "follows"},
		{"unknown field", `{"reason":"r","force":true}`, "force", "unknown: there are expected, reason, to, ttl"},
		{"other letters", `{"Reason":"r"}`, "Reason", "unknown"},
		{"a field twice", `{"to":50,"reason":"r","to":1}`, "to", "twice"},
		{"null is not 0", `{"to":null,"reason":"r"}`, "to", "null is no value"},
		{"no reason", `{"to":50}`, "reason", "say why"},
		{"a blank reason", `{"reason":"  "}`, "reason", "say why"},
		{"a reason of two lines", `{"reason":"r\nlevel=ERROR msg=forged"}`, "reason", "no text"},
		{"an escape sequence", `{"reason":"\u001b[2J"}`, "reason", "no text"},
		{"turned around", `{"reason":"\u202egpj.exe"}`, "reason", "no text"},
		{"a long reason", `{"reason":"` + strings.Repeat("r", mostReason+1) + `"}`, "reason", "at most 512"},
		{"a reason that is none", `{"reason":7}`, "reason", "type"},
		{"a time without a unit", `{"reason":"r","ttl":"600"}`, "ttl", "1s to 24h0m0s"},
		{"for ever", `{"reason":"r","ttl":"25h"}`, "ttl", "1s to"},
		{"for no time", `{"reason":"r","ttl":"0s"}`, "ttl", "1s to"},
		{"backwards", `{"reason":"r","ttl":"-10m"}`, "ttl", "1s to"},
		{"a number of seconds", `{"reason":"r","ttl":600}`, "ttl", "type"},
		{"expected is no object", `{"reason":"r","expected":7}`, "expected", "want an object"},
		{"expected has more", `{"reason":"r","expected":{"uid":0}}`, "expected.uid", "unknown: there are pid, start_ticks, value"},
		{"expected twice", `{"reason":"r","expected":{"pid":1,"pid":2}}`, "expected.pid", "twice"},
		{"a pid that is none", `{"reason":"r","expected":{"pid":"1"}}`, "expected.pid", "type"},
		{"a start before the start", `{"reason":"r","expected":{"start_ticks":-1}}`, "expected.start_ticks", "type"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := decodeBody([]byte(test.in))
			p, ok := errors.AsType[*problem](err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, http.StatusBadRequest, p.code)
			assert.Contains(t, p.message, test.says)
			if test.field != "" {
				require.Len(t, p.causes, 1)
				assert.Equal(t, test.field, p.causes[0].Field)
				assert.Contains(t, p.message, test.field)
			}
		})
	}
}

func TestSettingValues(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		setting, in string
		want        int64
		ok          bool
	}{
		{"gcpercent", `50`, 50, true}, {"gcpercent", `-1`, -1, true}, {"gcpercent", `-2`, 0, false}, {"gcpercent", `2147483648`, 0, false},
		{"gcpercent", `50.5`, 0, false}, {"gcpercent", `5e1`, 0, false}, {"gcpercent", `"50"`, 0, false},
		{"memorylimit", `1073741824`, 1 << 30, true}, {"memorylimit", `0`, 0, false}, {"memorylimit", `9223372036854775808`, 0, false},
		{"breaker", `"open"`, 2, true}, {"breaker", `"half-open"`, 1, true}, {"breaker", `"closed"`, 0, true}, {"breaker", `"Open"`, 0, false}, {"breaker", `2`, 0, false},
		{"shed", `0`, 0, true}, {"shed", `100`, 100, true}, {"shed", `101`, 0, false}, {"shed", `-1`, 0, false},
	} {
		set := settingOf(test.setting)
		got, err := set.parse(json.RawMessage(test.in))
		if !test.ok {
			assert.Error(t, err, "%s %s", test.setting, test.in)
			continue
		}
		require.NoError(t, err, "%s %s", test.setting, test.in)
		assert.Equal(t, test.want, got)
		shown, err := json.Marshal(set.show(got))
		require.NoError(t, err)
		assert.Equal(t, test.in, string(shown), "as it was written")
	}
}

// Whatever is taken is a JSON object that says no more and nothing else.
func FuzzDecodeBody(f *testing.F) {
	for _, seed := range []string{
		`{"to":50,"reason":"a leak","ttl":"90s","expected":{"pid":7,"start_ticks":8,"value":100}}`, `{"to":"open","reason":"r"}`, `{"reason":"r","reason":"s"}`,
		`{"reason":"\ud800"}`, "{\"reason\":\"\xff\"}", `{"to":{"to":{}},"reason":"r"}`, strings.Repeat("[", 9000), strings.Repeat(`{"expected":`, 3000), `{"reason":"r"} x`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := decodeBody(b)
		if err != nil {
			if p, ok := errors.AsType[*problem](err); !ok || p.code != http.StatusBadRequest || p.message != clean(p.message, len(p.message)) {
				t.Fatalf("%q: %#v", b, err)
			}
			return
		}
		var plain map[string]json.RawMessage
		if err := json.Unmarshal(b, &plain); err != nil {
			t.Fatalf("%q is no JSON object, and was taken: %v", b, err)
		}
		if in.ttl < time.Second || in.ttl > mostTTL || strings.TrimSpace(in.reason) == "" || len(in.reason) > mostReason {
			t.Fatalf("%q was taken as %+v", b, in)
		}
		if (in.to != nil) != (plain["to"] != nil) || in.ttlSet != (plain["ttl"] != nil) {
			t.Fatalf("%q was taken as %+v", b, in)
		}
	})
}
