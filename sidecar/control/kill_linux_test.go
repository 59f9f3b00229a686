// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/memguard/memguard-go/memguard"
	"github.com/memguard/memguard-go/memguard/agent"
	"github.com/memguard/memguard-go/sidecar/audit"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var writeID = regexp.MustCompile(`\[([0-9a-f-]{36})\]`)

// The sidecar is killed again and again while it writes. Whatever was done in the
// service was on record before, whatever was answered is in the journal's answer to
// the same key, and in the end no override is left.
func TestKilledWhileWriting(t *testing.T) {
	t.Parallel()
	pid := service(t, "whole").Process.Pid
	c, err := agent.Dial(pid)
	require.NoError(t, err)
	defer c.Close()
	before := handOf(t, c)
	dir := shortDir(t)
	var seen uint64              // events of the guard
	done := map[string]string{}  // id of a write: what the guard did of it
	first := map[string][]byte{} // answers by key
	gather := func() {
		es, err := c.Events(t.Context(), seen, 0)
		require.NoError(t, err)
		for _, e := range es {
			require.LessOrEqual(t, e.Seq, seen+1, "none of its events may be missed here")
			seen = e.Seq
			if id := writeID.FindStringSubmatch(e.Action.By); id != nil {
				done[id[1]] += fmt.Sprintf("%s %s; ", e.Kind, e.Action.Name)
			}
		}
	}
	kills, cut := 20, 0
	for round := range kills {
		cmd, url := child(t, fmt.Sprintf("sidecar %s %d", dir, pid))
		require.True(t, strings.HasPrefix(url, "http://"), url)
		require.Eventually(t, func() bool { // it has found the agent
			a, err := send(url, alice, "PUT", at+"/runtimes/app/shed?dryRun=All", `{"to":1,"reason":"r"}`)
			require.NoError(t, err)
			return a.code == 200
		}, time.Minute, 5*time.Millisecond)
		var all sync.WaitGroup
		var mu sync.Mutex
		for writer, w := range []struct{ method, path, body string }{
			{"PUT", "gcpercent", `{"to":%d,"reason":"r","ttl":"1s"}`},
			{"PUT", "shed", `{"to":%d,"reason":"r","ttl":"1s"}`},
			{"PUT", "memorylimit", `{"to":85899345%02d,"reason":"r","ttl":"1s"}`},
			{"DELETE", "shed", `{"reason":"r %d"}`},
		} {
			all.Go(func() {
				for i := 1; ; i++ {
					key := fmt.Sprintf("%d-%d-%d", round, writer, i)
					a, err := send(url, alice, w.method, at+"/runtimes/app/"+w.path, fmt.Sprintf(w.body, i%90+1), "Idempotency-Key", key)
					mu.Lock()
					if err != nil {
						cut++
						mu.Unlock()
						return
					}
					if a.code == 200 {
						first[w.method+" "+w.path+" "+fmt.Sprintf(w.body, i%90+1)+" "+key] = a.body
					}
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond) // any moment will do
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
		all.Wait()
		gather()
	}
	require.NotEmpty(t, done)
	require.NotEmpty(t, first)
	t.Logf("%d kills, %d requests cut off, %d answered, %d writes seen in the service", kills, cut, len(first), len(done))

	gather()
	recorded := map[string]bool{}
	for _, e := range audited(t, dir, "") {
		if e.Stage == audit.StageRequestReceived {
			recorded[e.AuditID] = true
		}
	}
	for id, what := range done {
		assert.True(t, recorded[id], "%s was done and is not on record: %s", id, what)
	}

	// The next one knows what stands, gives the first answers again, and in the end
	// nothing stands any more.
	r := besideIn(t, dir, pid)
	r.handed("app")
	n := 0
	for request, body := range first {
		if n++; n > 20 {
			break
		}
		part := strings.SplitN(request, " ", 3)
		i := strings.LastIndex(part[2], " ")
		a := r.ask(alice, part[0], at+"/runtimes/app/"+part[1], part[2][:i], "Idempotency-Key", part[2][i+1:])
		assert.Equal(t, 200, a.code, "%s", a.body)
		assert.JSONEq(t, string(body), string(a.body))
		assert.Equal(t, "true", a.header.Get("Idempotent-Replayed"))
	}
	require.Eventually(t, func() bool { return len(handOf(t, c).Orders) == 0 }, time.Minute, 10*time.Millisecond)
	require.Eventually(t, func() bool { return len(r.journal.standing()) == 0 }, time.Minute, 10*time.Millisecond)
	after := handOf(t, c)
	assert.Equal(t, before.Wanted.GCPercent, after.Wanted.GCPercent)
	assert.Equal(t, before.Shed.Refusing, after.Shed.Refusing)
}

// A sidecar that is killed while an override stands leaves it to the next one, which
// lists it and can take it back.
func TestOverrideOutlivesTheSidecar(t *testing.T) {
	t.Parallel()
	pid := service(t, "whole").Process.Pid
	dir := shortDir(t)
	cmd, url := child(t, fmt.Sprintf("sidecar %s %d", dir, pid))
	var set *answered
	require.Eventually(t, func() bool {
		var err error
		set, err = send(url, alice, "PUT", at+"/runtimes/app/breaker", `{"to":"open","reason":"r","ttl":"1h"}`)
		require.NoError(t, err)
		return set.code == 200
	}, time.Minute, 5*time.Millisecond)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()

	r := besideIn(t, dir, pid)
	c := r.handed("app")
	assert.Equal(t, "open", handOf(t, c).MemoryBreaker)
	items := r.ask(bob, "GET", at+"/runtimes/app/overrides", "").json["items"].([]any)
	require.Len(t, items, 1)
	assert.Equal(t, set.header.Get("Audit-Id"), items[0].(map[string]any)["id"])
	assert.Equal(t, "standing", items[0].(map[string]any)["state"])
	a := r.ask(alice, "DELETE", at+"/runtimes/app/breaker", `{"reason":"r"}`)
	require.Equal(t, 200, a.code, "%s", a.body)
	assert.Equal(t, "closed", handOf(t, c).MemoryBreaker)

	// One that somebody else takes back is known to be over.
	require.Equal(t, 200, r.ask(alice, "PUT", at+"/runtimes/app/shed", `{"to":9,"reason":"r"}`).code)
	_, err := c.Undo(t.Context(), handOf(t, c).Orders[0].Seq, "somebody else", "r")
	require.NoError(t, err)
	assert.Empty(t, r.ask(bob, "GET", at+"/runtimes/app/overrides", "").json["items"])
	_, err = c.Do(t.Context(), memguard.Order{Action: memguard.ShedLoad, To: 3, Reason: "r", By: "somebody else"})
	require.NoError(t, err)
	r.refused(r.ask(alice, "DELETE", at+"/runtimes/app/shed", `{"reason":"r"}`), 404, "NotFound", "no override of shed")
	assert.Equal(t, 3, handOf(t, c).Shed.Refusing, "what is somebody else's is not taken back")
}
