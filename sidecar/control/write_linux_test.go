// SPDX-License-Identifier: Apache-2.0

package control

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/agent"
	"github.com/memguard/memguard-go/sidecar/audit"
	"github.com/memguard/memguard-go/sidecar/target"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func handOf(t *testing.T, c *agent.Client) *agent.Hand {
	t.Helper()
	st, err := c.Status(t.Context())
	require.NoError(t, err)
	require.NotNil(t, st.Hand)
	return st.Hand
}

// Every setting is set, seen in the service, listed, and taken back.
func TestSettings(t *testing.T) {
	t.Parallel()
	r := beside(t, service(t, "whole").Process.Pid)
	c := r.handed("app")
	before := handOf(t, c)
	for _, test := range []struct {
		name, to, from string
		is             func(*agent.Hand) any
		want           any
	}{
		{"gcpercent", "50", fmt.Sprint(before.Wanted.GCPercent), func(h *agent.Hand) any { return h.Wanted.GCPercent }, 50},
		{"memorylimit", "8589934592", fmt.Sprint(before.Wanted.MemoryLimit), func(h *agent.Hand) any { return h.Wanted.MemoryLimit }, int64(8 << 30)},
		{"breaker", `"half-open"`, `"closed"`, func(h *agent.Hand) any { return h.MemoryBreaker }, "half-open"},
		{"shed", "25", "0", func(h *agent.Hand) any { return h.Shed.Refusing }, 25},
	} {
		path := at + "/runtimes/app/" + test.name
		before := test.is(handOf(t, c))
		dry := r.ask(alice, "PUT", path+"?dryRun=All", `{"to":`+test.to+`,"reason":"a rehearsal"}`)
		require.Equal(t, 200, dry.code, "%s", dry.body)
		assert.Equal(t, true, dry.json["dry_run"])
		assert.Equal(t, before, test.is(handOf(t, c)), "a dry run has no effect")
		assert.Equal(t, []audit.Stage{audit.StageRequestReceived, audit.StageResponseComplete}, r.stages(dry), "and is recorded all the same")
		assert.Empty(t, r.journal.standing())

		a := r.ask(alice, "PUT", path, `{"to":`+test.to+`,"reason":"a test","ttl":"1h","expected":{"value":`+test.from+`}}`)
		require.Equal(t, 200, a.code, "%s", a.body)
		assert.Equal(t, test.want, test.is(handOf(t, c)))
		var out done
		require.NoError(t, json.Unmarshal(a.body, &out))
		assert.Equal(t, memguard.Applied, out.Event.Kind)
		assert.Equal(t, "standing", out.Override.State)
		assert.WithinDuration(t, out.Override.Since.Add(time.Hour), out.Override.Until, 0)
		es := audited(t, r.dir, a.header.Get("Audit-Id"))
		require.Len(t, es, 2)
		assert.Equal(t, audit.StageRequestReceived, es[0].Stage)
		assert.Equal(t, audit.StageResponseComplete, es[1].Stage)
		assert.Equal(t, "update", es[1].Verb)
		assert.Equal(t, "alice", es[1].User.Username)
		assert.Equal(t, test.name, es[1].ObjectRef.Subresource)
		assert.Equal(t, "allow", es[1].Annotations[audit.AnnotationDecision])
		assert.Equal(t, fmt.Sprint(out.Process.PID), es[0].Annotations[audit.AnnotationTargetPID], "known before the effect")
		assert.Equal(t, fmt.Sprint(out.Process.Start), es[0].Annotations[audit.AnnotationTargetStart])
		assert.NotEmpty(t, es[0].Annotations[audit.AnnotationRate])
		assert.JSONEq(t, string(es[0].RequestObject), `{"to":`+test.to+`,"reason":"a test","ttl":"1h","expected":{"value":`+test.from+`}}`)
		assert.NotEmpty(t, es[1].ResponseObject)

		list := r.ask(bob, "GET", at+"/runtimes/app/overrides", "")
		require.Equal(t, 200, list.code)
		items := list.json["items"].([]any)
		require.Len(t, items, 1, "%s", list.body)
		o := items[0].(map[string]any)
		assert.Equal(t, test.name, o["setting"])
		to, _ := json.Marshal(o["to"])
		assert.JSONEq(t, test.to, string(to))
		from, _ := json.Marshal(o["from"])
		assert.JSONEq(t, test.from, string(from))
		assert.Equal(t, a.header.Get("Audit-Id"), o["id"])

		dry = r.ask(alice, "DELETE", path+"?dryRun=All", `{"reason":"a rehearsal"}`)
		require.Equal(t, 200, dry.code, "%s", dry.body)
		assert.Equal(t, test.want, test.is(handOf(t, c)))
		a = r.ask(alice, "DELETE", path, `{"reason":"it is over"}`)
		require.Equal(t, 200, a.code, "%s", a.body)
		assert.Equal(t, before, test.is(handOf(t, c)), "the old value is back")
		assert.Equal(t, []audit.Stage{audit.StageRequestReceived, audit.StageResponseComplete}, r.stages(a))
		assert.Empty(t, r.ask(bob, "GET", at+"/runtimes/app/overrides", "").json["items"])
		r.refused(r.ask(alice, "DELETE", path, `{"reason":"once more"}`), 404, "NotFound", "no override of "+test.name)
	}
	var texts strings.Builder
	for _, e := range r.watcher.Events(t.Context(), 0) {
		if e.Kind == "control" {
			fmt.Fprintln(&texts, e.Text)
		}
	}
	assert.Contains(t, texts.String(), "alice set breaker from closed to half-open until ")
	assert.Contains(t, texts.String(), "alice took the override of shed back: it is over")
}

