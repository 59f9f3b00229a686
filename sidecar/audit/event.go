// SPDX-License-Identifier: Apache-2.0

// Package audit writes down who asked for what, before it is done.
//
// Records are audit.k8s.io/v1 Events, one JSON document a line. A [Policy] in
// Kubernetes' own file format says how much of which request is recorded; writes and
// denied requests are recorded whatever it says ([Decision.Must]). [Log.Append] returns
// when the record is on the disk, or with an error: then the effect must not take place.
package audit

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Level is how much of a request is recorded. Each holds what the one before it holds.
type Level string

// The levels.
const (
	LevelNone            Level = "None"
	LevelMetadata        Level = "Metadata"        // who, what, when, from where, the answer's status
	LevelRequest         Level = "Request"         // and the body of the request
	LevelRequestResponse Level = "RequestResponse" // and the body of the answer
)

// Stage is how far the handling of a request was when it was recorded.
type Stage string

// The stages.
const (
	StageRequestReceived  Stage = "RequestReceived"
	StageResponseStarted  Stage = "ResponseStarted" // only of streams
	StageResponseComplete Stage = "ResponseComplete"
	StagePanic            Stage = "Panic"
)

// Annotations of events: Kubernetes' own, and the five elements (permission, process,
// resource, rate, stack) as far as no field of the event holds them.
const (
	AnnotationDecision    = "authorization.k8s.io/decision" // allow or forbid
	AnnotationReason      = "authorization.k8s.io/reason"
	AnnotationTruncated   = "audit.k8s.io/truncated" // "true": bodies were left out because of their size
	AnnotationTargetPID   = "memguard.dev/target-pid"
	AnnotationTargetStart = "memguard.dev/target-start-time" // clock ticks since boot
	AnnotationCallerPID   = "memguard.dev/caller-pid"
	AnnotationCallerUID   = "memguard.dev/caller-uid"
	AnnotationRate        = "memguard.dev/request-rate-1m" // requests of this caller in the last minute
	AnnotationStack       = "memguard.dev/call-stack"
	AnnotationReasonGiven = "memguard.dev/reason" // what the caller gave as reason
	AnnotationTraceparent = "memguard.dev/traceparent"
	// How many denied calls of one caller the event stands for, if more than itself. What
	// else it says is of the first of them; its stage timestamp is after the last.
	AnnotationCalls = "memguard.dev/denied-calls"
)

// Event is one record: audit.k8s.io/v1 Event.
type Event struct {
	Kind       string `json:"kind"`       // "Event"
	APIVersion string `json:"apiVersion"` // "audit.k8s.io/v1"

	Level      Level  `json:"level"`
	AuditID    string `json:"auditID"` // one for all stages of a request
	Stage      Stage  `json:"stage"`
	RequestURI string `json:"requestURI"`
	Verb       string `json:"verb"`

	User           User             `json:"user"`
	SourceIPs      []string         `json:"sourceIPs,omitempty"` // all but the last are the client's word
	UserAgent      string           `json:"userAgent,omitempty"`
	ObjectRef      *ObjectReference `json:"objectRef,omitempty"`
	ResponseStatus *Status          `json:"responseStatus,omitempty"`
	RequestObject  json.RawMessage  `json:"requestObject,omitempty"`
	ResponseObject json.RawMessage  `json:"responseObject,omitempty"`

	RequestReceived MicroTime         `json:"requestReceivedTimestamp"`
	StageTime       MicroTime         `json:"stageTimestamp"`
	Annotations     map[string]string `json:"annotations,omitempty"`
}

// User is authentication.k8s.io/v1 UserInfo.
type User struct {
	Username string              `json:"username,omitempty"`
	UID      string              `json:"uid,omitempty"`
	Groups   []string            `json:"groups,omitempty"`
	Extra    map[string][]string `json:"extra,omitempty"`
}

