// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/memguard/memguard-go/memguard"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOrders(t *testing.T) {
	t.Parallel()
	s := &service{answers: map[string][]byte{}}
	server := httptest.NewServer(http.HandlerFunc(s.create))
	defer server.Close()
	post := func(key, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequest(http.MethodPost, server.URL, strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Idempotency-Key", key)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(b)
	}
	code, answer := post("1", `{"customer":"c","items":[{"sku":"a","quantity":2},{"sku":"b","quantity":3}]}`)
	require.Equal(t, http.StatusOK, code)
	assert.Contains(t, answer, `"pieces":5`)

	code, again := post("1", `{}`)
	assert.Equal(t, http.StatusOK, code)
	assert.Equal(t, answer, again, "the same key has the same answer")

	code, _ = post("2", `{`)
	assert.Equal(t, http.StatusBadRequest, code)

	for i := range 10 {
		post(fmt.Sprint("k", i), `{"items":[]}`)
	}
	assert.Len(t, s.answers, 11, "every answer is remembered: that is the leak")
}

func TestExplain(t *testing.T) {
	t.Parallel()
	g := memguard.Start(memguard.Config{})
	defer g.Close()
	w := httptest.NewRecorder()
	explain(g)(w, httptest.NewRequest(http.MethodGet, "/debug/memguard", nil))
	require.Equal(t, http.StatusOK, w.Code, w.Body.String())
	var r memguard.Report
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &r))
	assert.NotEmpty(t, r.Verdict)
	_, ok := r.Ledger.Row(memguard.RowUnused)
	assert.True(t, ok, "seen from inside")
}
