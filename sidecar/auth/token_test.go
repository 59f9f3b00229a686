// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"crypto/sha256"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseTokens(t *testing.T) {
	t.Parallel()
	tokens, err := parseTokens("tokens", []byte("# who may what\n\n"+hash("one")+" governor governors,ops\r\n  "+hash("two")+"\treader\n"))
	require.NoError(t, err)
	require.Len(t, tokens, 2)
	assert.Equal(t, User{Name: "governor", Groups: []string{"governors", "ops", AuthenticatedGroup}, How: HowToken}, tokens[0].user)
	u, ok := findToken(tokens, "two")
	assert.True(t, ok)
	assert.Equal(t, "reader", u.Name)
	for _, wrong := range []string{"", "three", "one ", strings.TrimPrefix(hash("one"), "sha256:"), hash("one")} {
		_, ok = findToken(tokens, wrong)
		assert.False(t, ok, "%q", wrong)
	}
}

func TestParseTokensRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"# c\nsecret-token governor":    `tokens: line 2: does not begin with "sha256:"`,
		"sha256:abc governor":           `line 1: a SHA-256 is 64 hexadecimal digits`,
		hash("x"):                       `line 1: is not HASH NAME [GROUP,GROUP...]`,
		hash("x") + " a b c":            `line 1: is not HASH NAME`,
		hash("") + " a":                 `is the hash of an empty token`,
		hash("\n") + " a":               `is the hash of an empty token`,
		hash("x") + " a g,,h":           `a name is empty`,
		hash("x") + " system:anonymous": `has a meaning of its own`,
		hash("x") + " *":                `has a meaning of its own`,
		hash("x") + " a\x1b[31m":        `cannot be printed`,
		hash("x") + " " + strings.Repeat("a", maxName+1):       `longer than 256`,
		hash("x") + " a\n" + hash("x") + " b":                  `line 2: the token of line 1 again`,
		strings.Repeat("x\n", 2):                               `line 2: does not begin`,
		hash("x") + " a\n" + strings.ToUpper(hash("y")) + " b": `line 2: does not begin`,
	} {
		_, err := parseTokens("tokens", []byte(text))
		require.ErrorContains(t, err, want, text)
		assert.NotContains(t, err.Error(), "secret-token", "what may be a token is not shown")
	}
}

func TestTokenFileIsReread(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := write(t, dir, "tokens", []byte(hash("one")+" alice\n"))
	synctest.Test(t, func(t *testing.T) {
		n, err := NewAuthenticator(Config{TokenFile: path}, nil)
		require.NoError(t, err)
		ask := func(token string) (User, error) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Authorization", "bearer  "+token)
			return n.Authenticate(r)
		}
		u, err := ask("one")
		require.NoError(t, err)
		assert.Equal(t, "alice", u.Name)
		_, err = ask("two")
		require.EqualError(t, err, "auth: token: the token is not known here")

		write(t, dir, "tokens", []byte(hash("two")+" bob\n"))
		time.Sleep(2 * time.Second)
		u, err = ask("two")
		require.NoError(t, err)
		assert.Equal(t, "bob", u.Name)
		_, err = ask("one")
		require.Error(t, err, "a token that is taken out is refused")

		write(t, dir, "tokens", []byte("oops\n"))
		time.Sleep(2 * time.Second)
		_, err = ask("two")
		require.NoError(t, err, "the old file stays in force")
		require.ErrorContains(t, n.ReloadError(), "tokens: line 1")
		require.NoError(t, os.Remove(path))
		time.Sleep(2 * time.Second)
		_, err = ask("two")
		require.NoError(t, err)
		require.ErrorContains(t, n.ReloadError(), "no such file")
	})
}

func FuzzTokens(f *testing.F) {
	f.Add([]byte("# c\n" + hash("one") + " governor a,b\n"))
	f.Add([]byte(hash("one") + " x \xff\n\x00"))
	f.Add([]byte("sha256: x\nsha256:zz y"))
	f.Fuzz(func(t *testing.T, b []byte) {
		tokens, err := parseTokens("tokens", b)
		if err != nil {
			require.Nil(t, tokens)
			require.Contains(t, err.Error(), "auth: tokens: ")
			return
		}
		seen := map[[sha256.Size]byte]bool{}
		for _, k := range tokens {
			require.NotEmpty(t, k.user.Name)
			require.NotEqual(t, AnonymousUser, k.user.Name)
			require.Contains(t, k.user.Groups, AuthenticatedGroup)
			require.False(t, seen[k.sum])
			seen[k.sum] = true
		}
		_, ok := findToken(tokens, "")
		require.False(t, ok, "nobody is known by nothing")
	})
}