// Without anybody's doing the old value comes back.
func TestOverridesEndByThemselves(t *testing.T) {
	t.Parallel()
	r := beside(t, service(t, "whole").Process.Pid)
	c := r.handed("app")
	before := handOf(t, c)
	for name, to := range map[string]string{"gcpercent": "51", "memorylimit": "8589934592", "breaker": `"open"`, "shed": "99"} {
		a := r.ask(alice, "PUT", at+"/runtimes/app/"+name, `{"to":`+to+`,"reason":"a test","ttl":"1s"}`)
		require.Equal(t, 200, a.code, "%s", a.body)
	}
	require.Eventually(t, func() bool {
		h := handOf(t, c)
		return len(h.Orders) == 0 && h.Wanted.GCPercent == before.Wanted.GCPercent && h.MemoryBreaker == "closed" && h.Shed.Refusing == 0
	}, time.Minute, 10*time.Millisecond)
	require.Eventually(t, func() bool { return len(r.journal.standing()) == 0 }, time.Minute, 10*time.Millisecond, "without anybody asking")
}

// What is to be done once is done.
func TestActions(t *testing.T) {
	t.Parallel()
	r := beside(t, service(t, "whole").Process.Pid)
	c := r.handed("app")
	for name, kind := range map[string]memguard.EventKind{"gc": memguard.Applied, "freeosmemory": memguard.Applied, "capture": memguard.Saved} {
		dry := r.ask(alice, "POST", at+"/runtimes/app/"+name+"?dryRun=All", `{"reason":"a rehearsal"}`)
		require.Equal(t, 200, dry.code, "%s", dry.body)
		st, err := c.Status(t.Context())
		require.NoError(t, err)
		a := r.ask(alice, "POST", at+"/runtimes/app/"+name, `{"reason":"a test"}`)
		require.Equal(t, 202, a.code, "%s", a.body)
		assert.Nil(t, a.json["override"])
		require.Eventually(t, func() bool {
			es, err := c.Events(t.Context(), st.Events, 0)
			require.NoError(t, err)
			for _, e := range es {
				if e.Kind == kind {
					return true
				}
			}
			return false
		}, time.Minute, 10*time.Millisecond, name)
		assert.Equal(t, []audit.Stage{audit.StageRequestReceived, audit.StageResponseComplete}, r.stages(a))
	}
	assert.Empty(t, r.journal.standing())
}

