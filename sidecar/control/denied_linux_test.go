// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/memguard/memguard-go/sidecar/audit"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// from sends a write that is denied, from an address.
func from(t *testing.T, s *Server, addr, token string) (code int) {
	t.Helper()
	r := httptest.NewRequest("PUT", at+"/runtimes/app/gcpercent?dryRun="+strings.Repeat("x", 2000), strings.NewReader("{}"))
	r.RemoteAddr = addr
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	require.Contains(t, []int{401, 403, 429}, w.Code, "%s", w.Body)
	return w.Code
}

// stands is how many denied calls an event stands for.
func stands(t *testing.T, e audit.Event) int {
	t.Helper()
	if e.Annotations[audit.AnnotationDecision] != "forbid" {
		return 0
	}
	n, ok := e.Annotations[audit.AnnotationCalls]
	if !ok {
		return 1
	}
	calls, err := strconv.Atoi(n)
	require.NoError(t, err)
	return calls
}

func sum(t *testing.T, es []audit.Event) (n int) {
	for _, e := range es {
		n += stands(t, e)
	}
	return n
}

// However often a caller is refused, the log's sum is that of all refusals at the end
// of each minute, and the log stays small.
func TestFloods(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := shortDir(t)
		s, err := build(dir, nil)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		synctest.Wait()
		begun := time.Now()
		refused := map[int]int{}
		for range 1000 {
			refused[from(t, s, "192.0.2.1:1", bob)]++
		}
		for i := range 70 { // of one address, with credentials that nobody has
			refused[from(t, s, "192.0.2.2:2", fmt.Sprint("guess ", i))]++
		}
		// The first are recorded one by one, with what they were answered.
		assert.Equal(t, map[int]int{403: denialsBurst, 401: denialsBurst, 429: 1000 + 70 - 2*denialsBurst}, refused)
		assert.Len(t, audited(t, dir, ""), 2*denialsBurst)
		time.Sleep(floodWindow - time.Second)
		synctest.Wait()
		assert.Equal(t, 2*denialsBurst, sum(t, audited(t, dir, "")), "the minute is not over")
		time.Sleep(time.Second)
		synctest.Wait()
		es := audited(t, dir, "")
		require.Len(t, es, 2*denialsBurst+2, "one for each caller")
		assert.Equal(t, 1070, sum(t, es))
		for _, e := range es[2*denialsBurst:] {
			switch e.SourceIPs[0] {
			case "192.0.2.1":
				assert.Equal(t, "940", e.Annotations[audit.AnnotationCalls])
				assert.Equal(t, "bob", e.User.Username)
			case "192.0.2.2":
				assert.Equal(t, "10", e.Annotations[audit.AnnotationCalls])
				assert.Empty(t, e.User.Username)
			}
			assert.Equal(t, audit.LevelMetadata, e.Level)
			assert.Equal(t, audit.StageResponseComplete, e.Stage)
			assert.Equal(t, "update", e.Verb)
			assert.Equal(t, "gcpercent", e.ObjectRef.Subresource)
			assert.EqualValues(t, 429, e.ResponseStatus.Code)
			assert.Less(t, len(e.RequestURI), mostURI+20)
			assert.WithinDuration(t, begun, e.RequestReceived.Time, time.Millisecond, "the first")
			assert.WithinDuration(t, begun.Add(floodWindow), e.StageTime.Time, time.Millisecond, "after the last")
		}

		// Without a flood there is nothing to say, and what is left is said at the end.
		time.Sleep(10 * floodWindow)
		synctest.Wait()
		assert.Len(t, audited(t, dir, ""), len(es))
		for range 100 {
			from(t, s, "192.0.2.1:1", bob)
		}
		cancel()
		require.NoError(t, <-ended)
		require.NoError(t, s.Close())
		assert.Equal(t, 1170, sum(t, audited(t, dir, "")))
		require.NoError(t, s.Close())
		assert.Equal(t, 1170, sum(t, audited(t, dir, "")), "once")
		require.NoError(t, s.audit.Close())
	})
}

// More callers than are told apart are one event together, which names none of them.
func TestFloodsAreBounded(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	s, err := build(dir, nil)
	require.NoError(t, err)
	s.denials = newLimiter(1, 1)
	const callers = mostFloods + 100
	for i := range callers {
		for range 3 { // one of which is recorded at once
			from(t, s, fmt.Sprintf("[2001:db8::%x]:9", i+1), "guess")
		}
	}
	assert.Len(t, s.floods.of, mostFloods)
	before := len(audited(t, dir, ""))
	require.NoError(t, s.Close())
	es := audited(t, dir, "")
	assert.Len(t, es, before+mostFloods+1)
	assert.Equal(t, 3*callers, sum(t, es))
	seen := false
	for _, e := range es[before:] {
		if len(e.SourceIPs) == 0 {
			seen = true
			assert.Equal(t, "200", e.Annotations[audit.AnnotationCalls])
			assert.Contains(t, e.Annotations[audit.AnnotationReason], "beyond the 256")
			assert.Zero(t, e.User)
			assert.Nil(t, e.ObjectRef)
		}
	}
	assert.True(t, seen)
	require.NoError(t, s.audit.Close())
}

// What cannot be recorded is not forgotten.
func TestFloodsOnAFullDisk(t *testing.T) {
	t.Parallel()
	r := beside(t)
	r.denials = newLimiter(1, 1)
	for range 5 {
		a := r.ask(bob, "PUT", at+"/runtimes/app/gcpercent", "{}")
		require.Contains(t, []int{403, 429}, a.code)
	}
	require.NoError(t, r.audit.Close())
	assert.ErrorContains(t, r.Close(), "4 denied calls are not on record")
	var err error
	r.Server.audit, err = audit.OpenLog(audit.LogConfig{Path: r.dir + "/audit.log"})
	require.NoError(t, err)
	assert.Equal(t, http.StatusTooManyRequests, r.ask(bob, "PUT", at+"/runtimes/app/gcpercent", "{}").code)
	require.NoError(t, r.Close())
	assert.Equal(t, 6, sum(t, audited(t, r.dir, "")))
}

// What could not be recorded of the callers beyond those told apart comes back, also
// when there are as many again.
func TestFloodsComeBack(t *testing.T) {
	t.Parallel()
	var f floods
	crowd := func() {
		for i := range mostFloods + 10 {
			f.add(fmt.Sprint("user ", i), 1, audit.Event{})
		}
	}
	crowd()
	of, others := f.take()
	require.NotNil(t, others)
	crowd()
	f.add("", others.calls, others.first)
	for who, one := range of {
		f.add(who, one.calls, one.first)
	}
	of, others = f.take()
	sum := others.calls
	for _, one := range of {
		sum += one.calls
	}
	assert.EqualValues(t, 2*(mostFloods+10), sum)
	assert.NotContains(t, of, "")
}
