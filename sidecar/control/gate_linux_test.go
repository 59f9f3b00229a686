// SPDX-License-Identifier: Apache-2.0

package control

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/memguard/memguard-go/sidecar/audit"
	"github.com/memguard/memguard-go/sidecar/auth"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What is outside the API is under the same rules, and a write there is on record
// before it is done.
func TestGuarded(t *testing.T) {
	t.Parallel()
	r := beside(t)
	calls := 0
	h := httptest.NewServer(r.Guarded(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		calls++
		assert.Equal(t, []audit.Stage{audit.StageRequestReceived}, r.stages(&answered{header: w.Header()}))
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, "reloaded")
	})))
	defer h.Close()
	r.url = h.URL
	r.refused(r.ask("", "POST", "/-/reload", ""), 401, "Unauthorized", "")
	r.refused(r.ask(bob, "POST", "/-/reload", ""), 403, "Forbidden", "")
	r.refused(r.ask(alice, "GET", "/-/reload", ""), 403, "Forbidden", "")
	r.refused(r.ask(alice, "POST", "/-/quit", ""), 403, "Forbidden", "")
	assert.Zero(t, calls)
	a := r.ask(alice, "POST", "/-/reload", "")
	assert.Equal(t, http.StatusAccepted, a.code)
	assert.Equal(t, "reloaded", string(a.body))
	assert.Equal(t, []audit.Stage{audit.StageRequestReceived, audit.StageResponseComplete}, r.stages(a))
	require.NoError(t, r.audit.Close())
	r.refused(r.ask(alice, "POST", "/-/reload", ""), 503, "ServiceUnavailable", "nothing was done")
	assert.Equal(t, 1, calls)
	var err error
	r.Server.audit, err = audit.OpenLog(audit.LogConfig{Path: r.dir + "/audit.log"})
	require.NoError(t, err)
}

func TestSetAuth(t *testing.T) {
	t.Parallel()
	r := beside(t)
	require.Equal(t, 200, r.ask(alice, "GET", at+"/runtimes", "").code)
	nobody := auth.Config{OpenReads: "none"}
	n, err := auth.NewAuthenticator(nobody, nil)
	require.NoError(t, err)
	z, err := auth.NewAuthorizer(nobody)
	require.NoError(t, err)
	r.SetAuth(n, z)
	r.refused(r.ask(alice, "GET", at+"/runtimes", ""), 401, "Unauthorized", "")
}

// Rules that allow a write are not enough where writes are switched off; the
// refusal is on record.
func TestWritesOff(t *testing.T) {
	t.Parallel()
	r := beside(t)
	r.orders = false
	for _, token := range []string{alice, carol} {
		for _, query := range []string{"", "?dryRun=All"} {
			a := r.ask(token, "PUT", at+"/runtimes/app/gcpercent"+query, `{"to":50,"reason":"a test"}`)
			r.refused(a, 403, "Forbidden", "writes.enabled")
			es := audited(t, r.dir, a.header.Get("Audit-Id"))
			require.Len(t, es, 1)
			assert.Equal(t, "forbid", es[0].Annotations[audit.AnnotationDecision])
			assert.Contains(t, es[0].Annotations[audit.AnnotationReason], "switched off")
		}
	}
	r.refused(r.ask("", "PUT", at+"/runtimes/app/gcpercent", `{"to":50,"reason":"a test"}`), 401, "Unauthorized", "say who you are")
	r.refused(r.ask(alice, "DELETE", at+"/runtimes/app/gcpercent", `{"reason":"a test"}`), 403, "Forbidden", "writes.enabled")
	r.refused(r.ask(alice, "POST", at+"/runtimes/app/gc", `{"reason":"a test"}`), 403, "Forbidden", "writes.enabled")
	assert.Equal(t, 200, r.ask(bob, "GET", at+"/runtimes", "").code, "to read is no order")
}
