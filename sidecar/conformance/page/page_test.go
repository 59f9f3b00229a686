// SPDX-License-Identifier: Apache-2.0

package page

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
)

const soon = 20 * time.Second

// drawn is true once the plot of a target has areas.
const drawn = `document.querySelectorAll(".area[d^=M]").length > 5`

// text is the text of the elements that a selector finds, one to a line.
func (b *browser) text(selector string) string {
	b.t.Helper()
	return js[string](b, fmt.Sprintf(`[...document.querySelectorAll(%q)].map(e => e.innerText).join("\n")`, selector))
}

func (b *browser) click(selector string) {
	b.t.Helper()
	js[bool](b, fmt.Sprintf(`document.querySelector(%q).click(), true`, selector))
}

// active describes the element that has the focus.
func (b *browser) active() string {
	b.t.Helper()
	return js[string](b, `(e => e.id || e.getAttribute("aria-label") || e.innerText || e.tagName)(document.activeElement)`)
}

// fresh is a fixture with the story, and a tab on it.
func fresh(t *testing.T, at string) (*fixture, *browser) {
	f := newFixture(t)
	f.story()
	b := newBrowser(t)
	b.open(f.URL + "/" + at)
	return f, b
}

func TestPlotShowsAreasLimitAndWhatHappened(t *testing.T) {
	_, b := fresh(t, "")
	b.until(drawn+` && document.querySelector(".draw .mark.m-kill")`, soon)
	assert.Equal(t, "orders", b.text("h1"), "the one that needs looking at comes first")
	assert.Contains(t, b.text(".lead"), "reaches the limit of 512 MiB")
	assert.Contains(t, b.text(".figures"), "25 s", "the time left")
	assert.Equal(t, len(ledgerNames), js[int](b, `document.querySelectorAll(".area[d^=M]:not(.row-rest)").length`))
	assert.Equal(t, 2, js[int](b, `document.querySelector(".row-live").getAttribute("d").split("M").length - 1`), "one area for each life")
	// The limit is where the axis says 512 MiB, and nothing is above it.
	assert.True(t, js[bool](b, `(limit => {
		const y = Number(/M[\d.]+,([\d.]+)/.exec(limit.getAttribute("d"))[1]), labels = [...document.querySelectorAll(".draw .y")].map(t => [parseFloat(t.textContent), Number(t.getAttribute("y")) - 4]);
		const [a, b] = labels.slice(-2), at = a[1] + (512 - a[0]) * (b[1] - a[1]) / (b[0] - a[0]);
		return Math.abs(at - y) < 1.5;
	})(document.querySelector(".limitline"))`))
	assert.Equal(t, 1, js[int](b, `document.querySelectorAll(".draw .mark.m-kill").length`))
	assert.Equal(t, 0, js[int](b, `document.querySelectorAll(".draw .mark.m-ended").length`), "a kill is not told twice")
	assert.Equal(t, 4, js[int](b, `document.querySelectorAll(".draw .mark.m-finding").length`))
	assert.Equal(t, 2, js[int](b, `document.querySelectorAll(".draw .mark.m-action").length`))
	assert.Contains(t, b.text(".legend"), "go/heap/live")
	b.shot("light")
	b.media("prefers-color-scheme", "dark")
	b.shot("dark")
	assert.Empty(t, b.heard())
}

func TestPlotHasTablesInItsPlace(t *testing.T) {
	_, b := fresh(t, "")
	b.until(drawn, soon)
	b.click(".below summary")
	b.until(`document.querySelectorAll(".below tbody tr").length > 20`, soon)
	assert.Contains(t, b.text(".below"), "killed")
	assert.Contains(t, b.text(".below"), "go/heap/live")
	assert.LessOrEqual(t, js[int](b, `document.querySelectorAll(".below tbody tr").length`), 120)
	label := js[string](b, `document.getElementById(document.querySelector(".draw svg").getAttribute("aria-labelledby")).textContent`)
	assert.Regexp(t, `over \d+ min.*: now 43\d MiB of 512 MiB, at most \d+ MiB; 7 marks`, label)
	assert.Empty(t, b.heard())
}