func TestPreconditions(t *testing.T) {
	t.Parallel()
	pid := service(t, "whole").Process.Pid
	r := beside(t, pid)
	c := r.handed("app")
	_, id, err := r.watcher.Agent("app")
	require.NoError(t, err)
	good := fmt.Sprintf(`{"pid":%d,"start_ticks":%d,"value":%d}`, pid, id.Start, handOf(t, c).Wanted.GCPercent)
	for expected, fields := range map[string][]string{
		`{"pid":1}`:                 {"expected.pid"},
		`{"start_ticks":1}`:         {"expected.start_ticks"},
		`{"value":17}`:              {"expected.value"},
		`{"pid":1,"start_ticks":1}`: {"expected.pid", "expected.start_ticks"},
	} {
		a := r.ask(alice, "PUT", at+"/runtimes/app/gcpercent", `{"to":50,"reason":"r","expected":`+expected+`}`)
		r.refused(a, 409, "Conflict", "nothing was done")
		var st audit.Status
		require.NoError(t, json.Unmarshal(a.body, &st))
		require.Len(t, st.Details.Causes, len(fields))
		for i, f := range fields {
			assert.Equal(t, f, st.Details.Causes[i].Field)
		}
		if expected == `{"pid":1}` {
			assert.Equal(t, fmt.Sprintf("it is %d", pid), st.Details.Causes[0].Message, "what is true now")
		}
		assert.Equal(t, []audit.Stage{audit.StageResponseComplete}, r.stages(a), "nothing was about to be done")
	}
	assert.Empty(t, handOf(t, c).Orders)
	a := r.ask(alice, "PUT", at+"/runtimes/app/gcpercent", `{"to":50,"reason":"r","expected":`+good+`}`)
	assert.Equal(t, 200, a.code, "%s", a.body)
	a = r.ask(alice, "PUT", at+"/runtimes/app/gcpercent", `{"to":60,"reason":"r","expected":`+good+`}`)
	r.refused(a, 409, "Conflict", "it is 50")
}

// Of many who expect the same old value one has it.
func TestOneOfManyWins(t *testing.T) {
	t.Parallel()
	r := beside(t, service(t, "whole").Process.Pid)
	r.handed("app")
	var all sync.WaitGroup
	codes := make(chan int, 20)
	for i := range cap(codes) {
		all.Go(func() {
			codes <- r.ask(alice, "PUT", at+"/runtimes/app/shed", fmt.Sprintf(`{"to":%d,"reason":"r","expected":{"value":0}}`, i+1)).code
		})
	}
	all.Wait()
	close(codes)
	n := map[int]int{}
	for c := range codes {
		n[c]++
	}
	assert.Equal(t, map[int]int{200: 1, 409: 19}, n)
}

func TestIdempotency(t *testing.T) {
	t.Parallel()
	r := beside(t, service(t, "whole").Process.Pid)
	c := r.handed("app")
	put := func(body, key string) *answered {
		return r.ask(alice, "PUT", at+"/runtimes/app/gcpercent", body, "Idempotency-Key", key)
	}
	first := put(`{"to":50,"reason":"r"}`, "k")
	require.Equal(t, 200, first.code, "%s", first.body)
	require.Equal(t, 200, put(`{"to":60,"reason":"r"}`, "l").code)
	again := put(`{"to":50,"reason":"r"}`, "k")
	assert.Equal(t, 200, again.code)
	assert.JSONEq(t, string(first.body), string(again.body))
	assert.Equal(t, "true", again.header.Get("Idempotent-Replayed"))
	assert.Equal(t, 60, handOf(t, c).Wanted.GCPercent, "it is not done again")
	r.refused(put(`{"to":51,"reason":"r"}`, "k"), 422, "Invalid", "another request")
	r.refused(r.ask(alice, "DELETE", at+"/runtimes/app/gcpercent", `{"reason":"r"}`, "Idempotency-Key", "k"), 422, "Invalid", "another request")
	r.refused(put(`{"to":50,"reason":"r"}`, strings.Repeat("k", mostKey+1)), 400, "BadRequest", "Idempotency-Key")
	r.refused(put(`{"to":50,"reason":"r"}`, "k\xff"), 400, "BadRequest", "Idempotency-Key")

	// What was refused before it began is asked anew; what the guard refused is not.
	r.refused(put(`{"to":50,"reason":"r","expected":{"value":1}}`, "m"), 409, "Conflict", "")
	assert.Equal(t, 200, put(`{"to":50,"reason":"r"}`, "m").code)
	limit := func() *answered {
		return r.ask(alice, "PUT", at+"/runtimes/app/memorylimit", `{"to":1,"reason":"r"}`, "Idempotency-Key", "n")
	}
	one, two := limit(), limit()
	r.refused(one, 422, "Invalid", "the service's guard refuses")
	r.refused(two, 422, "Invalid", "the service's guard refuses")
	assert.Equal(t, "true", two.header.Get("Idempotent-Replayed"))

	// At once: one does it, the others get its answer, or are told to wait for it.
	var all sync.WaitGroup
	answers := make(chan *answered, 16)
	st, err := c.Status(t.Context())
	require.NoError(t, err)
	for range cap(answers) {
		all.Go(func() { answers <- put(`{"to":70,"reason":"r"}`, "o") })
	}
	all.Wait()
	close(answers)
	for a := range answers {
		if a.code != 200 {
			r.refused(a, 409, "Conflict", "under way")
			assert.Equal(t, "1", a.header.Get("Retry-After"))
		}
	}
	es, err := c.Events(t.Context(), st.Events, 0)
	require.NoError(t, err)
	applied := 0
	for _, e := range es {
		if e.Kind == memguard.Applied && e.Action.To == 70 {
			applied++
		}
	}
	assert.Equal(t, 1, applied)
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	r := beside(t, service(t, "whole").Process.Pid)
	c := r.handed("app")
	r.writes = newLimiter(10, 3)
	for i := range 3 {
		assert.Equal(t, 200, r.ask(alice, "PUT", at+"/runtimes/app/shed", fmt.Sprintf(`{"to":%d,"reason":"r"}`, i)).code)
	}
	a := r.ask(alice, "PUT", at+"/runtimes/app/shed", `{"to":9,"reason":"r"}`)
	r.refused(a, 429, "TooManyRequests", "too many writes")
	assert.Equal(t, "6", a.header.Get("Retry-After"))
	assert.EqualValues(t, 6, a.json["details"].(map[string]any)["retryAfterSeconds"])
	assert.Equal(t, []audit.Stage{audit.StageResponseComplete}, r.stages(a))
	assert.Equal(t, 2, handOf(t, c).Shed.Refusing)
	assert.Equal(t, 200, r.ask(carol, "PUT", at+"/runtimes/app/gcpercent", `{"to":50,"reason":"r"}`).code, "another caller")
	assert.Equal(t, 200, r.ask(alice, "GET", at+"/runtimes", "").code, "reading is something else")
}

