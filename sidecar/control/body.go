// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/agent"
	"github.com/memguard/memguard-go/pacer"
	"github.com/memguard/memguard-go/sidecar/audit"
)

const (
	mostBody   = 64 << 10 // bytes of a request
	mostReason = 512      // bytes, as the guard itself takes them
	defaultTTL = 10 * time.Minute
	mostTTL    = 24 * time.Hour
)

// wanted is the body of a write.
type wanted struct {
	to       json.RawMessage // of a setting; nil: it does not say
	reason   string
	ttl      time.Duration
	ttlSet   bool
	expected expected
}

// expected is what must be true for a write to be done. Nil asks for nothing.
type expected struct {
	pid   *int64
	start *uint64
	value json.RawMessage
}

// readBody reads the body of a write, and returns it as it came, too.
func readBody(w http.ResponseWriter, r *http.Request) (wanted, []byte, error) {
	if kind := r.Header.Get("Content-Encoding"); kind != "" && kind != "identity" {
		return wanted{}, nil, refuse(http.StatusUnsupportedMediaType, reasonMedia, "the body is encoded as %q: send it as it is", clean(kind, 64))
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostBody))
	if tooLong, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return wanted{}, nil, refuse(http.StatusRequestEntityTooLarge, reasonTooLarge, "a body has %d bytes at most: send one write", tooLong.Limit)
	}
	if err != nil {
		return wanted{}, nil, bad("the body did not arrive: %v: send it again", clean(err.Error(), 256))
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return wanted{}, b, refuse(http.StatusUnsupportedMediaType, reasonMedia, "Content-Type %q: send application/json", clean(r.Header.Get("Content-Type"), 64))
	}
	in, err := decodeBody(b)
	return in, b, err
}

// decodeBody reads what is wanted. What acts on a process is taken by the letter:
// see decodeObject.
func decodeBody(b []byte) (wanted, error) {
	in := wanted{ttl: defaultTTL}
	var ttl *string
	var exp json.RawMessage
	seen, err := decodeObject(b, "", map[string]any{"to": &in.to, "reason": &in.reason, "ttl": &ttl, "expected": &exp})
	if err != nil {
		return wanted{}, err
	}
	if seen["expected"] {
		e := &in.expected
		if _, err := decodeObject(exp, "expected.", map[string]any{"pid": &e.pid, "start_ticks": &e.start, "value": &e.value}); err != nil {
			return wanted{}, err
		}
	}
	in.ttlSet = ttl != nil
	if ttl != nil {
		if in.ttl, err = time.ParseDuration(*ttl); err != nil || in.ttl < time.Second || in.ttl > mostTTL {
			return wanted{}, badField("ttl", "%q: want a time from 1s to %v, such as 10m", clean(*ttl, 64), mostTTL)
		}
	}
	switch {
	case strings.TrimSpace(in.reason) == "":
		return wanted{}, badField("reason", "there is none: say why, for the log")
	case len(in.reason) > mostReason:
		return wanted{}, badField("reason", "it has %d bytes: at most %d", len(in.reason), mostReason)
	case clean(in.reason, mostReason) != in.reason:
		return wanted{}, badField("reason", "it has characters that are no text: one line of text is wanted")
	}
	return in, nil
}

func badField(field, format string, args ...any) *problem {
	text := fmt.Sprintf(format, args...)
	p := bad("field %q: %s", field, text)
	p.causes = []audit.StatusCause{{Reason: "FieldValueInvalid", Message: text, Field: field}}
	return p
}