func TestPanelsTellWhatIsKnown(t *testing.T) {
	_, b := fresh(t, "")
	b.until(drawn, soon)
	for tab, want := range map[string][]string{
		"findings":   {"oom-forecast", "undroppable 459 MiB", "What to do: Take a heap and a goroutine profile now", "goroutine-leak"},
		"ledger":     {"go/heap/live", "not marked by the last cycle", "lazyfree", "unknown", "/kubepods.slice", "process/4790"},
		"goroutines": {"3,204", "example.test/shop/orders.(*Reserve).wait", "reserve.go:88", "go in example.test/shop/orders.(*Service).Create"},
		"classes":    {"64 B", "830,500", "large"},
		"events":     {"oom-forecast (critical)", "pid 4790 runs /app/orders"},
		"sources":    {"exit-hold", "failed", "needs CAP_SYS_ADMIN", "pagecache/active"},
		"control":    {"gcpercent", "in 9 min", "system:serviceaccount:shop:governor", "half-open", "20,311 admitted"},
	} {
		b.click("#tab-" + tab)
		b.until(`!document.getElementById("panel-`+tab+`").hidden`, soon)
		time.Sleep(50 * time.Millisecond)
		got := b.text("#panel-" + tab)
		for _, w := range want {
			assert.Contains(t, got, w, tab)
		}
		b.shot("tab-" + tab)
	}
	b.click("#tab-goroutines")
	b.click("#panel-goroutines summary")
	b.until(`document.querySelector("#panel-goroutines .stack").innerText.includes("runtime.chanrecv1")`, soon)
	assert.Empty(t, b.heard())
}

func TestWhatIsUnknownIsNotZero(t *testing.T) {
	_, b := fresh(t, "#/t/cache")
	b.until(`document.querySelectorAll(".area[d^=M]").length > 1`, soon)
	assert.Contains(t, b.text(".figures"), "Cannot be dropped\nunknown")
	assert.Contains(t, b.text(".figures"), "limit unknown")
	assert.NotContains(t, b.text(".figures"), "Go heap", "it is no Go program")
	assert.Regexp(t, `libc\s+unknown`, b.text(".legend"))
	assert.Regexp(t, `limit\s+unknown`, b.text(".legend"))
	b.click("#tab-ledger")
	assert.Regexp(t, `residual\s+unknown`, b.text("#panel-ledger"))
	b.click("#tab-goroutines")
	assert.Contains(t, b.text("#panel-goroutines"), "attach is off, not a Go program")
	b.open(js[string](b, "location.origin") + "/#/t/payments")
	b.until(`document.querySelector(".lead").textContent.startsWith("No process matches")`, soon)
	b.open(js[string](b, "location.origin") + "/#/t/nobody")
	b.until(`document.querySelector(".lead").textContent.includes("there is no target of that name")`, soon)
}

func TestIncidentOpens(t *testing.T) {
	_, b := fresh(t, "#/incidents")
	b.until(`document.querySelector("tbody td a")`, soon)
	assert.Contains(t, b.text("tbody"), "oom-kill")
	b.shot("incidents")
	b.click("tbody td a")
	b.until(drawn, soon)
	got := b.text("main")
	for _, want := range []string{
		"orders: oom-kill", "Killed by the kernel at the limit of its container", "SIGKILL", "oom_kill of the process's own cgroup rose from 0 to 1",
		"171 MiB", "example.test/shop/orders.(*Service).Create", "reserve.go:88", "go/heap/live", "oom-forecast", "0 → 1", "orders-7c9d8b-x2x5k", "heap.pb.gz", "warehouse slow", "1204 records",
	} {
		assert.Contains(t, got, want)
	}
	assert.Equal(t, 1, js[int](b, `document.querySelectorAll(".draw .mark.m-kill").length`))
	assert.Equal(t, "orders: oom-kill", b.active(), "who cannot see the page hears that it is another")
	b.shot("incident")
	b.click(".tools button")
	b.until(`performance.getEntriesByType("resource").some(e => e.name.endsWith("-4711?format=html"))`, soon)
	b.until(`document.querySelector(".tools button").textContent === "Save as HTML"`, soon)
	js[bool](b, `history.back(), true`)
	b.until(`document.querySelector("h1").textContent === "Incidents"`, soon)
	b.open(js[string](b, "location.origin") + "/#/incidents/none")
	b.until(`document.querySelector(".lead")?.textContent.includes("there is no target")`, soon)
	assert.Len(t, b.heard(), 1, "the 404 that was asked for")
}

