// One target: how it is, its memory over time, and what is known of it in tabs.

import { h, attr, set, show, sync, table, tabs, clean, items } from "./dom.js";
import { mib, percent, count, duration, when, clock, fact, known } from "./units.js";
import { Plot } from "./plot.js";
import { Events } from "./events.js";
import { ledgerTable, ledgerRows, clusterTable, clusterKey, classTable, classRows, pairs } from "./tables.js";
import { serverNow } from "./api.js";

const MOST_POINTS = 20_000; // of a timeline, kept
const SAME = 5; // ms: nearer to each other are no two looks, but one whose time was told twice
const MOST_ROWS = 100; // of any table here

const severities = ["critical", "warning", "info"];
const severe = s => severities.includes(s) ? s : "info";

export const findingsOf = t => items(t?.guard?.findings);

// worst is the gravest severity among a target's findings, null without one.
export const worst = t => severities.find(s => findingsOf(t).some(f => severe(f?.severity) === s)) ?? null;

// memory is what a target uses and may use: its cgroup's, or its own.
export function memory(t) {
  const l = t?.guard?.ledger, c = l?.cgroup;
  if (c) return { usage: c.usage, limit: c.limit, unlimited: c.unlimited === true, held: t.guard.cgroup_undroppable };
  return { usage: l?.rss ?? null, limit: null, unlimited: false, held: null };
}

// says is a target in one line.
export function says(t) {
  if (t.state === "waiting" || !t.guard) return "waiting: no process matches";
  const f = findingsOf(t).find(f => severe(f.severity) !== "info");
  if (f) return `${f.id}: ${f.summary}`;
  return "nothing wrong found";
}

// meter is a bar of usage against the limit; the darker part is what the kernel
// cannot drop.
export function meter(el, t) {
  const m = memory(t), share = n => known(n) && known(m.limit) && m.limit > 0 ? Math.min(100 * n / m.limit, 100) : 0;
  if (!el.firstChild) el.append(h("i"), h("i", { class: "held" }));
  attr(el, "class", "meter " + (worst(t) ?? ""));
  el.firstChild.style.width = share(m.usage) + "%";
  el.lastChild.style.width = share(m.held ?? m.usage) + "%";
  el.style.visibility = known(m.limit) ? "" : "hidden";
}

// grown adds to a timeline what is new in an answer (incident.Timeline). Its rows
// may change as a target gets other eyes: points are kept by the rows' names.
export function grown(t, answer) {
  const names = items(answer?.rows).slice(0, MOST_ROWS).map(n => clean(n, 80));
  if (names.some(n => !t.rows.includes(n))) {
    const rows = [...names, ...t.rows.filter(n => !names.includes(n))].slice(0, 2 * MOST_ROWS), from = rows.map(n => t.rows.indexOf(n));
    for (const p of t.points) p.rows = from.map(i => i < 0 ? null : p.rows[i]);
    t.rows = rows;
  }
  const at = t.rows.map(n => names.indexOf(n));
  let last = t.points[t.points.length - 1]?.t ?? 0;
  for (const p of items(answer?.points)) {
    const ms = when(p?.time);
    if (ms === null || ms < last + SAME) continue;
    last = ms;
    const limit = known(p.limit) && p.limit < 2 ** 62 ? p.limit : null;
    t.points.push({ t: ms, time: p.time, pid: p.pid, usage: p.usage, limit, unlimited: known(p.limit) && limit === null, rows: at.map(i => i < 0 ? null : p.rows?.[i] ?? null) });
  }
  if (t.points.length > MOST_POINTS) t.points.splice(0, t.points.length - MOST_POINTS);
  return t;
}