// Who may not does not, is told so, and is on record.
func TestWhoMayNot(t *testing.T) {
	t.Parallel()
	r := beside(t, service(t, "whole").Process.Pid)
	c := r.handed("app")
	body := `{"to":50,"reason":"r"}`
	for _, test := range []struct {
		token, method, path string
		code                int
		reason              string
		header              []string
	}{
		{"", "PUT", "/runtimes/app/gcpercent", 401, "Unauthorized", nil},
		{"guess", "PUT", "/runtimes/app/gcpercent", 401, "Unauthorized", nil},
		{bob, "PUT", "/runtimes/app/gcpercent", 403, "Forbidden", nil},
		{bob, "DELETE", "/runtimes/app/gcpercent", 403, "Forbidden", nil},
		{bob, "POST", "/runtimes/app/gc", 403, "Forbidden", nil},
		{carol, "PUT", "/runtimes/app/memorylimit", 403, "Forbidden", nil},
		{carol, "PUT", "/runtimes/other/gcpercent", 403, "Forbidden", nil},
		{carol, "GET", "/runtimes", 403, "Forbidden", nil},
		{"", "GET", "/runtimes", 401, "Unauthorized", nil},
		{"", "GET", "/events", 401, "Unauthorized", nil},
		{"", "GET", "/incidents/x/files/y", 401, "Unauthorized", nil},
		{carol, "PUT", "/runtimes/app/gcpercent?dryRun=none", 400, "BadRequest", nil},
		{alice, "PUT", "/runtimes/app/gcpercent", 403, "Forbidden", []string{"Sec-Fetch-Site", "cross-site"}},
		{alice, "PUT", "/runtimes/app/gcpercent", 403, "Forbidden", []string{"Origin", "https://elsewhere.example"}},
	} {
		a := r.ask(test.token, test.method, at+test.path, body, test.header...)
		require.Equal(t, test.code, a.code, "%s %s %s: %s", test.token, test.method, test.path, a.body)
		r.refused(a, test.code, test.reason, "")
		es := audited(t, r.dir, a.header.Get("Audit-Id"))
		require.Len(t, es, 1, "%s %s", test.method, test.path)
		assert.Equal(t, audit.StageResponseComplete, es[0].Stage)
		assert.EqualValues(t, test.code, es[0].ResponseStatus.Code)
		if test.code != 400 {
			assert.Equal(t, "forbid", es[0].Annotations[audit.AnnotationDecision])
		}
		if test.code == 401 {
			assert.NotEmpty(t, a.header.Values("Www-Authenticate"))
		}
	}
	assert.Empty(t, handOf(t, c).Orders)

	// Whoever is refused all the time does not fill the log: but how often is told.
	before := len(audited(t, r.dir, ""))
	r.denials = newLimiter(1, 2)
	for range 10 {
		a := r.ask(bob, "PUT", at+"/runtimes/app/gcpercent", body)
		assert.Contains(t, []int{403, 429}, a.code)
	}
	es := audited(t, r.dir, "")
	assert.Len(t, es, before+2)
	require.NoError(t, r.Close())
	es = audited(t, r.dir, "")
	require.Len(t, es, before+3)
	assert.Equal(t, "8", es[len(es)-1].Annotations[audit.AnnotationCalls])
}

