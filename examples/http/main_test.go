// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"image/png"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/memguard/memguard-go/memguard/shed"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// serve runs the service as main does, with a limiter that the test tells of the memory.
func serve(t *testing.T) (get func(path string) (int, string), limiter *shed.Limiter) {
	limiter = shed.New(shed.Config{Work: work, Wait: -1})
	server := httptest.NewUnstartedServer(service(limiter))
	server.Listener = limiter.Listener(server.Listener)
	server.Start()
	t.Cleanup(server.Close)
	return func(path string) (int, string) {
		resp, err := http.Get(server.URL + path)
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(b)
	}, limiter
}

func TestThumbnail(t *testing.T) {
	t.Parallel()
	get, _ := serve(t)
	code, body := get("/thumbnails/42?size=64")
	require.Equal(t, http.StatusOK, code, body)
	picture, err := png.Decode(strings.NewReader(body))
	require.NoError(t, err)
	assert.Equal(t, 64, picture.Bounds().Dx())
	code, _ = get("/thumbnails/42?size=-1")
	assert.Equal(t, http.StatusBadRequest, code)
	code, _ = get("/thumbnails/x?size=1")
	assert.Equal(t, http.StatusNotFound, code)

	code, body = get("/debug/shed")
	require.Equal(t, http.StatusOK, code)
	var s shed.Snapshot
	require.NoError(t, json.Unmarshal([]byte(body), &s))
	assert.Equal(t, "GET /thumbnails/{id}", s.Routes[0].Route)
	assert.EqualValues(t, 3, s.Routes[0].Admitted)
}

// When something else fills the room, pictures are refused, and served again
// when it has gone.
func TestRefused(t *testing.T) {
	t.Parallel()
	get, limiter := serve(t)
	const mib = 1 << 20
	limiter.Update(shed.Memory{Limit: 640 * mib, Usage: 500 * mib, Must: 580 * mib, Margin: 30 * mib})
	var leaves []func()
	for {
		leave, err := limiter.Enter(t.Context(), shed.Work{Route: "import", Wait: -1})
		if err != nil {
			break
		}
		leaves = append(leaves, leave)
		require.Less(t, len(leaves), 1000)
	}
	code, body := get("/thumbnails/1?size=1")
	assert.Equal(t, http.StatusServiceUnavailable, code, body)
	for _, leave := range leaves {
		leave()
	}
	code, body = get("/thumbnails/1?size=1")
	assert.Equal(t, http.StatusOK, code, body)
}