// findings fills a list with findings.
export function findings(el, list) {
  sync(el, list.slice(0, MOST_ROWS), f => f.id,
    () => h("section", { class: "finding" },
      h("div", { class: "id" }, h("span"), h("small")),
      h("div", null, h("p"), h("ul"), h("p", null, h("span", { class: "do" }, "What to do: "), h("span")))),
    (sec, f) => {
      const [id, body] = sec.children, since = when(f.since);
      attr(id, "class", "id " + severe(f.severity));
      set(id.firstChild, f.id);
      set(id.lastChild, severe(f.severity) + (since ? ", for " + duration(Math.max((serverNow() - since) / 1000, 0)) : ""));
      set(body.children[0], f.summary);
      sync(body.children[1], items(f.evidence).slice(0, 30), e => e.name, () => h("li"), (li, e) => set(li, e.name + " " + (fact(e) ?? "unknown")));
      set(body.children[2].lastChild, f.remedy, 2000);
      body.children[2].hidden = !f.remedy;
    });
}

const setting = { percent: n => known(n) ? n < 0 ? "off" : n + " %" : null, limit: n => known(n) ? n > 2 ** 62 ? "none" : mib(n) : null };

// hand says what a guard in the service does, as pairs.
function hand(g) {
  const x = g.hand;
  if (!x) return [];
  const both = (a, b, f) => f(a) === f(b) ? f(a) : `${f(a)}, was ${f(b)}`;
  const out = [
    ["GC percent", both(x.wanted?.gc_percent, x.baseline?.gc_percent, setting.percent) + (x.why ? ": " + x.why : "")],
    ["Go memory limit", both(x.wanted?.memory_limit, x.baseline?.memory_limit, setting.limit) + (x.why_limit ? ": " + x.why_limit : "")],
    ["Breaker", x.breaker || "none"],
    ["Giving memory back", `grade ${x.release_grade}; ${x.releases?.ended ?? 0} releases gained ${mib(x.releases?.gained_bytes) ?? "unknown"} in ${duration(x.releases?.took_seconds) ?? "unknown"}`],
    ["Settings changed", `${x.setting_changes} times; ${x.breaker_clamps} breaker proposals clamped`],
  ];
  if (x.dry_run) out.unshift(["Dry run", "it plans, and does nothing"]);
  if (x.spiral) out.unshift(["Spiral", "collecting harder helps no longer"]);
  const s = x.shed;
  if (s) {
    out.push(["Admission", s.blind ? "cannot see the limit" : !s.limited ? "no limit: all work is admitted" : `${mib(s.held)} held of ${mib(s.budget)}, ${s.waiting} waiting` + (s.braking ? ", braking" : "")]);
    for (const r of items(s.routes).slice(0, 20))
      out.push([r.route || "any route", `${count(r.admitted)} admitted, ${count(r.refused)} refused, ${count(r.in_flight)} in flight, ${mib(r.cost)} each`]);
  }
  return out;
}

const TABS = [["findings", "Findings"], ["ledger", "Ledger"], ["goroutines", "Goroutines"], ["classes", "Size classes"], ["events", "Events"], ["sources", "Sources"], ["control", "Control"]];

