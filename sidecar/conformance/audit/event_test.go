// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	k8saudit "k8s.io/apiserver/pkg/audit"
	logbackend "k8s.io/apiserver/plugin/pkg/audit/log"
	"k8s.io/apiserver/plugin/pkg/audit/truncate"

	"github.com/memguard/memguard-go/sidecar/audit"
)

// drawEvent fills every field that may be filled.
func drawEvent(r *rand.Rand) audit.Event {
	req := httptest.NewRequest("PUT", "/apis/memguard.dev/v1alpha1/namespaces/default/runtimes/app/gcpercent?dryRun=All", nil)
	req.Header.Set("User-Agent", "curl/8 <b>&\u2028"+strings.Repeat("x", r.IntN(1500)))
	req.Header.Set("X-Forwarded-For", "203.0.113.7, not-an-address, 2001:db8::1")
	e := audit.NewEvent(req, time.Unix(1_795_315_907, r.Int64N(1e9)).In(time.FixedZone("somewhere", 3600)))
	e.Verb = pick(r, verbs)
	e.User = audit.User{Username: pick(r, users), UID: "7", Groups: some(r, 3, groups), Extra: map[string][]string{"authentication.kubernetes.io/pod-name": {"app-0"}}}
	if r.IntN(3) > 0 {
		e.ObjectRef = &audit.ObjectReference{Resource: "runtimes", Namespace: "default", Name: pick(r, names), APIGroup: "memguard.dev", APIVersion: "v1alpha1", Subresource: pick(r, subs), UID: "u", ResourceVersion: "1"}
	}
	if r.IntN(3) > 0 {
		e.ResponseStatus = &audit.Status{Code: int32(r.IntN(600))}
		if r.IntN(2) == 0 {
			e.ResponseStatus.Status, e.ResponseStatus.Message, e.ResponseStatus.Reason = "Failure", "no rule allows \"it\"", "Forbidden"
			e.ResponseStatus.Details = &audit.StatusDetails{Name: "app", Group: "memguard.dev", Kind: "runtimes", UID: "u", RetryAfterSeconds: 6,
				Causes: []audit.StatusCause{{Reason: "FieldValueInvalid", Message: "m", Field: "to"}}}
		}
	}
	if r.IntN(2) == 0 {
		e.RequestObject = json.RawMessage(`{"to": 50, "reason": "<script>", "deep": [1, 2.5, null, {"a": "\u00e9"}]}`)
	}
	if r.IntN(2) == 0 {
		e.ResponseObject = json.RawMessage(`{"to":50,"previous":100}`)
	}
	for range r.IntN(4) {
		e.Annotations[pick(r, []string{audit.AnnotationDecision, audit.AnnotationReason, audit.AnnotationTargetPID})] = "allow \"x\""
	}
	return e
}

// TestEvent writes events to our log, and each line through Kubernetes: the strict decoder
// takes it, and the log back end of the API server writes the same document again.
func TestEvent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.OpenLog(audit.LogConfig{Path: path})
	require.NoError(t, err)
	r := rand.New(rand.NewPCG(3, 4))
	allLevels := []audit.Level{audit.LevelMetadata, audit.LevelRequest, audit.LevelRequestResponse}
	allStages := []audit.Stage{audit.StageRequestReceived, audit.StageResponseStarted, audit.StageResponseComplete, audit.StagePanic}
	const n = 200
	for range n {
		e, ok := audit.Decision{Level: allLevels[r.IntN(3)]}.At(allStages[r.IntN(4)], drawEvent(r))
		require.True(t, ok)
		require.NoError(t, log.Append(e))
	}
	require.NoError(t, log.Close())
	b, err := os.ReadFile(path)
	require.NoError(t, err)

	strict := serializer.NewCodecFactory(k8saudit.Scheme, serializer.EnableStrict)
	lines := 0
	for line := range bytes.Lines(b) {
		lines++
		var v1 auditv1.Event
		_, _, err := strict.UniversalDeserializer().Decode(line, nil, &v1)
		require.NoError(t, err, "%s", line)
		var internal auditinternal.Event
		_, _, err = strict.UniversalDecoder().Decode(line, nil, &internal)
		require.NoError(t, err, "%s", line)
		var out bytes.Buffer
		require.True(t, logbackend.NewBackend(&out, logbackend.FormatJson, auditv1.SchemeGroupVersion).ProcessEvents(&internal))
		require.JSONEq(t, out.String(), string(line))

		var back audit.Event
		require.NoError(t, json.Unmarshal(line, &back))
		assert.Equal(t, v1.RequestReceivedTimestamp.UnixMicro(), back.RequestReceived.UnixMicro())
	}
	assert.Equal(t, n, lines)
}