// A sidecar that has just begun does not say that a service has no guard because it
// has not looked for one yet.
func TestWriteAtOnce(t *testing.T) {
	t.Parallel()
	r := beside(t, service(t, "bare").Process.Pid)
	a := r.ask(alice, "PUT", at+"/runtimes/app/gcpercent", `{"to":50,"reason":"a test"}`)
	require.Equal(t, 200, a.code, "%s", a.body)
	a = r.ask(alice, "DELETE", at+"/runtimes/app/gcpercent", `{"reason":"a test"}`)
	require.Equal(t, 200, a.code, "%s", a.body)
}

// What the target lacks is said.
func TestTargetsThatCannot(t *testing.T) {
	t.Parallel()
	bare, dry, none := service(t, "bare"), service(t, "dry"), service(t, "none")
	r := beside(t, bare.Process.Pid, dry.Process.Pid, none.Process.Pid)
	r.handed("app")
	r.handed("app1")
	put := func(target, setting, to string) *answered {
		return r.ask(alice, "PUT", at+"/runtimes/"+target+"/"+setting, `{"to":`+to+`,"reason":"r"}`)
	}
	r.refused(put("app", "breaker", `"open"`), 501, "NotImplemented", "Config.MemoryBreaker")
	r.refused(put("app", "shed", "10"), 501, "NotImplemented", "Config.Shed")
	r.refused(r.ask(alice, "POST", at+"/runtimes/app/capture", `{"reason":"r"}`), 422, "Invalid", "no store for evidence")
	r.refused(put("app", "memorylimit", "1"), 422, "Invalid", "cannot be freed")
	r.refused(put("app", "gcpercent", "0"), 422, "Invalid", "want -1 (off) or more than 0")
	r.refused(put("app1", "gcpercent", "50"), 501, "NotImplemented", "runs dry")
	r.refused(put("app2", "gcpercent", "50"), 501, "NotImplemented", "imports memguard")
	r.refused(put("nobody", "gcpercent", "50"), 404, "NotFound", "nobody")
	assert.Empty(t, r.journal.standing())

	require.NoError(t, bare.Process.Kill())
	_ = bare.Wait()
	require.Eventually(t, func() bool { return put("app", "gcpercent", "50").code == 409 }, time.Minute, 20*time.Millisecond)
}

// When it cannot be recorded it is not done.
func TestNoRecordNoEffect(t *testing.T) {
	t.Parallel()
	r := beside(t, service(t, "whole").Process.Pid)
	c := r.handed("app")
	put := func() *answered {
		return r.ask(alice, "PUT", at+"/runtimes/app/gcpercent", `{"to":50,"reason":"r"}`)
	}
	// A directory in the place of the file that the journal is written anew to.
	require.NoError(t, os.Mkdir(r.journal.path+".new", 0o700))
	r.journal.disk.Lock()
	r.journal.torn = true
	r.journal.disk.Unlock()
	a := put()
	r.refused(a, 503, "ServiceUnavailable", "the journal")
	assert.Empty(t, handOf(t, c).Orders)
	assert.Len(t, audited(t, r.dir, a.header.Get("Audit-Id")), 2, "what was about to be done, and what came of it")
	require.NoError(t, os.Remove(r.journal.path+".new"))
	assert.Equal(t, 200, put().code)
	require.Equal(t, 200, r.ask(alice, "DELETE", at+"/runtimes/app/gcpercent", `{"reason":"r"}`).code)

	require.NoError(t, r.audit.Close())
	r.refused(put(), 503, "ServiceUnavailable", "the audit log")
	assert.Empty(t, handOf(t, c).Orders)
	assert.Empty(t, r.journal.standing())
	var err error
	r.Server.audit, err = audit.OpenLog(audit.LogConfig{Path: r.dir + "/audit.log"})
	require.NoError(t, err)

	j := r.journal
	r.Server.journal = nil
	r.refused(put(), 501, "NotImplemented", "state_dir")
	r.Server.journal = j
}