export class Target {
  constructor() {
    this.title = h("h1", { tabindex: "-1" });
    this.lead = h("p", { class: "lead" });
    this.facts = h("p", { class: "facts" });
    this.past = h("p", { class: "past" }, "Last incident: ", h("a"));
    this.figures = h("dl", { class: "figures" });
    this.plot = new Plot();
    this.tabs = tabs("What is known of this target", TABS, id => this.chosen(id));
    this.first = new Map(); // counts when this life was first shown

    const p = this.tabs.panels;
    this.findings = h("div");
    this.noFindings = h("p", { class: "empty" }, "Nothing wrong found.");
    p.findings.append(this.findings, this.noFindings);
    this.process = ledgerTable("Memory of the process by owner");
    this.cgroup = ledgerTable("What the memory cgroup is charged for");
    this.cgroupHead = h("h3", null, "The cgroup");
    this.noLedger = h("p", { class: "empty" }, "No ledger: no process is watched.");
    p.ledger.append(this.processHead = h("h3", null, "The process, as resident memory"), this.process.el, this.cgroupHead, this.cgroup.el, this.noLedger);
    this.clusters = clusterTable(c => this.change("g" + clusterKey(c), c.count));
    this.noClusters = h("p", { class: "empty" });
    this.lookedAt = h("p", { class: "note" });
    p.goroutines.append(this.lookedAt, this.clusters.el, this.noClusters);
    this.classes = classTable(c => this.change("c" + c.class, c.objects));
    this.noClasses = h("p", { class: "empty" });
    this.lookedAt2 = h("p", { class: "note" });
    p.classes.append(this.lookedAt2, this.classes.el, this.noClasses);
    this.events = new Events(() => this.name);
    p.events.append(this.events.el);
    this.sources = table("Sources", [
      { head: "source", class: "l", text: s => s.name },
      { head: "state", class: "l", make: () => h("span", null, h("i", { class: "dot", "aria-hidden": "true" }), h("span")), fill: (el, s) => {
        attr(el.firstChild, "class", "dot " + ({ ok: "good", failed: "critical" }[s.state] ?? ""));
        set(el.lastChild, " " + s.state);
      } },
      { head: "for", text: s => { const t = when(s.since); return t ? duration(Math.max((serverNow() - t) / 1000, 0)) : "unknown"; } },
      { head: "why", class: "l text", text: s => s.why || "" },
    ], s => s.name);
    this.blind = table("What cannot be seen", [
      { head: "what", class: "l", text: b => b.what },
      { head: "why", class: "l text", text: b => b.why },
    ], b => b.what);
    this.blindHead = h("h3", null, "What cannot be seen");
    this.cycles = table("The last collections, as it printed them (gctrace)", [
      { head: "cycle", text: c => count(c.n) },
      { head: "after its start", text: c => duration(known(c.at_ns) ? c.at_ns / 1e9 : null) },
      { head: "heap, at its start", text: c => mib(c.heap_start) },
      { head: "live after", text: c => mib(c.heap_live) },
      { head: "goal", text: c => mib(c.heap_goal) },
      { head: "pauses", text: c => known(c.pauses_ns) ? (c.pauses_ns / 1e6).toFixed(2) + " ms" : null },
      { head: "", class: "l note", text: c => c.forced ? "forced" : "" },
    ], c => c.n);
    this.cyclesHead = h("h3", null, "The last collections, as it printed them");
    p.sources.append(this.sources.el, this.blindHead, this.blind.el, this.cyclesHead, this.cycles.el);
    this.overrides = table("Overrides that stand", [
      { head: "what", class: "l", text: o => o.what },
      { head: "from", text: o => o.from },
      { head: "to", text: o => o.to },
      { head: "ends", text: o => o.left },
      { head: "by", class: "l", text: o => o.by },
      { head: "reason", class: "l text", text: o => o.reason },
    ], o => o.key);
    this.noOverrides = h("p", { class: "empty" });
    this.hand = h("dl", { class: "pair" });
    this.handHead = h("h3", null, "What its guard does");
    this.noHand = h("p", { class: "empty" }, "The service has no guard of its own, so nothing can be changed in it from here.");
    p.control.append(h("h3", null, "Overrides that stand"), this.overrides.el, this.noOverrides, this.handHead, this.hand, this.noHand);

    this.el = h("div", null, h("a", { class: "back", href: "#/" }, "‹ All targets"), this.title, this.lead, this.facts, this.past, this.figures, this.plot.el, this.tabs.el);
    this.tab = TABS[0][0];
  }

  // open shows a target, with the tab of that name if there is one.
  open(name, tab, chosen) {
    if (name !== this.name) {
      this.name = name;
      this.first.clear();
      this.pid = null;
      this.plot.at = null;
    }
    this.tab = TABS.some(([id]) => id === tab) ? tab : TABS[0][0];
    this.tabs.choose(this.tab);
    this.onTab = chosen;
  }

  chosen(id) { this.tab = id; this.onTab?.(id); }

  // change is how much a count has grown since this life was first shown.
  change(key, n) {
    if (!this.first.has(key)) {
      if (this.first.size < 1000) this.first.set(key, this.fresh ? n : 0);
      return this.fresh ? 0 : n;
    }
    return n - this.first.get(key);
  }