func TestKeyboardReachesEverything(t *testing.T) {
	_, b := fresh(t, "")
	b.until(drawn, soon)
	b.keys(kb.Tab)
	assert.Equal(t, "skip", b.active())
	assert.GreaterOrEqual(t, js[float64](b, `document.getElementById("skip").getBoundingClientRect().top`), 0.0, "the skip link is seen when it has the focus")
	b.keys(kb.Enter)
	assert.Equal(t, "main", b.active())
	b.keys(kb.Tab) // the incident
	b.keys(kb.Tab)
	assert.Equal(t, "window", b.active())
	b.keys(kb.Tab)
	assert.Equal(t, "Moment shown", b.active())
	outline := js[string](b, `getComputedStyle(document.activeElement).outlineStyle + getComputedStyle(document.activeElement).outlineWidth`)
	assert.Equal(t, "solid2px", outline)
	now := js[string](b, `document.activeElement.getAttribute("aria-valuetext")`)
	assert.Regexp(t, `\d\d:\d\d:\d\d, 43\d MiB of 512 MiB`, now)
	before := now
	for range 20 {
		if b.keys(kb.ArrowLeft); strings.Contains(before, "oom-forecast (critical)") {
			break
		}
		before = js[string](b, `document.activeElement.getAttribute("aria-valuetext")`)
	}
	assert.Contains(t, before, "oom-forecast (critical)", "a mark that the cursor is at is told")
	before = js[string](b, `document.activeElement.getAttribute("aria-valuetext")`)
	assert.NotEqual(t, now, before)
	time.Sleep(1500 * time.Millisecond) // new data comes in
	assert.Equal(t, before, js[string](b, `document.activeElement.getAttribute("aria-valuetext")`), "it stays where it was put")
	b.keys(kb.Tab) // this plot as tables
	b.keys(kb.Tab)
	assert.Equal(t, "tab-findings", b.active())
	for _, want := range []string{"tab-ledger", "tab-goroutines"} {
		b.keys(kb.ArrowRight)
		assert.Equal(t, want, b.active())
	}
	assert.True(t, js[bool](b, `!document.getElementById("panel-goroutines").hidden && location.hash === "#/t/orders/goroutines"`))
	b.keys(kb.End)
	assert.Equal(t, "tab-control", b.active())
	b.keys(kb.ArrowRight)
	assert.Equal(t, "tab-findings", b.active())
	b.keys(kb.ArrowLeft)
	b.keys(kb.ArrowLeft)
	b.keys(kb.ArrowLeft)
	b.keys(kb.ArrowLeft)
	b.keys(kb.ArrowLeft)
	assert.Equal(t, "tab-goroutines", b.active())
	b.keys(kb.Tab)
	assert.Equal(t, "panel-goroutines", b.active())
	b.keys(kb.Tab)
	assert.Contains(t, b.active(), "orders.(*Reserve).wait")
	b.keys(kb.Enter)
	assert.True(t, js[bool](b, `document.activeElement.parentElement.open`))
	time.Sleep(1500 * time.Millisecond)
	assert.True(t, js[bool](b, `document.activeElement.parentElement.open && document.activeElement.tagName === "SUMMARY"`), "new data takes neither the focus nor what is open")
	assert.Empty(t, b.heard())
}

