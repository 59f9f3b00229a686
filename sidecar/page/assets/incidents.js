// Incidents: the list, and the report of one, drawn from its JSON. The report as an
// HTML page of its own is offered as a file: within this page its styles would be
// refused by the policy that it is under.

import { h, attr, set, table, clean, items } from "./dom.js";
import { mib, percent, count, duration, when, clock, iso, known } from "./units.js";
import { Plot } from "./plot.js";
import { ledgerTable, ledgerRows, stackOf, pairs } from "./tables.js";
import { grown } from "./target.js";
import { get, blob, path, address, token } from "./api.js";

const SHOWN = 200; // rows of a table

const SIGNALS = { 1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 6: "SIGABRT", 7: "SIGBUS", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM" };

// grave is how bad an end was, as a class: for lack of memory critical, else not
// meant warning, and the rest is good.
export const grave = i => ["critical", "warning", "info"].includes(i.severity) ? i.severity : "good";

export class Incidents {
  constructor() {
    this.title = h("h1", { tabindex: "-1" }, "Incidents");
    this.says = h("p", { class: "facts" });
    this.empty = h("p", { class: "empty" });
    this.table = table("Incidents, the newest first", [
      { head: "ended", class: "l", make: () => h("time"), fill: (el, i) => { const t = when(i.time); set(el, clock(t) ?? "unknown"); attr(el, "datetime", iso(t)); attr(el, "title", iso(t)); } },
      { head: "target", class: "l", text: i => i.target },
      { head: "how", class: "l", make: () => h("span", { class: "tag" }), fill: (el, i) => { set(el, i.cause); attr(el, "class", "tag " + grave(i)); } },
      { head: "verdict", class: "l text", make: () => h("a"), fill: (el, i) => { set(el, i.verdict || "open the report"); attr(el, "href", "#/incidents/" + encodeURIComponent(i.id)); } },
    ], i => i.id);
    this.el = h("div", null, this.title, this.says, this.table.el, this.empty);
  }

  get head() { return this.title; }

  render({ incidents, incidentsError }) {
    const list = incidents ? [...incidents].sort((a, b) => (when(b.time) ?? 0) - (when(a.time) ?? 0)) : [];
    this.table.set(list.slice(0, SHOWN));
    this.table.el.hidden = !list.length;
    this.empty.hidden = list.length > 0;
    set(this.empty, incidentsError ?? (incidents ? "No process that is watched has ended since the store was begun." : "Loading …"));
    attr(this.empty, "class", "empty" + (incidentsError ? " critical" : ""));
    set(this.says, list.length ? `${count(list.length)} ${list.length === 1 ? "process has" : "processes have"} ended` + (list.length > SHOWN ? `; the last ${SHOWN} are shown` : "") : "");
  }
}

// section is a heading and what is below it, or nothing where there is nothing.
const section = (title, ...kids) => kids.some(Boolean) ? h("section", null, h("h2", null, title), ...kids) : null;

// filled is a table with its rows, or nothing without any.
function filled(t, rows) {
  if (!items(rows).length) return null;
  t.set(items(rows).slice(0, SHOWN));
  return t.el;
}

const stackCell = (head, name, frames, note) => ({
  head, class: "l text", make: () => h("details", null, h("summary", { class: "code" }, h("span"), h("span", { class: "note" })), h("ul", { class: "stack" })),
  fill: (el, r) => {
    const n = note(r);
    set(el.firstChild.firstChild, name(r));
    set(el.firstChild.lastChild, n ? " · " + n : "");
    stackOf(el.lastChild, frames(r), r.stack_unknown);
  },
});

const line = f => f?.file ? String(f.file).split("/").pop() + ":" + (f.line ?? "?") : "";

function growthTable(g) {
  return table("Memory by the stack that allocated it", [
    { head: g.base ? "grown by" : "in use", text: s => mib(s.bytes) },
    { head: "share", class: "part", text: s => percent(s.bytes, g.total) ?? "" },
    { head: "", class: "track more", make: () => h("div", { class: "bar" }, h("i")), fill: (el, s) => { el.firstChild.style.width = g.total > 0 ? Math.min(Math.max(100 * s.bytes / g.total, 0), 100) + "%" : "0"; } },
    { head: "objects", class: "more", text: s => count(s.objects) },
    stackCell("allocated in", s => s.func, s => s.stack, s => line(items(s.stack).find(f => f.func === s.func))),
  ], s => JSON.stringify(s.stack));
}

const goroutineTable = () => table("Goroutine clusters, the biggest first", [
  { head: "goroutines", text: c => count(c.count) },
  { head: "state", class: "l more", text: c => c.state },
  { head: "longest", class: "more", text: c => duration(c.longest_wait_seconds) },
  stackCell("where, and who started it", c => c.func, c => c.stack, c => [line(items(c.stack).find(f => f.func === c.func)), c.created?.func ? "go in " + c.created.func : ""].filter(Boolean).join(" · ")),
], c => JSON.stringify([c.state, c.stack, c.created]));

const notesTable = ended => table("What was found and done, in the order of time", [
  { head: "before the end", text: n => { const t = when(n.time); return t === null || ended === null ? null : t > ended ? "after" : duration((ended - t) / 1000); } },
  { head: "what", class: "l", make: () => h("span"), fill: (el, n) => { set(el, n.name || n.kind); attr(el, "class", ["critical", "warning"].includes(n.severity) ? n.severity : null); } },
  { head: "", class: "l text", text: n => n.text },
], n => [n.time, n.kind, n.name, n.text].join(" "));

const counter = (a, b) => known(a) && known(b) ? (b > a ? `${count(a)} → ${count(b)}` : count(b)) : null;

const cgroupTable = () => table("Memory cgroups, from its own up", [
  { head: "cgroup", class: "l code", text: c => c.dir },
  { head: "usage", text: c => mib(c.usage) },
  { head: "limit", text: c => known(c.limit) && c.limit > 2 ** 62 ? "none" : mib(c.limit) },
  { head: "OOM kills", text: c => counter(c.oom_kills_before, c.oom_kills_after) },
], c => c.dir);

const classTable = () => table("Size classes that matter, the largest first", [
  { head: "object", text: c => c.object_bytes ? count(c.object_bytes) + " B" : "large" },
  { head: "objects", text: c => count(c.objects) },
  { head: "memory", text: c => mib(c.bytes) },
  { head: "free in it", text: c => percent(c.free_bytes, c.bytes) ?? "" },
], c => c.object_bytes);

const unknownTable = () => table("What could not be seen", [
  { head: "what", class: "l", text: b => b.what },
  { head: "why", class: "l text", text: b => b.why },
], b => b.what + b.why);

// save has the browser keep an answer of the API as a file.
async function save(button, where, accept, name) {
  const text = button.textContent;
  try {
    const url = URL.createObjectURL(await blob(where, accept));
    h("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
    set(button, text.replace(/ \(.*\)$/, ""));
  } catch (e) {
    set(button, text.replace(/ \(.*\)$/, "") + " (" + e.message + ")");
  }
}

const fileName = s => clean(s, 80).replace(/[^a-zA-Z0-9._-]/g, "-");

export class Incident {
  constructor() {
    this.title = h("h1", { tabindex: "-1" });
    this.body = h("div");
    this.el = h("div", null, h("p", { class: "facts" }, h("a", { href: "#/incidents" }, "‹ All incidents")), this.title, this.body);
  }

  get head() { return this.title; }

  async open(id) {
    if (id === this.id && this.plot) return;
    this.id = id;
    this.plot = null;
    set(this.title, "Incident");
    this.body.replaceChildren(h("p", { class: "lead soft" }, "Loading …"));
    try {
      const r = await get(path("incidents", id));
      if (id === this.id) this.fill(r);
    } catch (e) {
      if (id === this.id) this.body.replaceChildren(h("p", { class: "lead critical" }, e.message));
      this.id = null; // asked for again when it is opened again
    }
  }

  render() { this.plot?.draw(); }

  fill(r) {
    const ended = when(r.ended), p = r.process ?? {}, how = grave(r), name = fileName(`incident-${r.target}-${r.id}`);
    set(this.title, `${r.target}: ${r.cause}`);
    const file = (label, query, accept, ext) => h("button", { type: "button", onclick: e => save(e.target, path("incidents", this.id) + query, accept, name + ext) }, label);
    const facts = [ended === null ? "" : "ended " + clock(ended), known(r.lived_seconds) ? "lived " + duration(r.lived_seconds) : "", p.command, "pid " + (p.pid ?? "unknown"), p.go_version,
      p.build_id ? "build " + String(p.build_id).slice(0, 20) : ""].filter(Boolean).join(" · ");
    const where = Object.entries(r.where ?? {}).filter(([, v]) => v).map(([k, v]) => [k.replaceAll("_", " "), v]);
    this.plot = new Plot();
    const exit = r.exit?.known ? r.exit.signal ? `ended by ${SIGNALS[r.exit.signal] ?? "signal " + r.exit.signal}` : "ended with status " + r.exit.code : "exit status unknown";
    const process = ledgerTable("Memory of the process by owner, before the end"), cgroup = ledgerTable("What the cgroup was charged for, before the end");
    const l = r.ledger;
    const g = r.growth, gr = r.goroutines, words = r.last_words, box = r.black_box;
    const parts = [
      h("p", { class: "lead " + how }, r.verdict),
      h("p", { class: "facts" }, facts),
      h("div", { class: "tools" }, file("Save as HTML", "?format=html", "text/html", ".html"), file("Save as Markdown", "?format=md", "text/markdown", ".md"), file("Save as JSON", "", "application/json", ".json"),
        token.get() ? null : h("a", { href: address(path("incidents", this.id) + "?format=html"), target: "_blank", rel: "noopener" }, "Open as a page of its own")),
      r.timeline ? this.plot.el : null,
      section("What this is read from", h("ul", null, ...[exit, ...items(r.why)].slice(0, SHOWN).map(w => h("li", null, w)))),
      section(g?.base ? "What grew, by stack" : "What the heap held, by stack", g ? h("p", { class: "note" }, g.base ? `${mib(g.total) ?? "unknown"} more between ${g.base} and ${g.later}` : `${mib(g.total) ?? "unknown"} in ${g.later}`) : null, g ? filled(growthTable(g), g.top) : null),
      section("Goroutines", gr ? h("p", { class: "note" }, `${count(gr.total) ?? "An unknown number"}; ${gr.from}`) : null, gr ? filled(goroutineTable(), gr.clusters) : null),
      l ? section("The ledger before the end", filled(process, ledgerRows(l.rows, l.residual, "RSS", l.rss)), ...(l.cgroup ? [h("h3", null, "The cgroup " + clean(l.cgroup.path, 200)), filled(cgroup, ledgerRows(l.cgroup.rows, l.cgroup.residual, "usage", l.cgroup.usage))] : [])) : null,
      section("What was found and done", filled(notesTable(ended), r.notes)),
      section("Cgroups", filled(cgroupTable(), r.cgroups)),
      section("Size classes", filled(classTable(), r.size_classes)),
      words ? section("Last words of the Go runtime", h("p", null, `${words.cause}: ${clean(words.text)}`), stack(words.stack)) : null,
      items(r.stderr).length ? section("The last lines that it printed", h("pre", { tabindex: "0" }, ...items(r.stderr).slice(-SHOWN).flatMap(s => [clean(s), document.createTextNode("\n")]))) : null,
      box ? section("Its black box", pairsOf([["verdict", box.verdict], ["records", box.records], ["service", box.service], ["build", box.build], ["path", box.path]].filter(([, v]) => v))) : null,
      where.length || p.cgroup ? section("Where it ran", pairsOf([...where, ["executable", p.exe], ["cgroup", p.cgroup], ["build id", p.build_id]].filter(([, v]) => v))) : null,
      items(r.files).length ? section("Files kept with it", h("ul", null, ...items(r.files).slice(0, SHOWN).map(f => h("li", null,
        h("button", { type: "button", onclick: e => save(e.target, path("incidents", this.id, "files", f.name), "*/*", fileName(f.name)) }, f.name), " ", h("span", { class: "note" }, `${clean(f.what)}, ${mib(f.bytes) ?? "size unknown"}`))))) : null,
      section("What could not be seen", filled(unknownTable(), r.unknown)),
    ];
    this.body.replaceChildren(...parts.filter(Boolean));
    if (!r.timeline) return;
    const t = grown({ rows: [], points: [] }, r.timeline), marks = [];
    for (const n of items(r.notes)) {
      const at = when(n.time);
      if (at === null || !["finding", "action"].includes(n.kind)) continue;
      marks.push({ t: at, kind: n.kind, class: n.kind === "action" ? "action" : ["critical", "warning"].includes(n.severity) ? n.severity : "info", text: `${n.name}: ${n.text}` });
    }
    if (ended !== null) marks.push({ t: ended, kind: how === "critical" ? "kill" : "ended", class: how === "critical" ? "kill" : "ended", text: r.verdict });
    this.plot.window = 0;
    this.plot.choice.value = "0";
    this.plot.update(t.rows, t.points, marks.sort((a, b) => a.t - b.t));
  }
}

function pairsOf(list) {
  const dl = h("dl", { class: "pair" });
  pairs(dl, list);
  return dl;
}

function stack(frames) {
  const ul = h("ul", { class: "stack" });
  stackOf(ul, frames);
  return items(frames).length ? ul : null;
}
