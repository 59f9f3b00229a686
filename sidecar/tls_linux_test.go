// SPDX-License-Identifier: Apache-2.0

package sidecar_test

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Over TLS the binary of the image offers what it speaks, also to who asks for HTTP/2.
func TestTLS(t *testing.T) {
	t.Parallel()
	lender := httptest.NewUnstartedServer(nil) // of a certificate, and a client that believes it
	lender.EnableHTTP2 = true
	lender.StartTLS()
	defer lender.Close()
	pair := lender.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "memguard-tls-*")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	require.NoError(t, os.Chmod(dir, 0o755))
	for name, b := range map[string][]byte{
		"cert.pem":     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}),
		"key.pem":      pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		"web.yaml":     []byte("tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n"),
		"sidecar.yaml": []byte("web:\n  config_file: web.yaml\n"),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o644))
	}
	r := start(t, "--config", filepath.Join(dir, "sidecar.yaml"), "--exe", "/nothing")
	require.True(t, strings.HasPrefix(r.url, "https://"), r.url)
	resp, err := lender.Client().Get(r.url + "/livez")
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
}