// An order that the guard would keep for longer than its journal says is taken
// back by the sidecar that finds it, with or without knowing its number.
func TestTheSecondHand(t *testing.T) {
	t.Parallel()
	pid := service(t, "whole").Process.Pid
	c, err := agent.Dial(pid)
	require.NoError(t, err)
	defer c.Close()
	lives, known := alive(target.Identity{PID: pid})
	require.True(t, known)
	require.False(t, lives, "another start time")
	start := startOf(t, pid)

	dir := shortDir(t)
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	require.NoError(t, err)
	j, err := openJournal(dir+"/state", strings.TrimSpace(string(boot)))
	require.NoError(t, err)
	entry := func(id string, set *setting, to int64) *write {
		return &write{
			ID: id, Time: time.Now().Add(-time.Minute), By: "alice", Target: "gone", Process: target.Identity{PID: pid, Start: start}, Boot: strings.TrimSpace(string(boot)),
			Action: set.action, Setting: set.name, To: to, Until: time.Now().Add(-time.Second), Reason: "r",
		}
	}
	done, cut, never := entry("done", settingOf("shed"), 30), entry("cut", settingOf("gcpercent"), 30), entry("never", settingOf("memorylimit"), math.MaxInt64)
	for _, w := range []*write{done, cut} {
		e, err := c.Do(t.Context(), memguard.Order{Action: w.Action, To: w.To, Reason: "r", By: by(w), TTL: time.Hour})
		require.NoError(t, err)
		require.NoError(t, j.append(line{Begin: w}))
		if w == done {
			require.NoError(t, j.append(line{End: &outcome{ID: w.ID, Seq: e.Seq, Code: http.StatusOK}}))
		}
	}
	require.NoError(t, j.append(line{Begin: never}))
	dead := entry("dead", settingOf("shed"), 1)
	dead.Process.Start++
	require.NoError(t, j.append(line{Begin: dead}))
	booted := entry("booted", settingOf("shed"), 1)
	booted.Boot = "another"
	require.NoError(t, j.append(line{Begin: booted}))
	require.NoError(t, j.close())
	require.Len(t, handOf(t, c).Orders, 2)

	s, err := build(dir, nil) // which watches nothing
	require.NoError(t, err)
	go func() { _ = s.Run(t.Context()) }()
	require.Eventually(t, func() bool { return len(handOf(t, c).Orders) == 0 }, time.Minute, 10*time.Millisecond)
	require.Eventually(t, func() bool { return len(s.journal.standing()) == 0 }, time.Minute, 10*time.Millisecond)
}

func startOf(t *testing.T, pid int) uint64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	var start uint64
	_, err = fmt.Sscan(strings.Fields(string(b[strings.LastIndex(string(b), ")")+1:]))[19], &start)
	require.NoError(t, err)
	lives, known := alive(target.Identity{PID: pid, Start: start})
	require.True(t, lives && known)
	return start
}

// A guard that hangs does not hold up the sidecar, and what became of the write is
// found out later.
func TestAGuardThatHangs(t *testing.T) {
	t.Parallel()
	cmd := service(t, "whole")
	other := service(t, "whole")
	r := beside(t, cmd.Process.Pid, other.Process.Pid)
	r.patience = 500 * time.Millisecond
	c := r.handed("app")
	r.handed("app1")
	require.NoError(t, cmd.Process.Signal(syscall.SIGSTOP))
	hung := make(chan *answered, 1)
	go func() {
		a, _ := send(r.url, alice, "PUT", at+"/runtimes/app/gcpercent", `{"to":50,"reason":"r"}`)
		hung <- a
	}()
	assert.Equal(t, 200, r.ask(alice, "PUT", at+"/runtimes/app1/gcpercent", `{"to":50,"reason":"r"}`).code, "others are served")
	a := <-hung
	require.NotNil(t, a)
	r.refused(a, 504, "Timeout", "did not answer")
	require.NoError(t, cmd.Process.Signal(syscall.SIGCONT))
	require.Eventually(t, func() bool {
		return len(handOf(t, c).Orders) == len(r.ask(alice, "GET", at+"/runtimes/app/overrides", "").json["items"].([]any))
	}, time.Minute, 50*time.Millisecond)
}
