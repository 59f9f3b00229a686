// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDecodeOrder(t *testing.T) {
	t.Parallel()
	o, err := decodeOrder(strings.NewReader(`{"action":"gc-percent","to":50,"reason":"a leak","by":"ops","ttl_ns":60000000000,"dry_run":true}` + "\n"))
	require.NoError(t, err)
	assert.Equal(t, memguard.Order{Action: memguard.SetGCPercent, To: 50, Reason: "a leak", By: "ops", TTL: time.Minute, DryRun: true}, o)

	for _, test := range []struct{ name, in, says string }{
		{"nothing", "", "not JSON"},
		{"not JSON", "gc please", "not JSON"},
		{"an array", `[{"action":"gc"}]`, "want an object"},
		{"a number", `17`, "want an object"},
		{"null", `null`, "want an object"},
		{"cut short", `{"action":"gc","reason":`, `key "reason"`},
		{"no end", `{"action":"gc","reason":"r"`, "not JSON"},
		{"unknown key", `{"action":"gc","reason":"r","force":true}`, `unknown key "force"`},
		{"other letters", `{"Action":"gc","reason":"r"}`, `unknown key "Action"`},
		{"a key twice", `{"action":"gc-percent","to":100,"to":0,"reason":"r"}`, `"to" is there twice`},
		{"null is not 0", `{"action":"gc-percent","to":null,"reason":"r"}`, "null is no value"},
		{"no value", `{"action":"gc-percent","reason":"r"}`, "does not say to what"},
		{"a value too many", `{"action":"gc","to":3,"reason":"r"}`, `takes no "to"`},
		{"a fraction", `{"action":"gc-percent","to":0.5,"reason":"r"}`, `key "to"`},
		{"too large", `{"action":"memory-limit","to":9223372036854775808,"reason":"r"}`, `key "to"`},
		{"a text", `{"action":"gc-percent","to":"50","reason":"r"}`, `key "to"`},
		{"no action", `{"reason":"r"}`, "no action"},
		{"two orders", `{"action":"gc","reason":"r"}{"action":"gc","reason":"r"}`, "follows"},
		{"a line for the log", `{"action":"gc","reason":"r\nlevel=ERROR msg=forged"}`, "no text"},
		{"an escape sequence", `{"action":"gc","reason":"r","by":"\u001b[2J"}`, "no text"},
		{"broken UTF-8", "{\"action\":\"gc\",\"reason\":\"\xff\"}", "no text"},
		{"long", `{"action":"gc","reason":"` + strings.Repeat("r", mostText+1) + `"}`, "at most"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := decodeOrder(strings.NewReader(test.in))
			assert.ErrorContains(t, err, test.says)
		})
	}
}

// Whatever is sent, what comes out says all that it does: sent once more, as it
// was understood, it is understood in the same way.
func FuzzDecodeOrder(f *testing.F) {
	for _, seed := range []string{
		`{"action":"gc-percent","to":50,"reason":"a leak","by":"ops","ttl_ns":60000000000,"dry_run":true}`,
		`{"action":"memory-limit","to":0,"reason":"r"}`, `{"action":"gc","reason":"r"}`, `{"to":1,"to":2}`, `{"to":null}`, `[{}]`, "{\"by\":\"\xff\"}",
		`{"action":"gc","reason":"\ud800"}`, strings.Repeat("[", 10000), `{"action":` + strings.Repeat(`{"a":`, 5000),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := decodeOrder(strings.NewReader(string(b)))
		if err != nil {
			return
		}
		if !json.Valid(b) {
			t.Fatalf("%q is no JSON, and was taken as %+v", b, o)
		}
		if o.Action == "" || sane("reason", o.Reason) != nil || sane("by", o.By) != nil {
			t.Fatalf("%q was taken as %+v", b, o)
		}
		again, err := json.Marshal(orderBody(o))
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decodeOrder(strings.NewReader(string(again))); err != nil || back != o {
			t.Fatalf("%q became %+v, and then %+v (%v)", b, o, back, err)
		}
	})
}
