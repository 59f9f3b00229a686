// SPDX-License-Identifier: Apache-2.0

package page

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// views are all that the page has.
var views = []string{"#/t/orders/findings", "#/t/orders/ledger", "#/t/orders/goroutines", "#/t/orders/classes", "#/t/orders/events", "#/t/orders/sources", "#/t/orders/control", "#/incidents", "#/incidents/20261122T024500Z-orders-4711", "#/events"}

// shown is true once a view has what it shows.
const shown = `document.getElementById("state").textContent === "live" && document.querySelector("main h1")?.textContent && !document.querySelector(".lead.soft") && (document.querySelector("tbody tr") || document.querySelector(".finding"))`

// goTo changes the view, as a link does.
func (b *browser) goTo(view string) {
	b.t.Helper()
	js[bool](b, fmt.Sprintf(`location.hash = %q, true`, view))
	b.until(shown, soon)
	time.Sleep(100 * time.Millisecond)
}

// unnamed finds what a screen reader could not tell: controls, pictures and
// regions without a name, ids that are there twice or point nowhere, a table
// without heads, levels of headings that are left out.
const unnamed = `(() => {
	const bad = [], seen = new Map(), visible = e => e.checkVisibility({ visibilityProperty: true });
	const name = e => (e.getAttribute("aria-label") || (e.getAttribute("aria-labelledby") || "").split(" ").map(i => document.getElementById(i)?.textContent || "").join(" ") ||
		[...(e.labels || [])].map(l => l.textContent).join(" ") || e.textContent || e.getAttribute("title") || "").trim();
	for (const e of document.querySelectorAll("*")) {
		if (e.id) seen.set(e.id, (seen.get(e.id) || 0) + 1);
		if (!visible(e)) continue;
		if (e.matches("a[href], button, input, select, summary, [role=tab], [role=img], [role=tabpanel], nav, dialog") && !name(e)) bad.push("no name: " + e.outerHTML.slice(0, 120));
		for (const a of ["aria-labelledby", "aria-controls", "aria-describedby", "for"]) for (const id of (e.getAttribute(a) || "").split(" ").filter(Boolean)) if (!document.getElementById(id)) bad.push(a + " points nowhere: " + id);
		if (e.tagName === "TABLE" && !(e.caption?.textContent && e.querySelector("th[scope=col], th[scope=row]"))) bad.push("a table without caption or heads");
		if (e.tagName === "svg" && !e.closest("[aria-hidden=true]") && e.getAttribute("role") !== "img") bad.push("an svg that is neither picture nor hidden");
		if (e.matches("a[href], button, input, select") && e.tabIndex < 0 && e.getAttribute("role") !== "tab") bad.push("out of reach: " + e.outerHTML.slice(0, 120));
	}
	for (const [id, n] of seen) if (n > 1) bad.push("id twice: " + id);
	const levels = [...document.querySelectorAll("h1, h2, h3, h4")].filter(visible).map(e => Number(e.tagName[1]));
	if (levels.filter(l => l === 1).length !== 1) bad.push("not one h1");
	levels.forEach((l, i) => { if (i && l > levels[i - 1] + 1) bad.push("h" + levels[i - 1] + " then h" + l); });
	for (const s of ["main", "header", "nav[aria-label]", "[role=status]", "[role=alert]"]) if (!document.querySelector(s)) bad.push("none: " + s);
	if (!document.documentElement.lang || !document.title) bad.push("no language or title");
	return bad;
})()`

// faint finds text whose contrast is below what WCAG 2.2 asks for (1.4.3): 4.5, and
// 3 for large text. Colours are read as they are drawn.
const faint = `(() => {
	const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
	const rgb = c => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); const d = canvas.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255]; };
	const light = c => { const f = c.slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
	const over = (a, b) => a.slice(0, 3).map((v, i) => v * a[3] + b[i] * (1 - a[3])).concat(1);
	const behind = e => { const layers = []; for (let n = e; n; n = n.parentElement) { const c = rgb(getComputedStyle(n).backgroundColor); if (c[3]) layers.push(c); if (c[3] === 1) break; } return layers.reverse().reduce((a, c) => over(c, a), [255, 255, 255, 1]); };
	const bad = new Set(), walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walk.nextNode()) {
		const e = walk.currentNode.parentElement, s = getComputedStyle(e), box = e.getBoundingClientRect();
		if (!walk.currentNode.data.trim() || !e.checkVisibility({ visibilityProperty: true }) || e.closest(".away, .skip, noscript, :disabled, title") || !box.width) continue;
		const back = behind(e), text = over(rgb(e instanceof SVGElement ? s.fill : s.color), back);
		const [a, b] = [light(text), light(back)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05), size = parseFloat(s.fontSize);
		if (ratio < (size >= 24 || size >= 18.66 && s.fontWeight >= 700 ? 3 : 4.5)) bad.add(ratio.toFixed(2) + ": " + e.tagName + "." + e.getAttribute("class") + " " + walk.currentNode.data.trim().slice(0, 40));
	}
	return [...bad];
})()`