func TestTokenIsAskedForAndKeptInTheTab(t *testing.T) {
	f := newFixture(t)
	f.story()
	f.token = "s3cret"
	b := newBrowser(t)
	b.open(f.URL)
	b.until(`document.getElementById("ask").open`, soon)
	assert.Contains(t, b.text("#ask"), "say who you are")
	assert.Equal(t, "token", b.active())
	b.shot("token")
	b.keys("wrong" + kb.Enter)
	b.until(`document.getElementById("ask").open && document.getElementById("ask-why").textContent.startsWith("The token was refused")`, soon)
	b.keys("s3cret" + kb.Enter)
	b.until(drawn, soon)
	assert.False(t, js[bool](b, `document.getElementById("ask").open`))
	assert.NotContains(t, js[string](b, `document.documentElement.outerHTML + location.href + document.cookie + JSON.stringify(localStorage)`), "s3cret")
	b.open(f.URL + "/#/events")
	b.until(`document.querySelector("tbody tr")`, soon)
	f.change(func() {
		for _, r := range f.requests {
			assert.NotContains(t, r, "s3cret", "no token in a URL")
		}
	})
	b.click("#forget")
	b.until(`document.getElementById("ask").open && !sessionStorage.length`, soon)
	for _, c := range b.heard() {
		assert.Contains(t, c, "401", "but for the refusals nothing is complained of")
	}
}

func TestSidecarGoesAndComesBack(t *testing.T) {
	f, b := fresh(t, "#/events")
	b.until(`document.querySelectorAll("tbody tr").length === 11`, soon)
	f.change(func() { f.gone = true })
	f.CloseClientConnections()
	b.until(`!document.getElementById("gone").hidden`, soon)
	assert.Regexp(t, `The sidecar is gone since \d\d:\d\d:\d\d: it cannot be reached. What is shown is of \d\d:\d\d:\d\d.`, b.text("#gone-text"))
	assert.Equal(t, "no connection", b.text("#state"))
	assert.Equal(t, 11, js[int](b, `document.querySelectorAll("tbody tr").length`), "what was known is still shown")
	b.shot("gone")
	f.change(func() { f.gone = false })
	f.happens(object{"time": time.Now(), "target": "orders", "pid": 4790, "kind": "source", "text": "while nobody listened"})
	b.click("#again")
	b.until(`document.getElementById("gone").hidden && document.getElementById("state").textContent === "live"`, soon)
	b.until(`document.querySelectorAll("tbody tr").length === 12`, soon)
	assert.Contains(t, b.text("tbody tr:first-child"), "while nobody listened")
	// Another sidecar in its place counts from the beginning.
	f.change(func() { f.events = nil })
	f.happens(object{"time": time.Now(), "target": "orders", "kind": "appeared", "text": "of the new one"})
	f.CloseClientConnections()
	b.until(`document.querySelectorAll("tbody tr").length === 1 && document.querySelector("tbody").innerText.includes("of the new one")`, soon)
}

func TestNewCriticalFindingIsAnnounced(t *testing.T) {
	f, b := fresh(t, "#/incidents")
	b.until(`document.querySelector("tbody td a")`, soon)
	assert.Empty(t, b.text("#alert"), "what was there before the page is not news")
	f.change(func() {
		g := f.targets[1]["guard"].(object)
		g["findings"] = []object{{"id": "oom-kill", "severity": "critical", "since": time.Now(), "summary": "The kernel has killed a process of this cgroup.", "evidence": []object{}, "remedy": ""}}
	})
	b.until(`document.getElementById("alert").textContent.includes("cache: oom-kill. The kernel has killed")`, soon)
	assert.Equal(t, "(2 critical) memguard", js[string](b, "document.title"))
}