// ObjectReference is what a request is about.
type ObjectReference struct {
	Resource        string `json:"resource,omitempty"`
	Namespace       string `json:"namespace,omitempty"`
	Name            string `json:"name,omitempty"`
	UID             string `json:"uid,omitempty"`
	APIGroup        string `json:"apiGroup,omitempty"`
	APIVersion      string `json:"apiVersion,omitempty"`
	ResourceVersion string `json:"resourceVersion,omitempty"`
	Subresource     string `json:"subresource,omitempty"`
}

// Status is metav1.Status. In an event Kind and APIVersion are empty.
type Status struct {
	Kind       string         `json:"kind,omitempty"`
	APIVersion string         `json:"apiVersion,omitempty"`
	Metadata   struct{}       `json:"metadata"`
	Status     string         `json:"status,omitempty"` // Success or Failure
	Message    string         `json:"message,omitempty"`
	Reason     string         `json:"reason,omitempty"`
	Details    *StatusDetails `json:"details,omitempty"`
	Code       int32          `json:"code,omitempty"` // of HTTP
}

// StatusDetails is metav1.StatusDetails.
type StatusDetails struct {
	Name              string        `json:"name,omitempty"`
	Group             string        `json:"group,omitempty"`
	Kind              string        `json:"kind,omitempty"`
	UID               string        `json:"uid,omitempty"`
	Causes            []StatusCause `json:"causes,omitempty"`
	RetryAfterSeconds int32         `json:"retryAfterSeconds,omitempty"`
}

// StatusCause is metav1.StatusCause.
type StatusCause struct {
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	Field   string `json:"field,omitempty"`
}

// MicroTime is a time in JSON as Kubernetes writes it: UTC with six digits of a second,
// or null for the zero time.
type MicroTime struct{ time.Time }

// micro is metav1.RFC3339Micro.
const micro = "2006-01-02T15:04:05.000000Z07:00"

// MarshalJSON implements json.Marshaler.
func (t MicroTime) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return []byte(t.UTC().Format(`"` + micro + `"`)), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *MicroTime) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		t.Time = time.Time{}
		return nil
	}
	var err error
	t.Time, err = time.Parse(`"`+micro+`"`, string(b))
	return err
}

// maxUserAgent is where the API server cuts a user agent too, in bytes.
const maxUserAgent = 1024

// NewEvent begins the record of a request: a new audit id, URI, source addresses, user
// agent and the time. The caller adds User, Verb, ObjectRef, annotations and, later,
// ResponseStatus and the objects.
func NewEvent(r *http.Request, received time.Time) Event {
	e := Event{
		Kind: "Event", APIVersion: "audit.k8s.io/v1", AuditID: newID(),
		RequestURI: r.URL.RequestURI(), SourceIPs: sourceIPs(r), UserAgent: r.UserAgent(),
		RequestReceived: MicroTime{received}, Annotations: map[string]string{},
	}
	if len(e.UserAgent) > maxUserAgent {
		e.UserAgent = e.UserAgent[:maxUserAgent] + "...TRUNCATED"
	}
	return e
}

// newID returns a random UUID (RFC 9562, version 4).
func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// maxForwarded is how many addresses that proxies wrote are recorded: the last ones, which
// the nearest proxies wrote.
const maxForwarded = 16

// sourceIPs returns where a request came from, as the API server does
// (k8s.io/apimachinery/pkg/util/net, SourceIPs): what proxies wrote, which is the client's
// word, and last the address of the connection, which is the kernel's. A unix socket has
// none.
func sourceIPs(r *http.Request) (ips []string) {
	parse := func(s string) string {
		if ip := net.ParseIP(strings.TrimSpace(s)); ip != nil {
			return ip.String()
		}
		return ""
	}
	for part := range strings.SplitSeq(r.Header.Get("X-Forwarded-For"), ",") {
		if ip := parse(part); ip != "" {
			ips = append(ips, ip)
		}
	}
	ips = ips[max(0, len(ips)-maxForwarded):]
	if ip := parse(r.Header.Get("X-Real-Ip")); ip != "" && !slices.Contains(ips, ip) {
		ips = append(ips, ip)
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ips
	}
	if ip := parse(host); ip != "" && (len(ips) == 0 || ips[len(ips)-1] != ip) {
		ips = append(ips, ip)
	}
	return ips
}