  // render shows t (watch.Status), its timeline and overrides; t is null as long as
  // nothing is known, and error then says why.
  render({ t, timeline, marks, overrides, past, events, error }) {
    set(this.title, this.name);
    if (!t) {
      set(this.lead, error ?? "Loading …");
      attr(this.lead, "class", "lead " + (error ? "critical" : "soft"));
      for (const el of [this.facts, this.past, this.figures, this.plot.el, this.tabs.el]) el.hidden = true;
      return;
    }
    for (const el of [this.facts, this.figures, this.plot.el, this.tabs.el]) el.hidden = false;
    this.past.hidden = !past;
    if (past) {
      set(this.past.lastChild, `${clock(when(past.time)) ?? "unknown"}, ${past.cause}`);
      attr(this.past.lastChild, "href", "#/incidents/" + encodeURIComponent(past.id));
    }
    const p = t.process, g = t.guard, life = p ? p.pid + "/" + p.start_ticks : null;
    if (life !== this.pid) { this.pid = life; this.first.clear(); this.compared = false; }
    this.renderHead(t);
    this.plot.update(timeline.rows, timeline.points, marks);

    const fs = findingsOf(t);
    findings(this.findings, fs);
    this.noFindings.hidden = fs.length > 0;
    this.tabs.count("findings", fs.length || null);

    const l = g?.ledger;
    this.noLedger.hidden = Boolean(l);
    for (const el of [this.processHead, this.process.el]) el.hidden = !l;
    for (const el of [this.cgroupHead, this.cgroup.el]) el.hidden = !l?.cgroup;
    this.process.set(l ? ledgerRows(l.rows, l.residual, "RSS", l.rss) : []);
    if (l?.cgroup) {
      set(this.cgroupHead, "The cgroup " + clean(l.cgroup.path, 200) + ", as charged");
      this.cgroup.set(ledgerRows(l.cgroup.rows, l.cgroup.residual, "usage", l.cgroup.usage));
    }

    const looked = when(t.looked), ago = looked ? `Looked at ${clock(looked)}, ${duration(Math.max((serverNow() - looked) / 1000, 0))} ago.` : "";
    const why = items(t.sources).find(s => s.name === "attach");
    const unseen = "The runtime has not been looked into" + (why && why.state !== "ok" ? `: attach is ${why.state}${why.why ? ", " + why.why : ""}` : " yet") + ".";
    const cs = t.goroutine_clusters ? items(t.goroutine_clusters).slice(0, MOST_ROWS) : null;
    this.fresh = !this.compared;
    this.clusters.set(cs ?? []);
    this.clusters.el.hidden = !cs?.length;
    this.noClusters.hidden = Boolean(cs?.length);
    set(this.noClusters, cs ? "No goroutines were seen." : unseen);
    set(this.lookedAt, ago);
    this.tabs.count("goroutines", cs?.length ? count(cs.reduce((a, c) => a + (c.count || 0), 0)) : null);

    const rows = classRows(t.size_classes);
    this.classes.set(rows);
    this.classes.el.hidden = !rows.length;
    this.noClasses.hidden = rows.length > 0;
    set(this.noClasses, t.size_classes ? "No spans are in use." : unseen);
    set(this.lookedAt2, ago);
    if (cs || rows.length) this.compared = true;

    const ss = items(t.sources).slice(0, MOST_ROWS);
    this.sources.set(ss);
    this.tabs.count("sources", ss.some(s => s.state === "failed") ? ss.filter(s => s.state === "failed").length + " failed" : null);
    const blind = items(g?.blind).slice(0, MOST_ROWS);
    this.blind.set(blind);
    for (const el of [this.blindHead, this.blind.el]) el.hidden = !blind.length;
    const cycles = items(t.gc_cycles).slice(-20).reverse();
    this.cycles.set(cycles);
    for (const el of [this.cyclesHead, this.cycles.el]) el.hidden = !cycles.length;
    if (this.tab === "events") this.events.render(events);

    const os = (overrides?.items ?? []).slice(0, MOST_ROWS);
    this.overrides.set(os);
    this.overrides.el.hidden = !os.length;
    this.noOverrides.hidden = os.length > 0;
    set(this.noOverrides, overrides?.error ?? "None: every setting is the service's own, or its guard's.");
    this.tabs.count("control", os.length || null);
    pairs(this.hand, g ? hand(g) : []);
    this.noHand.hidden = Boolean(g?.hand) || !g;
    this.handHead.hidden = !g?.hand;
  }