// What a target says of itself is text, whatever is in it.
func TestHostileContentStaysText(t *testing.T) {
	f := newFixture(t)
	f.story()
	evil := `"><img src=x onerror="document.title='owned'"><script>document.title='owned'</script>` + "\u202egnp.exe\u0000\x1b[31m" + `javascript:alert(1)`
	long := strings.Repeat("A", 100_000)
	o := f.targets[0]
	p, g := o["process"].(object), o["guard"].(object)
	for _, k := range []string{"command", "exe", "go_version", "cgroup", "build_id"} {
		p[k] = evil + long
	}
	finding := object{"id": evil, "severity": evil, "since": evil, "summary": evil + long, "evidence": []any{object{"name": evil, "value": "NaN", "unit": evil}, nil}, "remedy": evil}
	g["findings"] = []object{finding}
	o["eye"], o["sources"] = evil, []object{{"name": evil, "state": evil, "why": evil + long, "since": evil}}
	g["blind"] = []object{{"what": evil, "why": evil}}
	g["ledger"].(object)["rows"] = []object{{"name": evil, "bytes": -1e300, "why": evil}, {"name": evil, "bytes": nil}}
	stack := []object{}
	for range 400 {
		stack = append(stack, frame(evil, evil, -1))
	}
	clusters := []object{}
	for range 400 {
		clusters = append(clusters, object{"count": 1e18, "state": evil, "start": evil, "created_by": frame(evil, evil, 1), "stack": stack[:1], "longest_ns": -5})
	}
	clusters[0]["stack"] = stack
	o["goroutine_clusters"] = clusters
	o["size_classes"] = []object{{"class": evil, "object_bytes": -1, "bytes": 1e308, "objects": evil, "free_bytes": 1e309 / 10, "tail_bytes": nil, "occupancy": evil}}
	f.timelines["orders"] = object{"rows": []string{evil, "__proto__", "constructor"}, "points": []object{{"time": time.Now().Add(-time.Second), "pid": evil, "usage": 1e300, "limit": -5, "rows": []any{"x", 5, 1e308}}, {"time": time.Now(), "pid": 1, "usage": nil, "limit": nil, "rows": nil}}}
	f.targets = append(f.targets, object{"name": evil, "rule": evil, "state": evil}, object{"name": "__proto__"}, object{"name": nil, "guard": object{}})
	f.happens(object{"time": evil, "target": evil, "kind": evil, "text": evil + long, "incident": "javascript:alert(1)"})
	f.happens(object{"time": time.Now(), "target": "orders", "kind": "guard", "guard": object{"kind": "raised", "finding": finding}, "text": evil})
	id := f.incidents[0]["id"].(string)
	f.incidents = append(f.incidents, object{"id": evil, "target": evil, "cause": evil, "verdict": evil, "time": evil})
	r := f.reports[id]
	r["verdict"], r["stderr"], r["target"], r["why"] = evil, []string{evil, long}, evil, []string{evil}
	r["files"] = []object{{"name": "../../" + evil, "what": evil, "bytes": evil}}
	r["notes"] = []object{{"time": evil, "kind": evil, "name": evil, "text": evil}}
	r["where"] = object{evil: evil}
	b := newBrowser(t)
	elements := func() int { return js[int](b, `document.querySelectorAll("*").length`) }
	for _, at := range []string{"#/t/orders/findings", "#/t/orders/ledger", "#/t/orders/goroutines", "#/t/orders/classes", "#/t/orders/sources", "#/events", "#/incidents", "#/incidents/" + id, "#/t/%22%3E%3Cimg%20src=x", "#/%E0%A4%A"} {
		b.open("about:blank")
		b.open(f.URL + "/" + at)
		b.until(`document.getElementById("state").textContent === "live" && document.querySelector("main h1")`, soon)
		time.Sleep(300 * time.Millisecond)
		assert.Zero(t, js[int](b, `document.querySelectorAll("main img, body script, iframe, object, embed, [onerror], a[href^='javascript:'], base, style").length`), at)
		assert.NotContains(t, js[string](b, `document.title`), "owned", at)
		assert.False(t, js[bool](b, `/[\u0000-\u0008\u000e-\u001f\u202e]/.test(document.body.innerText)`), at)
		assert.Less(t, js[int](b, `document.body.innerText.length`), 400_000, at)
		assert.Less(t, elements(), 20_000, at)
		assert.LessOrEqual(t, js[int](b, `document.documentElement.scrollWidth - innerWidth`), 0, at)
		for _, c := range b.heard() {
			assert.Contains(t, c, "404", at)
		}
	}
	b.open("about:blank")
	b.open(f.URL + "/#/incidents/" + id)
	b.until(`document.querySelector("main").innerText.includes("onerror")`, soon)
	b.shot("hostile")
}

