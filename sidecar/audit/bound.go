// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// encode returns the record as a line, at most limit bytes long. As in Kubernetes
// (plugin/pkg/audit/truncate) a record that is too large loses its objects; where
// Kubernetes then drops it, here its texts lose their ends: nobody must be able to stay
// out of the log by sending more. Either is marked.
func encode(e Event, limit int) ([]byte, error) {
	e.RequestObject, e.ResponseObject = valid(e.RequestObject), valid(e.ResponseObject)
	line, err := marshal(e)
	if err != nil || len(line) <= limit {
		return line, err
	}
	e.RequestObject, e.ResponseObject = nil, nil
	e.Annotations = maps.Clone(e.Annotations)
	if e.Annotations == nil {
		e.Annotations = map[string]string{}
	}
	e.Annotations[AnnotationTruncated] = "true"
	line, err = marshal(e)
	for size := 1024; err == nil && len(line) > limit && size >= 8; size /= 2 {
		line, err = marshal(cut(e, size))
	}
	if err == nil && len(line) > limit {
		err = fmt.Errorf("a record of %d bytes is larger than %d", len(line), limit)
	}
	return line, err
}

func marshal(e Event) ([]byte, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// valid returns an object as JSON: what is none becomes a text.
func valid(object json.RawMessage) json.RawMessage {
	if len(object) == 0 {
		return nil
	}
	if json.Valid(object) {
		return object
	}
	text, _ := json.Marshal(string(object)) // of a string it does not fail
	return text
}

// cut returns the event with texts of at most size bytes, and lists of at most one entry
// for each 64 of them.
func cut(e Event, size int) Event {
	entries := max(1, size/64)
	to := func(size int, s string) string {
		if len(s) <= size {
			return s
		}
		return strings.ToValidUTF8(s[:size], "")
	}
	text := func(s string) string { return to(size, s) }
	key := func(s string) string { return to(max(size, 64), s) } // half a key says nothing
	list := func(l []string) []string {
		l = slices.Clone(l[:min(len(l), entries)])
		for i := range l {
			l[i] = text(l[i])
		}
		return l
	}
	for _, s := range []*string{&e.AuditID, &e.RequestURI, &e.Verb, &e.UserAgent, &e.User.Username, &e.User.UID} {
		*s = text(*s)
	}
	e.User.Groups, e.SourceIPs = list(e.User.Groups), list(e.SourceIPs)
	extra := map[string][]string{}
	for _, k := range firstKeys(e.User.Extra, entries) {
		extra[key(k)] = list(e.User.Extra[k])
	}
	e.User.Extra = extra
	annotations := map[string]string{}
	for _, k := range firstKeys(e.Annotations, 4*entries) {
		annotations[key(k)] = text(e.Annotations[k])
	}
	annotations[AnnotationTruncated] = "true"
	e.Annotations = annotations
	if e.ObjectRef != nil {
		ref := *e.ObjectRef
		for _, s := range []*string{&ref.Resource, &ref.Namespace, &ref.Name, &ref.UID, &ref.APIGroup, &ref.APIVersion, &ref.ResourceVersion, &ref.Subresource} {
			*s = text(*s)
		}
		e.ObjectRef = &ref
	}
	if e.ResponseStatus != nil {
		st := *e.ResponseStatus
		st.Details = nil
		for _, s := range []*string{&st.Kind, &st.APIVersion, &st.Status, &st.Message, &st.Reason} {
			*s = text(*s)
		}
		e.ResponseStatus = &st
	}
	return e
}

// firstKeys returns up to n keys in their order, so that the same ones are kept each time.
func firstKeys[V any](m map[string]V, n int) []string {
	keys := slices.Sorted(maps.Keys(m))
	return keys[:min(len(keys), n)]
}
