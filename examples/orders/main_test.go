// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/memguard/memguard-go/memguard/evidence"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOrders(t *testing.T) {
	t.Parallel()
	lost := func(context.Context, *order, plan) error { return errors.New("the warehouse is closed") }
	const good = `{"customer":"c","lines":[{"sku":"a","quantity":2,"price":1.5},{"sku":"b","quantity":3,"price":2}]}`
	for name, test := range map[string]struct {
		body    string
		reserve func(context.Context, *order, plan) error
		code    int
	}{
		"all in stock":     {good, warehouse(0), http.StatusOK},
		"no lines":         {`{"customer":"c"}`, warehouse(0), http.StatusOK},
		"no JSON":          {`{`, warehouse(0), http.StatusBadRequest},
		"too large":        {`"` + strings.Repeat("x", mostBytes) + `"`, warehouse(0), http.StatusBadRequest},
		"too many lines":   {`{"lines":[{}` + strings.Repeat(",{}", mostLines) + `]}`, warehouse(0), http.StatusBadRequest},
		"no answer to get": {good, lost, http.StatusBadGateway},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &service{reserve: test.reserve}
			w := httptest.NewRecorder()
			s.create(w, httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader(test.body)))
			require.Equal(t, test.code, w.Code, w.Body.String())
			if test.code != http.StatusOK {
				return
			}
			var a receipt
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &a))
			digest := sha256.Sum256([]byte(test.body))
			assert.Equal(t, hex.EncodeToString(digest[:]), a.Digest)
			if test.body == good {
				assert.Equal(t, receipt{Customer: "c", Pieces: 5, Sum: 9, Digest: a.Digest}, a)
			}
		})
	}
}

// Both lives of the program: it listens, answers, and ends when it is told to. The
// guarded one leaves a black box that says so.
func TestProgram(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("the black box is for linux; this is " + runtime.GOOS)
	}
	exe := filepath.Join(t.TempDir(), "orders")
	out, err := exec.Command("go", "build", "-o", exe, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	for name, dir := range map[string]string{"unguarded": "", "guarded": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stderr bytes.Buffer
			cmd := exec.Command(exe, "-addr", "127.0.0.1:0", "-warehouse", "1ms", "-guard", dir, "-limit", "512MiB")
			cmd.Stderr = &stderr
			stdout, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			defer func() { _ = cmd.Process.Kill() }()
			said, err := bufio.NewReader(stdout).ReadString('\n')
			require.NoError(t, err)
			addr, ok := strings.CutPrefix(strings.TrimSpace(said), "listening on ")
			require.True(t, ok, said)
			resp, err := http.Post("http://"+addr+"/orders", "application/json", strings.NewReader(`{}`))
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, http.StatusOK, resp.StatusCode)
			require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
			require.NoError(t, cmd.Wait(), stderr.String())
			if dir == "" {
				return
			}
			boxes, err := evidence.Boxes(dir)
			require.NoError(t, err)
			require.Len(t, boxes, 1)
			r, err := evidence.ReadBox(boxes[0])
			require.NoError(t, err)
			assert.Equal(t, evidence.Closed, r.State)
			_, err = os.Stat(boxes[0])
			require.NoError(t, err)
		})
	}
}