// TestEventNotJSON: what a client sent instead of JSON is recorded as a text.
func TestEventNotJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.OpenLog(audit.LogConfig{Path: path})
	require.NoError(t, err)
	e := drawEvent(rand.New(rand.NewPCG(5, 6)))
	e.RequestObject = json.RawMessage("to=50&\xff")
	e, _ = audit.Decision{Level: audit.LevelRequest}.At(audit.StageRequestReceived, e)
	require.NoError(t, log.Append(e))
	require.NoError(t, log.Close())
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	var v1 auditv1.Event
	_, _, err = serializer.NewCodecFactory(k8saudit.Scheme, serializer.EnableStrict).UniversalDeserializer().Decode(b, nil, &v1)
	require.NoError(t, err)
	assert.JSONEq(t, `"to=50&\ufffd"`, string(v1.RequestObject.Raw))
}

// TestTruncate: of an event that is too large the same is left as the truncating back end
// of the API server leaves, as long as that leaves anything.
func TestTruncate(t *testing.T) {
	const limit = 10 << 10
	r := rand.New(rand.NewPCG(7, 8))
	truncated := 0
	for i := range 60 {
		e := drawEvent(r)
		e.RequestObject = json.RawMessage(`{"a":"` + strings.Repeat("x", i*300) + `"}`)
		e, _ = audit.Decision{Level: audit.LevelRequestResponse}.At(audit.StageResponseComplete, e)
		path := filepath.Join(t.TempDir(), "audit.log")
		log, err := audit.OpenLog(audit.LogConfig{Path: path, MaxEvent: limit})
		require.NoError(t, err)
		require.NoError(t, log.Append(e))
		require.NoError(t, log.Close())
		got, err := os.ReadFile(path)
		require.NoError(t, err)

		whole, err := json.Marshal(e)
		require.NoError(t, err)
		var internal auditinternal.Event
		_, _, err = k8saudit.Codecs.UniversalDecoder().Decode(whole, nil, &internal)
		require.NoError(t, err)
		var want bytes.Buffer
		backend := truncate.NewBackend(logbackend.NewBackend(&want, logbackend.FormatJson, auditv1.SchemeGroupVersion),
			truncate.Config{MaxEventSize: limit, MaxBatchSize: 1 << 30}, auditv1.SchemeGroupVersion)
		require.True(t, backend.ProcessEvents(&internal))
		require.JSONEq(t, want.String(), string(got))
		if bytes.Contains(got, []byte(audit.AnnotationTruncated)) {
			truncated++
		}
	}
	assert.Greater(t, truncated, 10)
	assert.Less(t, truncated, 50)
}

// TestSourceIPs holds what we take for the source of a request against what the API server takes.
func TestSourceIPs(t *testing.T) {
	for _, tt := range []struct{ forwarded, real, remote string }{
		{"", "", "192.0.2.1:1234"},
		{"203.0.113.7", "", "192.0.2.1:1234"},
		{"203.0.113.7, 192.0.2.1", "", "192.0.2.1:1234"},
		{"203.0.113.7,203.0.113.7", "203.0.113.7", "[2001:db8::1]:1"},
		{"nonsense, ,1.2.3", "10.0.0.1", "192.0.2.1:1234"},
		{"::ffff:10.0.0.1", "10.0.0.1", "10.0.0.1:1"},
		{"", "nonsense", "@"},
	} {
		req := httptest.NewRequest("GET", "/", nil)
		req.RemoteAddr = tt.remote
		req.Header.Set("X-Forwarded-For", tt.forwarded)
		req.Header.Set("X-Real-Ip", tt.real)
		var want []string
		for _, ip := range utilnet.SourceIPs(req) {
			want = append(want, ip.String())
		}
		assert.Equal(t, want, audit.NewEvent(req, time.Now()).SourceIPs, "%+v", tt)
	}
}
