// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxTokens = 4096 // lines of a token file; each is compared for each request
	maxName   = 256  // bytes of the name of a user or group
)

// token is a line of the token file.
type token struct {
	sum  [sha256.Size]byte
	user User
}

// parseTokens reads a token file: lines "sha256:HEX NAME [GROUP,GROUP...]", empty ones,
// and comments that begin with "#". Only hashes are there, so that who reads the file
// cannot act. SHA-256 without salt is enough for what a machine drew at random; it is not
// for passwords, which belong into basic_auth_users.
func parseTokens(name string, b []byte) ([]token, error) {
	var tokens []token
	var errs []error
	lines := map[[sha256.Size]byte]int{}
	n := 0
	for line := range bytes.Lines(b) {
		n++
		fields := strings.Fields(string(line))
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		t, err := parseToken(fields)
		if err == nil {
			if first, twice := lines[t.sum]; twice {
				err = fmt.Errorf("the token of line %d again: a token is one user's", first)
			}
			lines[t.sum] = n
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("auth: %s: line %d: %w", name, n, err))
			continue
		}
		tokens = append(tokens, t)
	}
	if len(tokens) > maxTokens {
		errs = append(errs, fmt.Errorf("auth: %s: %d tokens are more than %d", name, len(tokens), maxTokens))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return tokens, nil
}

// hint is how to make the first field of a line.
const hint = `"sha256:" and what this prints: printf %s "$TOKEN" | sha256sum`

func parseToken(fields []string) (t token, err error) {
	sum, ok := strings.CutPrefix(fields[0], "sha256:")
	if !ok {
		// The field is not quoted: it may be a token that somebody pasted.
		return t, fmt.Errorf("does not begin with %s", hint)
	}
	raw, err := hex.DecodeString(sum)
	if err != nil || len(raw) != len(t.sum) {
		return t, fmt.Errorf("a SHA-256 is %d hexadecimal digits: write %s", hex.EncodedLen(len(t.sum)), hint)
	}
	copy(t.sum[:], raw)
	switch t.sum {
	case sha256.Sum256(nil), sha256.Sum256([]byte("\n")):
		return t, fmt.Errorf("is the hash of an empty token: write %s", hint)
	}
	if len(fields) < 2 || len(fields) > 3 {
		return t, errors.New("is not HASH NAME [GROUP,GROUP...], separated by spaces")
	}
	t.user = User{Name: fields[1], How: HowToken}
	if len(fields) == 3 {
		t.user.Groups = strings.Split(fields[2], ",")
	}
	t.user.Groups = append(t.user.Groups, AuthenticatedGroup)
	for _, s := range append([]string{t.user.Name}, t.user.Groups...) {
		if err := checkName(s); err != nil {
			return t, err
		}
	}
	return t, nil
}

// checkName refuses names that nobody can mean. It quotes no more than it accepts.
func checkName(s string) error {
	switch {
	case s == "":
		return errors.New("a name is empty")
	case len(s) > maxName:
		return fmt.Errorf("a name of %d bytes is longer than %d", len(s), maxName)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("name %q holds what cannot be printed", s)
	case s == AnonymousUser || s == AnonymousGroup || s == anything:
		return fmt.Errorf("name %q has a meaning of its own", s)
	}
	return nil
}

// findToken returns whose token it is. It looks at all of them, whichever matches.
func findToken(tokens []token, presented string) (User, bool) {
	sum := sha256.Sum256([]byte(presented))
	found := -1
	for i := range tokens {
		if subtle.ConstantTimeCompare(sum[:], tokens[i].sum[:]) == 1 {
			found = i
		}
	}
	if found < 0 {
		return User{}, false
	}
	return tokens[found].user, true
}