  renderHead(t) {
    const p = t.process, g = t.guard, m = memory(t), bad = worst(t);
    const shown = bad === "info" ? null : bad;
    attr(this.lead, "class", "lead " + (t.process ? shown ?? "good" : "soft"));
    const more = findingsOf(t).filter(f => severe(f.severity) !== "info").length - 1;
    const first = findingsOf(t).find(f => severe(f.severity) === shown);
    set(this.lead, !t.process ? "No process matches. It is watched as soon as one does." :
      first ? first.summary + (more > 0 ? ` (and ${more} more)` : "") :
        "Nothing wrong found" + (findingsOf(t).length ? `; ${findingsOf(t).length} worth knowing below.` : "."));
    const start = when(p?.started);
    set(this.facts, !p ? "" : [p.command, "pid " + p.pid, p.go_version, start ? "up " + duration(Math.max((serverNow() - start) / 1000, 0)) : "",
      p.build_id ? "build " + String(p.build_id).slice(0, 20) : "", t.eye ? "seen through " + ({ agent: "its own guard", attach: "attach, from outside", kernel: "the kernel alone" }[t.eye] ?? t.eye) : ""].filter(Boolean).join(" · "));
    attr(this.facts, "title", p ? clean([p.exe, p.cgroup, "build " + (p.build_id || "unknown")].join("\n").replace(/\n/g, " · ")) : null);
    const usage = m.usage, of = known(m.limit) ? "of " + mib(m.limit) + ", " + percent(usage, m.limit) : m.unlimited ? "no limit" : "limit unknown";
    const left = g?.time_to_limit_seconds;
    const figures = !g ? [] : [
      { k: g.ledger?.cgroup ? "Charged to the cgroup" : "Resident", v: mib(usage), s: of },
      { k: "Time left", v: known(left) ? duration(left) : "–", s: known(left) ? "to the limit at the present growth" : m.unlimited ? "there is no limit" : known(m.limit) ? "no lasting growth towards the limit" : "the limit is unknown", class: known(left) ? left < 30 ? "critical" : left < 120 ? "warning" : "" : "" },
      { k: "Cannot be dropped", v: mib(g.cgroup_undroppable), s: percent(g.cgroup_undroppable, m.limit) ? percent(g.cgroup_undroppable, m.limit) + " of the limit" : "" },
    ];
    if (p?.go_version && g) figures.push({ k: "Go heap, live", v: mib(heapLive(g)), s: "" });
    if (g?.hand) figures.push({ k: "GC percent", v: setting.percent(g.hand.wanted?.gc_percent), s: "limit " + (setting.limit(g.hand.wanted?.memory_limit) ?? "unknown") });
    if (g?.hand?.breaker) figures.push({ k: "Breaker", v: g.hand.breaker, s: "", class: { open: "critical", "half-open": "warning" }[g.hand.breaker] });
    figures.push({ k: "Restarts", v: count(t.restarts), s: "seen from here" });
    sync(this.figures, figures, f => f.k, () => h("div", null, h("dt"), h("dd", null, h("span"), " ", h("small"))), (el, f) => {
      set(el.firstChild, f.k);
      show(el.lastChild.firstChild, f.v);
      if (f.v !== null) attr(el.lastChild.firstChild, "class", f.class || null);
      set(el.lastChild.lastChild, f.s);
    });
  }

  // current is the element that focus goes to when this view is opened.
  get head() { return this.title; }
}

function heapLive(g) {
  const row = items(g.ledger?.rows).find(r => r.name === "go/heap/live");
  return row ? row.bytes : null;
}

