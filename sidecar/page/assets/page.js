// The page as a whole: what is asked for and when, which view is shown, and what
// is said when the sidecar is gone.

import { h, attr, set, sync, items } from "./dom.js";
import { known, mib, percent, when, clock, duration, count } from "./units.js";
import { get, stream, path, token, serverNow, Loop, Refused } from "./api.js";
import { Target, findingsOf, worst, says, memory, meter, grown } from "./target.js";
import { Events, KEPT, grave } from "./events.js";
import { Incidents, Incident, grave as incidentGrave } from "./incidents.js";

const MOST_TARGETS = 256; // shown
const MOST_MARKS = 2000;

const $ = id => document.getElementById(id);

const state = {
  targets: null, // watch.Status of all
  chosen: null, // name of the target that is shown
  status: null, // its watch.Status, asked for more often
  error: null, // why there is none
  timeline: { rows: [], points: [] },
  overrides: null,
  events: [], last: 0, dropped: 0,
  incidents: null, incidentsError: null,
  alarmed: null, // critical findings that were announced
};
const link = { ok: 0, since: 0, failures: 0, why: "", next: 0 };
const views = { target: new Target(), events: new Events(), incidents: new Incidents(), incident: new Incident() };
let view = null;

// What is asked for.

async function list(signal) {
  const answer = await get("runtimes", signal);
  state.targets = items(answer.items).slice(0, MOST_TARGETS);
  Object.assign(link, { ok: Date.now(), failures: 0, since: 0 });
  if (!state.chosen && view === views.target) choose();
  announce();
  later();
}

async function one(signal) {
  const name = state.chosen;
  if (!name || view !== views.target) return;
  try {
    const points = state.timeline.points, last = points[points.length - 1];
    const [status, timeline] = await Promise.all([
      get(path("runtimes", name), signal),
      get(path("runtimes", name, "timeline") + (last ? "?since=" + encodeURIComponent(last.time) : ""), signal),
    ]);
    if (name !== state.chosen) return;
    state.status = status;
    state.error = null;
    if (last && when(status.guard?.time) < last.t - 5000) state.timeline = { rows: [], points: [] }; // the clock was set back
    grown(state.timeline, timeline);
  } catch (e) {
    if (name !== state.chosen || !(e instanceof Refused) || e.status === 401 || e.status >= 500) throw e;
    Object.assign(state, { status: null, error: e.message }); // there is no such target, or it may not be seen
  }
  later();
}

async function overrides(signal) {
  const name = state.chosen;
  if (!name || view !== views.target) return;
  try {
    const answer = await get(path("runtimes", name, "overrides"), signal);
    if (name === state.chosen) state.overrides = { items: items(answer.items).map(override) };
  } catch (e) {
    if (name !== state.chosen || !(e instanceof Refused) || e.status === 401 || e.status >= 500) throw e;
    state.overrides = { items: [], error: e.message };
  }
  later();
}

function override(o) {
  const until = when(o.until);
  return {
    key: o.id ?? o.setting, what: o.setting + (o.state === "standing" ? "" : " (" + o.state + ")"), by: o.by, reason: o.reason,
    from: setting(o.setting, o.from), to: setting(o.setting, o.to),
    left: until ? "in " + duration(Math.max((until - serverNow()) / 1000, 0)) : "unknown",
  };
}

function setting(name, v) {
  if (v === null || v === undefined) return null;
  if (name === "memorylimit" && known(v)) return v > 2 ** 62 ? "none" : mib(v);
  return (name === "gcpercent" && v === -1 ? "off" : String(v)) + (known(v) && v >= 0 && name !== "breaker" ? " %" : "");
}

async function incidents(signal) {
  try {
    const answer = await get("incidents", signal);
    state.incidents = items(answer.items);
    state.incidentsError = null;
  } catch (e) {
    if (!(e instanceof Refused) || e.status === 401 || e.status >= 500) throw e;
    state.incidents = [];
    state.incidentsError = e.message;
  }
  later();
}

async function follow(signal) {
  // The last event that is held is asked for again: where another comes in its
  // place, the sidecar was started anew and counts from the beginning.
  const held = state.events[state.events.length - 1];
  let first = Boolean(held);
  await stream("events", Math.max(state.last - 1, 0), signal, e => {
    const seq = Number(e?.seq);
    if (!Number.isSafeInteger(seq)) return;
    if (first) {
      first = false;
      if (seq === state.last && e.time === held.time) return;
      if (seq <= state.last) {
        Object.assign(state, { events: [], dropped: 0, last: 0 });
        if (seq > 1) throw new Error("the sidecar was started anew");
      }
    }
    if (seq <= state.last) return;
    state.dropped += seq - state.last - 1;
    state.last = seq;
    state.events.push(e);
    if (state.events.length > KEPT) state.dropped += state.events.splice(0, state.events.length - KEPT).length;
    if (e.kind === "incident" || e.incident) loops.incidents.now();
    if (e.kind === "control") loops.overrides.now();
    later();
  });
  if (!document.hidden) throw new Error("the stream of events ended");
}

