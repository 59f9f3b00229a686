// Events of all targets as they come: the newest first, a page at a time, so that
// ten thousand of them are no more elements than a hundred.

import { h, attr, set, sync, table } from "./dom.js";
import { when, clock, iso, count } from "./units.js";

const PAGE = 100; // rows shown at once
export const KEPT = 10_000; // events remembered

// severity of an event, for its colour: of the finding that a guard raised.
export function grave(e) {
  if (e.kind === "guard" && e.guard?.kind === "raised") return ["critical", "warning"].includes(e.guard.finding?.severity) ? e.guard.finding.severity : "info";
  return null;
}

// what is an event's kind in two words.
export const what = e => e.kind === "guard" && e.guard?.kind ? "guard, " + e.guard.kind : String(e.kind);

// subject is what a guard's event is about.
const subject = e => e.guard?.finding?.id || e.guard?.action?.name || e.guard?.blind?.what || "";

// Events is all of them, or, where only says so, those of one target.
export class Events {
  constructor(only) {
    this.only = only;
    this.page = 0;
    this.frozen = null; // events while nothing is to move
    const change = () => { this.page = 0; this.render(this.last); };
    this.target = h("select", { onchange: change }, h("option", { value: "" }, "all targets"));
    this.kind = h("select", { onchange: change }, h("option", { value: "" }, "all kinds"));
    this.hold = h("button", { type: "button", "aria-pressed": "false", onclick: () => {
      this.frozen = this.frozen ? null : [...this.last.events];
      attr(this.hold, "aria-pressed", this.frozen ? "true" : "false");
      this.render(this.last);
    } }, "Hold still");
    this.newer = h("button", { type: "button", onclick: () => { this.page--; this.render(this.last); } }, "Newer");
    this.older = h("button", { type: "button", onclick: () => { this.page++; this.render(this.last); } }, "Older");
    this.says = h("p", { class: "note", role: "status" });
    this.title = h("h1", { tabindex: "-1" }, "Events");
    this.empty = h("p", { class: "empty" }, "Nothing has happened yet.");
    this.table = table("Events, the newest first", [
      { head: "time", class: "l", make: () => h("time"), fill: (el, e) => { const t = when(e.time); set(el, clock(t) ?? "unknown"); attr(el, "datetime", iso(t)); attr(el, "title", iso(t)); } },
      ...(only ? [] : [{ head: "target", class: "l", make: () => h("a"), fill: (el, e) => { set(el, e.target || ""); attr(el, "href", e.target ? "#/t/" + encodeURIComponent(e.target) : null); } }]),
      { head: "what", class: "l", make: () => h("span"), fill: (el, e) => { set(el, e.kind === "guard" && subject(e) ? `${subject(e)} ${e.guard.kind}` : what(e), 80); attr(el, "class", grave(e)); } },
      { head: "", class: "l text", make: () => h("span", null, h("span"), " ", h("a")), fill: (el, e) => {
        set(el.firstChild, e.text);
        set(el.lastChild, e.incident ? "Incident" : "");
        attr(el.lastChild, "href", e.incident ? "#/incidents/" + encodeURIComponent(e.incident) : null);
      } },
    ], e => e.seq);
    this.el = h("div", null, only ? null : this.title,
      h("div", { class: "tools" }, only ? null : h("label", null, "Target", this.target), h("label", null, "Kind", this.kind), this.hold, this.newer, this.older),
      this.says, this.table.el, this.empty);
    this.last = { events: [], dropped: 0 };
  }

  get head() { return this.title; }

  // render shows the events, which are in the order of their numbers; dropped is how
  // many were gone before this page could have them.
  render(state) {
    this.last = state;
    const all = this.frozen ?? state.events;
    options(this.target, "all targets", new Set(state.events.map(e => e.target).filter(Boolean)));
    options(this.kind, "all kinds", new Set(state.events.map(what)));
    const target = this.only?.() ?? this.target.value;
    const fits = all.filter(e => (!target || e.target === target) && (!this.kind.value || what(e) === this.kind.value));
    const pages = Math.max(Math.ceil(fits.length / PAGE), 1);
    this.page = Math.min(Math.max(this.page, 0), pages - 1);
    const end = fits.length - this.page * PAGE, rows = fits.slice(Math.max(end - PAGE, 0), end).reverse();
    this.table.set(rows);
    this.table.el.hidden = !rows.length;
    this.empty.hidden = rows.length > 0;
    this.newer.disabled = this.page === 0;
    this.older.disabled = this.page >= pages - 1;
    set(this.hold, this.frozen ? "Go on" : "Hold still");
    const waiting = this.frozen ? state.events.length && state.events[state.events.length - 1].seq - (this.frozen[this.frozen.length - 1]?.seq ?? 0) : 0;
    set(this.says, `${count(fits.length)} events` + (pages > 1 ? `, page ${this.page + 1} of ${pages}` : "") +
      (state.dropped ? `; ${count(state.dropped)} older ones are no longer kept` : "") + (this.frozen ? `; held still, ${count(waiting)} new` : ""));
  }
}

// options keeps a choice's list to what there is; what is chosen stays.
function options(select, all, names) {
  if (select.value) names.add(select.value);
  sync(select, ["", ...[...names].sort().slice(0, 200)], n => n, () => h("option"), (o, n) => { if (o.value !== n) o.value = n; set(o, n || all, 80); });
}
