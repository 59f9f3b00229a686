// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/memguard/memguard-go/sidecar/audit"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"
)

// auditMetrics is what an audit log shows that has just begun.
func auditMetrics(t *testing.T) string {
	log, err := audit.OpenLog(audit.LogConfig{Path: filepath.Join(t.TempDir(), "audit.log")})
	require.NoError(t, err)
	defer log.Close()
	reg := prometheus.NewRegistry()
	require.NoError(t, reg.Register(log))
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}