// What happened to the chosen target, as marks of its plot.
let marked = { of: [], marks: [] };
function marks() {
  const of = [state.chosen, state.incidents, state.last, state.dropped];
  if (of.some((v, i) => v !== marked.of[i])) marked = { of, marks: findMarks() };
  return marked.marks;
}

function findMarks() {
  const out = [], name = state.chosen;
  for (const i of state.incidents ?? []) {
    const t = when(i.time), kind = incidentGrave(i) === "critical" ? "kill" : "ended";
    if (i.target === name && t !== null) out.push({ t, kind, class: kind, text: i.cause + ": " + i.verdict });
  }
  const told = out.map(m => m.t); // ends that an incident tells of
  for (const e of state.events) {
    const t = when(e.time);
    if (e.target !== name || t === null) continue;
    if (e.kind === "ended" && !told.some(at => Math.abs(at - t) < 5000)) out.push({ t, kind: "ended", class: "ended", text: e.text });
    if (e.kind === "control") out.push({ t, kind: "action", class: "action", text: e.text });
    if (e.kind !== "guard" || !e.guard) continue;
    if (e.guard.kind === "raised") out.push({ t, kind: "finding", class: grave(e), text: e.text });
    if (e.guard.kind === "applied" || e.guard.kind === "planned" && e.guard.action?.dry_run) out.push({ t, kind: "action", class: "action", text: e.text });
  }
  return out.sort((a, b) => a.t - b.t).slice(-MOST_MARKS);
}

// past is the last incident of the chosen target.
const past = () => (state.incidents ?? []).filter(i => i.target === state.chosen).sort((a, b) => (when(b.time) ?? 0) - (when(a.time) ?? 0))[0] ?? null;

// announce tells a screen reader of critical findings that are new.
function announce() {
  const now = new Map();
  for (const t of state.targets) {
    for (const f of findingsOf(t)) if (f?.severity === "critical") now.set(t.name + " " + f.id, `${t.name}: ${f.id}. ${f.summary}`);
  }
  const fresh = [...now].filter(([k]) => state.alarmed && !state.alarmed.has(k)).map(([, text]) => text);
  if (fresh.length) set($("alert"), "Critical. " + fresh.slice(0, 3).join(" ") + (fresh.length > 3 ? ` And ${fresh.length - 3} more.` : ""));
  state.alarmed = now;
}

// When there is no answer.

function failed(e, wait) {
  if (e instanceof Refused && e.status === 401) {
    if (!$("ask").open) ask(e.message);
    return;
  }
  if (!link.failures++) link.since = Date.now();
  link.why = e instanceof Refused ? `it answers ${e.status}: ${e.message}` : e.name === "TimeoutError" ? "it does not answer in time" : "it cannot be reached";
  link.next = Date.now() + wait;
  later();
}

// The list is the heartbeat: what else fails has it asked at once.
const also = e => { if (e instanceof Refused && e.status === 401) failed(e, 0); else if (!link.failures) loops.list.now(); };

function ask(why) {
  set($("ask-why"), token.get() ? "The token was refused: " + why : why);
  $("token").value = "";
  $("ask").showModal();
}

function again() { for (const l of Object.values(loops)) l.now(); }

// What is shown.

function route() {
  const parts = location.hash.replace(/^#\/?/, "").split("/").map(p => { try { return decodeURIComponent(p); } catch { return ""; } });
  const before = view;
  if (parts[0] === "incidents" && parts[1]) { view = views.incident; view.open(parts[1]); }
  else if (parts[0] === "incidents") view = views.incidents;
  else if (parts[0] === "events") view = views.events;
  else {
    view = views.target;
    const name = parts[0] === "t" && parts[1] ? parts[1] : null;
    if (name !== state.chosen || !name) {
      Object.assign(state, { chosen: name, status: null, error: null, timeline: { rows: [], points: [] }, overrides: null });
    }
    state.named = Boolean(name);
    if (!name) choose();
    if (state.chosen) open(parts[2]);
  }
  if (view !== before) $("main").replaceChildren(view.el);
  for (const [id, on] of [["targets", view === views.target], ["incidents", view === views.incidents || view === views.incident], ["events", view === views.events]])
    attr($("nav-" + id), "aria-current", on ? "page" : null);
  if (before) (view.head.isConnected ? view.head : $("main")).focus({ preventScroll: true });
  if (before !== view) scrollTo(0, 0);
  render();
  loops.one?.now();
  loops.overrides?.now();
}

// choose takes the target that needs looking at most, where none was asked for.
function choose() {
  if (state.chosen || !state.targets?.length) return;
  const rank = t => ["critical", "warning"].indexOf(worst(t)) + 1 || 3 + (t.state === "waiting");
  state.chosen = [...state.targets].sort((a, b) => rank(a) - rank(b))[0].name;
  open();
  loops.one?.now();
  loops.overrides?.now();
}

function open(tab) {
  views.target.open(state.chosen, tab, id => {
    history.replaceState(null, "", "#/t/" + encodeURIComponent(state.chosen) + "/" + id);
    later();
  });
}

let waiting = false;
function later() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; render(); });
}

