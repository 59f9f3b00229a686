// The tables that a target and the report of an incident have in common.

import { h, attr, set, show, sync, table, items } from "./dom.js";
import { mib, percent, count, duration, known } from "./units.js";
import { rowClass } from "./plot.js";

const MOST_STACK = 60; // frames shown of one stack
const MOST_ROWS = 100; // of any table here

// stackOf shows a stack in a <details>: function, and where.
export function stackOf(el, frames, why) {
  const list = items(frames);
  sync(el, list.length ? list.slice(0, MOST_STACK).map((f, i) => ({ i, f })) : [{ i: "none", why }], x => x.i,
    () => h("li", null, h("span", { class: "func" }), h("span", { class: "where" })),
    (li, x) => {
      set(li.firstChild, x.f ? x.f.func : "stack unknown" + (x.why ? ": " + x.why : ""));
      set(li.lastChild, x.f ? x.f.file ? x.f.file + ":" + (x.f.line ?? "?") : "" : "");
    });
}

// place is the frame of a stack that tells the most: the innermost that is not the
// runtime's or the standard library's, which have no dot in the first part of
// their import path, but for main.
export function place(c) {
  const own = f => { const p = String(f?.func ?? ""); return p.startsWith("main.") || p.split("/")[0].includes(".") && p.includes("/"); };
  const stack = items(c.stack);
  return stack.find(own) ?? { func: c.start, file: "", line: 0 };
}

// ledgerTable is a table of a ledger's rows with bars.
export function ledgerTable(caption) {
  return table(caption, [
    { head: "owner", class: "l", make: () => h("span", null, h("i", { class: "chip" }), h("span")), fill: (el, r) => { attr(el.firstChild, "class", "chip " + rowClass(r.name)); el.firstChild.hidden = Boolean(r.total); set(el.lastChild, r.name); } },
    { head: "memory", make: () => h("span"), fill: (el, r) => show(el, mib(r.bytes), r.why) },
    { head: "share", class: "part", text: r => percent(r.bytes, r.of) ?? "" },
    { head: "", class: "track more", make: () => h("div", { class: "bar" }, h("i")), fill: (el, r) => {
      el.firstChild.style.width = known(r.bytes) && known(r.of) && r.of > 0 ? Math.min(Math.max(100 * r.bytes / r.of, 0), 100) + "%" : "0";
      el.hidden = Boolean(r.total);
    } },
    { head: "", class: "l note", text: r => r.note || r.why || "" },
  ], r => r.name);
}

// ledgerRows are a ledger's rows, its residual, and the sum.
export function ledgerRows(rows, residual, name, total) {
  return [...items(rows).slice(0, MOST_ROWS).map(r => ({ ...r, of: total })),
    { name: "residual", bytes: residual, of: total, note: "what no row accounts for" },
    { name, bytes: total, of: total, class: "sum", total: true }];
}

// clusterTable is a table of goroutine clusters.
export function clusterTable(change) {
  return table("Goroutine clusters, the biggest first", [
    { head: "goroutines", text: c => count(c.count) },
    ...(change ? [{ head: "change", title: "since this page was opened", make: () => h("span"), fill: (el, c) => {
      const d = change(c);
      set(el, d ? (d > 0 ? "+" : "") + d.toLocaleString("en-US") : "");
      attr(el, "class", d > 0 ? "grew" : null);
    } }] : []),
    { head: "state", class: "l more", text: c => c.state + (c.reason ? ", " + c.reason : "") },
    { head: "longest", class: "more", title: "how long the one that waits longest has been seen waiting", text: c => duration(known(c.longest_ns) ? c.longest_ns / 1e9 : null) },
    { head: "where, and who started it", class: "l text", make: () => h("details", null, h("summary", { class: "code" }, h("span"), h("span", { class: "note" })), h("ul", { class: "stack" })), fill: (el, c) => {
      const p = place(c), by = c.created_by?.func;
      set(el.firstChild.firstChild, p.func || c.start || "unknown");
      set(el.firstChild.lastChild, [p.line ? String(p.file).split("/").pop() + ":" + p.line : "", c.system ? "the runtime's own" : by ? "go in " + by : ""].filter(Boolean).map(s => " · " + s).join(""));
      stackOf(el.lastChild, [...items(c.stack), ...(by && c.stack?.length ? [{ ...c.created_by, func: "created by " + by }] : [])], c.stack_unknown);
    } },
  ], clusterKey);
}

export const clusterKey = c => [c.state, c.reason, c.start, place(c).func, place(c).line, c.created_by?.func, c.created_by?.line, ...items(c.stack).slice(0, 4).map(f => f.line)].join("|");

const OCCUPANCY = ["up to a quarter full", "up to half", "up to three quarters", "fuller", "full"];

// classTable is a table of size classes.
export function classTable(change) {
  return table("Size classes, those with the most memory first", [
    { head: "object", text: c => c.object_bytes ? count(c.object_bytes) + " B" : "large" },
    { head: "objects", text: c => count(c.objects) },
    ...(change ? [{ head: "change", class: "more", title: "of objects, since this page was opened", make: () => h("span"), fill: (el, c) => { const d = change(c); set(el, d ? (d > 0 ? "+" : "") + d.toLocaleString("en-US") : ""); } }] : []),
    { head: "memory", text: c => mib(c.bytes) },
    { head: "in use, free, tail", class: "track", make: () => h("div", { class: "bar", role: "img" }, h("i"), h("i", { class: "b" }), h("i", { class: "c" })), fill: (el, c) => {
      const used = Math.max(c.bytes - c.free_bytes - c.tail_bytes, 0), whole = c.most || 1;
      [used, c.free_bytes, c.tail_bytes].forEach((n, i) => { el.children[i].style.width = 100 * n / whole + "%"; });
      attr(el, "aria-label", `in use ${mib(used)}, free slots ${mib(c.free_bytes)}, tails ${mib(c.tail_bytes)}`);
    } },
    { head: "free", text: c => percent(c.free_bytes, c.bytes) ?? "" },
    { head: "spans", class: "more", text: c => count(c.spans) },
    { head: "how full the spans are", class: "l more", make: () => h("span", { class: "occupancy", role: "img" }, ...OCCUPANCY.map(() => h("i"))), fill: (el, c) => {
      const n = items(c.occupancy);
      OCCUPANCY.forEach((_, i) => el.children[i].style.setProperty("--share", c.spans ? Math.round(100 * (n[i] || 0) / c.spans) : 0));
      attr(el, "aria-label", OCCUPANCY.map((what, i) => `${n[i] || 0} ${what}`).join(", "));
      attr(el, "title", OCCUPANCY.map((what, i) => `${n[i] || 0} ${what}`).join(", "));
    } },
  ], c => c.class);
}

export function classRows(list) {
  const rows = items(list).filter(c => c.bytes > 0).sort((a, b) => b.bytes - a.bytes).slice(0, MOST_ROWS);
  return rows.map(c => ({ ...c, most: rows[0].bytes }));
}

// pairs fills a list of terms and what is to be said of them.
export function pairs(el, list) {
  sync(el, list.flatMap(([k, v]) => [{ k: "t" + k, tag: "dt", s: k }, { k: "d" + k, tag: "dd", s: v }]), x => x.k, x => h(x.tag), (n, x) => set(n, x.s, 1000));
}