// decodeObject reads a JSON object into fields, and reports which were there. It
// guesses nothing: a key that is unknown, in other letters or there twice, a
// null, and anything behind the object are errors. (encoding/json takes any
// letters and the last of two keys, and leaves a zero for a null.)
func decodeObject(b []byte, at string, fields map[string]any) (map[string]bool, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		if at != "" {
			return nil, badField(strings.TrimSuffix(at, "."), "want an object")
		}
		return nil, bad(`the body is no JSON object: send one such as {"reason":"..."}, for a setting {"to":50,"reason":"...","ttl":"10m"}`)
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, notJSON(d)
		}
		key, _ := t.(string) // nothing else can be in this place
		field, ok := fields[key]
		name := at + clean(key, 64)
		switch {
		case !ok:
			return nil, badField(name, "unknown: there are %s", strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
		case seen[key]:
			return nil, badField(name, "it is there twice")
		}
		seen[key] = true
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, notJSON(d)
		}
		if bytes.Equal(value, []byte("null")) {
			return nil, badField(name, "null is no value: leave the field out")
		}
		if err := json.Unmarshal(value, field); err != nil {
			return nil, badField(name, "%s: not of the wanted type", clean(string(value), 64))
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, notJSON(d)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, bad("something follows the object at byte %d: send one", d.InputOffset())
	}
	return seen, nil
}

func notJSON(d *json.Decoder) error {
	return bad("the body is not JSON from byte %d on", d.InputOffset())
}

// setting is something of a target that can be set for a time.
type setting struct {
	name   string // in the API
	action memguard.ActionName
	parse  func(json.RawMessage) (int64, error)
	show   func(int64) any
	now    func(*agent.Hand) (int64, bool) // what it is; false: the guard has no such thing, or does not tell
	lacks  string                          // what to do then
}

// number is a setting's value that is one.
func number(want string, least, most int64) func(json.RawMessage) (int64, error) {
	return func(raw json.RawMessage) (int64, error) {
		n, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil || n < least || n > most {
			return 0, fmt.Errorf("%s: want %s", clean(string(raw), 64), want)
		}
		return n, nil
	}
}

func breakerState(raw json.RawMessage) (int64, error) {
	var name string
	var state pacer.State
	if json.Unmarshal(raw, &name) != nil || state.UnmarshalText([]byte(name)) != nil {
		return 0, fmt.Errorf(`%s: want "open", "half-open" or "closed"`, clean(string(raw), 64))
	}
	return int64(state), nil
}

func asNumber(n int64) any { return n }

// settings are all of them. What values would do harm is the guard's to say.
var settings = []*setting{
	{
		name: "gcpercent", action: memguard.SetGCPercent, show: asNumber,
		parse: number("a GC percent: a whole number of 1 or more, or -1 for off", -1, math.MaxInt32),
		now:   func(h *agent.Hand) (int64, bool) { return int64(h.Wanted.GCPercent), true },
	},
	{
		name: "memorylimit", action: memguard.SetMemoryLimit, show: asNumber,
		parse: number("bytes: a whole number of 1 or more", 1, math.MaxInt64),
		now:   func(h *agent.Hand) (int64, bool) { return h.Wanted.MemoryLimit, true },
	},
	{
		name: "breaker", action: memguard.SetBreaker, parse: breakerState,
		show: func(n int64) any { return pacer.State(n).String() },
		now: func(h *agent.Hand) (int64, bool) {
			var state pacer.State
			err := state.UnmarshalText([]byte(h.MemoryBreaker))
			return int64(state), err == nil
		},
		lacks: "the service's guard has no breaker that can be set: start it with one in memguard.Config.MemoryBreaker",
	},
	{
		name: "shed", action: memguard.ShedLoad, show: asNumber,
		parse: number("the percent of work to refuse: a whole number from 0 to 100", 0, 100),
		now: func(h *agent.Hand) (int64, bool) {
			if h.Shed == nil {
				return 0, false
			}
			return int64(h.Shed.Refusing), true
		},
		lacks: "the service's guard has no limiter: start it with one in memguard.Config.Shed, and let the service's work pass it",
	},
}

func settingOf(name string) *setting {
	for _, s := range settings {
		if s.name == name {
			return s
		}
	}
	return nil
}