function render() {
  renderLink();
  renderList();
  if (view === views.events) view.render(state);
  else if (view === views.incidents) view.render(state);
  else if (view === views.incident) view.render(state);
  else if (view && state.chosen) {
    const t = state.status ?? state.targets?.find(t => t.name === state.chosen) ?? null;
    view.render({ t: state.error ? null : t, timeline: state.timeline, marks: marks(), overrides: state.overrides, past: past(), events: state, error: state.error });
  } else if (view) {
    view.name = "Targets";
    view.render({ t: null, error: state.targets ? "Nothing is watched: the configuration has no rule that makes a target." : null });
  }
  const bad = (state.targets ?? []).filter(t => worst(t) === "critical").length;
  document.title = (bad ? `(${bad} critical) ` : "") + (view === views.target && state.chosen ? state.chosen + " – " : "") + "memguard";
}

function renderLink() {
  const gone = link.failures > 1 || link.failures === 1 && Date.now() - link.ok > 5000;
  attr($("live"), "class", "dot " + (gone ? "critical" : link.ok ? "good" : ""));
  set($("state"), gone ? "no connection" : link.ok ? "live" : "connecting");
  $("gone").hidden = !gone;
  $("frame").classList.toggle("stale", gone);
  if (gone) {
    const left = Math.max(Math.ceil((link.next - Date.now()) / 1000), 0);
    set($("gone-text"), `The sidecar is gone since ${clock(link.since)}: ${link.why}.` + (link.ok ? ` What is shown is of ${clock(link.ok)}.` : "") + (left ? ` Next try in ${left} s.` : " Trying …"));
  }
  $("forget").hidden = !token.get();
}

function renderList() {
  const all = state.targets ?? [], several = all.length > 1, shown = several && view === views.target;
  $("targets").hidden = !shown;
  for (const [c, on] of [["several", several], ["list", shown && !state.named], ["chosen", shown && state.named]]) $("frame").classList.toggle(c, Boolean(on));
  if (!shown) return;
  const bad = all.filter(t => ["critical", "warning"].includes(worst(t))).length, word = $("find").value.trim().toLowerCase();
  document.querySelector(".find").hidden = all.length < 8;
  const fits = all.filter(t => !word || String(t.name).toLowerCase().includes(word));
  set($("tally"), `${count(all.length)} targets` + (bad ? `, ${bad} with findings` : ", nothing wrong") + (word ? `; ${fits.length} found` : ""));
  sync($("target-list"), fits, t => t.name,
    () => h("li", null, h("a", null, h("span", { class: "name" }), h("span", { class: "share" }), h("span"), h("span", { class: "says" }))),
    (li, t) => {
      const a = li.firstChild, [name, share, bar, line] = a.children, m = memory(t), bad = worst(t);
      attr(a, "href", "#/t/" + encodeURIComponent(t.name));
      attr(a, "aria-current", t.name === state.chosen ? "page" : null);
      set(name, t.name);
      set(share, t.guard ? percent(m.usage, m.limit) ?? (m.unlimited ? "no limit" : "") : "");
      meter(bar, t);
      bar.hidden = !known(m.limit);
      const left = t.guard?.time_to_limit_seconds;
      set(line, (known(left) && left < 600 ? duration(left) + " left. " : "") + says(t), 160);
      attr(line, "class", "says " + (bad === "info" ? "" : bad ?? ""));
    });
}

// The theme is the system's unless somebody wants another.
const THEMES = ["auto", "light", "dark"];
function theme(next) {
  let t = "auto";
  try { t = localStorage.getItem("memguard-theme") || "auto"; } catch { /* not kept */ }
  t = document.documentElement.dataset.theme ?? (THEMES.includes(t) ? t : "auto");
  if (next) {
    t = THEMES[(THEMES.indexOf(t) + 1) % THEMES.length];
    try { localStorage.setItem("memguard-theme", t); } catch { /* not kept */ }
  }
  document.documentElement.dataset.theme = t;
  set($("theme"), "Theme: " + t);
}

theme();
$("theme").addEventListener("click", () => theme(true));
$("find").addEventListener("input", later);
$("again").addEventListener("click", again);
$("skip").addEventListener("click", e => { e.preventDefault(); $("main").focus(); });
$("forget").addEventListener("click", () => { token.set(""); ask("The token is forgotten."); });
$("ask-form").addEventListener("submit", () => { token.set($("token").value.trim()); again(); });
addEventListener("hashchange", route);
addEventListener("online", again);

// How often: the list less the longer it takes, and the one that is looked at
// every second.
let took = 0;
const loops = {};
loops.list = new Loop(async s => { const t = performance.now(); await list(s); took = performance.now() - t; }, () => Math.max(3000, 10 * took), failed);
loops.one = new Loop(one, () => 1000, also);
loops.overrides = new Loop(overrides, () => 10_000, also);
loops.incidents = new Loop(incidents, () => 60_000, also);
loops.events = new Loop(follow, () => 0, also);
route();
setInterval(later, 1000);