func TestFiftyTargetsAndTenThousandEvents(t *testing.T) {
	f := newFixture(t)
	f.story()
	one := f.targets[0]
	for i := range 50 {
		o := object{}
		for k, v := range one {
			o[k] = v
		}
		o["name"] = fmt.Sprintf("orders-%02d", i)
		if i != 17 {
			g := object{}
			for k, v := range one["guard"].(object) {
				g[k] = v
			}
			g["findings"] = []object{}
			o["guard"] = g
		}
		f.targets = append(f.targets, o)
		f.timelines[o["name"].(string)] = f.timelines["orders"]
	}
	f.targets = f.targets[3:]
	for i := range 10_500 {
		f.events = append(f.events, object{"seq": len(f.events) + 1, "time": time.Now(), "target": fmt.Sprintf("orders-%02d", i%50), "kind": "source", "text": fmt.Sprintf("event %d", i)})
	}
	b := newBrowser(t)
	b.open(f.URL)
	b.until(drawn, soon)
	assert.Equal(t, "orders-17", b.text("h1"), "the one with findings is shown")
	assert.Equal(t, 50, js[int](b, `document.querySelectorAll("#target-list li").length`))
	assert.Contains(t, b.text("#tally"), "50 targets, 1 with findings")
	b.shot("fifty")
	js[bool](b, `(find => { find.value = "-3"; find.dispatchEvent(new Event("input")); return true; })(document.getElementById("find"))`)
	b.until(`document.querySelectorAll("#target-list li").length === 10`, soon)
	b.open(f.URL + "/#/events")
	b.until(`document.querySelector(".note").textContent.startsWith("10,000 events, page 1 of 100")`, soon)
	assert.Equal(t, 100, js[int](b, `document.querySelectorAll("tbody tr").length`))
	assert.Contains(t, b.text(".note"), "older ones are no longer kept")
	assert.Contains(t, b.text("tbody tr:first-child"), "event 10499")
	js[bool](b, `[...document.querySelectorAll("button")].find(b => b.textContent === "Older").click(), true`)
	b.until(`document.querySelector("tbody tr").innerText.includes("event 10399")`, soon)
	js[bool](b, `[...document.querySelectorAll("button")].find(b => b.textContent === "Newer").click(), true`)
	js[bool](b, `[...document.querySelectorAll("button")].find(b => b.textContent === "Hold still").click(), true`)
	f.happens(object{"time": time.Now(), "target": "orders-01", "kind": "source", "text": "the last one"})
	b.until(`document.querySelector(".note").textContent.includes("held still, 1 new")`, soon)
	assert.Contains(t, b.text("tbody tr:first-child"), "event 10499")
	js[bool](b, `[...document.querySelectorAll("button")].find(b => b.textContent === "Go on").click(), true`)
	b.until(`document.querySelector("tbody tr").innerText.includes("the last one")`, soon)
	assert.Less(t, js[int](b, `document.querySelectorAll("*").length`), 2500)
	assert.Less(t, js[float64](b, `performance.getEntriesByType("resource").filter(e => e.name.includes("/apis/")).length`), 60.0, "it does not ask more than it has to")
	assert.Empty(t, b.heard())
}
