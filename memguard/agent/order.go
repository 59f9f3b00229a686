// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/memguard/memguard-go/memguard"
)

const (
	mostOrder = 4 << 10 // bytes of an order
	mostText  = 512     // bytes of its reason, and of who asks
)

// decodeOrder reads an order. It takes nothing for granted that acts on a
// process: a key that is unknown, there twice or in other letters, a null, a
// setting without its value, or anything after the object is an error, not a
// guess. (encoding/json alone takes the last of two keys, any letters, and leaves
// a zero for a null.)
func decodeOrder(r io.Reader) (memguard.Order, error) {
	var o memguard.Order
	fields := map[string]any{
		"action": &o.Action, "to": &o.To, "reason": &o.Reason, "by": &o.By, "ttl_ns": &o.TTL, "dry_run": &o.DryRun,
	}
	d := json.NewDecoder(r)
	if t, err := d.Token(); err != nil {
		return o, fmt.Errorf("not JSON: %w", err)
	} else if t != json.Delim('{') {
		return o, fmt.Errorf("want an object, not %v", t)
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return o, fmt.Errorf("not JSON: %w", err)
		}
		key, _ := t.(string) // nothing else can be in this place
		field, ok := fields[key]
		switch {
		case !ok:
			return o, fmt.Errorf("unknown key %q: want action, to, reason, by, ttl_ns, dry_run", key)
		case seen[key]:
			return o, fmt.Errorf("key %q is there twice", key)
		}
		seen[key] = true
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return o, fmt.Errorf("key %q: %w", key, err)
		}
		if bytes.Equal(value, []byte("null")) {
			return o, fmt.Errorf("key %q: null is no value", key)
		}
		if err := json.Unmarshal(value, field); err != nil {
			return o, fmt.Errorf("key %q: %w", key, err)
		}
	}
	if _, err := d.Token(); err != nil {
		return o, fmt.Errorf("not JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return o, errors.New("something follows the object")
	}
	switch {
	case o.Action == "":
		return o, errors.New("it has no action")
	case o.Action.IsSetting() && !seen["to"]:
		return o, fmt.Errorf("action %q: it does not say to what: key \"to\"", o.Action)
	case !o.Action.IsSetting() && seen["to"]:
		return o, fmt.Errorf("action %q: takes no \"to\"", o.Action)
	}
	for key, text := range map[string]string{"reason": o.Reason, "by": o.By} {
		if err := sane(key, text); err != nil {
			return o, err
		}
	}
	return o, nil
}

// sane refuses texts that do not belong into a log.
func sane(key, text string) error {
	if len(text) > mostText {
		return fmt.Errorf("%q has %d bytes: at most %d", key, len(text), mostText)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\ufffd' }) {
		return fmt.Errorf("%q has characters that are no text", key)
	}
	return nil
}