func TestEveryViewCanBeReadByEverybody(t *testing.T) {
	_, b := fresh(t, "")
	for _, view := range views {
		b.media("prefers-color-scheme", "light")
		b.goTo(view)
		assert.Empty(t, js[[]string](b, unnamed), view)
		assert.Empty(t, js[[]string](b, faint), "light "+view)
		b.media("prefers-color-scheme", "dark")
		assert.Empty(t, js[[]string](b, faint), "dark "+view)
	}
	assert.Empty(t, b.heard())
}

// The checks find what they are for.
func TestTheChecksThemselves(t *testing.T) {
	_, b := fresh(t, "")
	b.goTo("#/incidents")
	js[bool](b, `(m => { const e = document.createElement("button"); e.id = "main"; m.append(e); const p = document.createElement("p"); p.textContent = "faint"; p.style.color = "#888"; p.style.background = "#777"; m.append(p); const h = document.createElement("h4"); h.textContent = "deep"; m.append(h); return true; })(document.querySelector("main"))`)
	assert.Len(t, js[[]string](b, unnamed), 3)
	assert.Len(t, js[[]string](b, faint), 1)
	// So does the policy: text is not made into HTML, nor styled inline, nor is
	// anything fetched from elsewhere, and the browser says so.
	assert.Equal(t, "TypeError", js[string](b, `(() => { try { document.querySelector("main").innerHTML = "<b>x</b>"; return "done"; } catch (e) { return e.name; } })()`))
	js[bool](b, `document.querySelector("main").setAttribute("style", "color: red"), fetch("https://elsewhere.invalid/").then(() => false, () => true)`)
	assert.Eventually(t, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.complaints) >= 3
	}, soon, 50*time.Millisecond)
	said := strings.Join(b.heard(), "\n")
	for _, want := range []string{"TrustedHTML", "inline style", "elsewhere.invalid"} {
		assert.Contains(t, said, want)
	}
}

func TestEveryViewFitsAPhone(t *testing.T) {
	f, b := fresh(t, "")
	wide := `[...document.querySelectorAll("main *, header *, nav *")].filter(e => e.checkVisibility() && !e.closest(".wide, .away, svg, select, pre") && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 90))`
	for _, width := range []int64{390, 320} {
		b.size(width, 844)
		for _, view := range append([]string{"#/"}, views...) {
			b.goTo(view)
			assert.LessOrEqual(t, js[int64](b, `document.documentElement.scrollWidth`), width, view)
			assert.Empty(t, js[[]string](b, wide), view)
		}
	}
	b.size(390, 844)
	// The list and what is chosen from it are two screens.
	b.open(f.URL + "/#/")
	b.until(`document.querySelector("#target-list li a")?.checkVisibility()`, soon)
	assert.False(t, js[bool](b, `document.querySelector("main").checkVisibility()`))
	b.shot("phone-list")
	b.click("#target-list li:first-child a")
	b.until(drawn, soon)
	assert.False(t, js[bool](b, `document.querySelector("#target-list").checkVisibility()`))
	small := `[...document.querySelectorAll("button, select, .tabs button")].filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 24).length` // WCAG 2.2, 2.5.8
	assert.Zero(t, js[int](b, small))
	b.shot("phone")
	b.click(".back")
	b.until(`document.querySelector("#target-list").checkVisibility()`, soon)
	assert.Empty(t, b.heard())
}

func TestThemeFollowsTheSystemUnlessToldOtherwise(t *testing.T) {
	f, b := fresh(t, "")
	b.until(drawn, soon)
	dark := func() bool {
		return js[bool](b, `getComputedStyle(document.body).backgroundColor === "rgb(19, 21, 24)"`)
	}
	b.media("prefers-color-scheme", "light")
	assert.False(t, dark())
	b.media("prefers-color-scheme", "dark")
	assert.True(t, dark())
	b.click("#theme")
	assert.Equal(t, "Theme: light", b.text("#theme"))
	assert.False(t, dark())
	b.open(f.URL + "/#/events")
	b.do(nav("about:blank"))
	b.open(f.URL)
	b.until(drawn, soon)
	assert.Equal(t, "Theme: light", b.text("#theme"), "it is remembered")
	b.click("#theme")
	assert.True(t, dark())
	b.click("#theme")
	b.media("prefers-color-scheme", "light")
	assert.Equal(t, "Theme: auto", b.text("#theme"))
	assert.False(t, dark())
}

func TestNothingMovesForWhoDoesNotWantThat(t *testing.T) {
	_, b := fresh(t, "")
	b.until(drawn, soon)
	moving := `[...document.querySelectorAll("*")].filter(e => getComputedStyle(e).transitionDuration.split(", ").some(d => parseFloat(d) > 0) || parseFloat(getComputedStyle(e).animationDuration) > 0).length`
	b.media("prefers-reduced-motion", "no-preference")
	assert.Positive(t, js[int](b, moving))
	b.media("prefers-reduced-motion", "reduce")
	assert.Zero(t, js[int](b, moving))
}
