// The plot: a target's memory over time as a stacked area under its limit, with
// what happened marked. The cursor is a slider, so that a keyboard, a finger and a
// screen reader can move it; the legend has the figures of the moment it is at.

import { h, svg, attr, set, show, sync, table } from "./dom.js";
import { mib, percent, clock, known, duration } from "./units.js";

const LEFT = 70, RIGHT = 14, TOP = 34, BOTTOM = 26;
const HIGH = 10, LOW = 23; // of marks
const TABLE = 60; // rows of the alternative

// Classes of rows by name; what is not here is "other".
const CLASSES = {
  "go/heap": "heap", "go/heap/live": "live", "go/heap/dead": "dead", "go/heap/unused": "unused", "go/heap/free": "free",
  "go/stacks": "stacks", "stacks": "stacks", "go/metadata": "metadata", "thp/refill": "refill", "anon/other": "anon", "libc": "libc",
  "shmem": "shmem", "binary": "binary", "file": "file", "special": "file", "lazyfree": "lazy", "kernel": "kernel",
  "pagecache/active": "cache", "pagecache/inactive": "cache", "pagecache/locked": "cache", "pagecache": "cache", "deferred-split": "refill", "others": "other", "residual": "rest",
};
export const rowClass = name => "row-" + (Object.hasOwn(CLASSES, name) ? CLASSES[name] : "other");

const REST = "not accounted for";

// The windows that can be chosen, in ms; 0 is all that is kept.
const WINDOWS = [["2 minutes", 120e3], ["10 minutes", 600e3], ["1 hour", 3600e3], ["all", 0]];

const GLYPHS = {
  kill: "M-4.5,-4.5 4.5,4.5M-4.5,4.5 4.5,-4.5", finding: "M0,-5.5 5.5,4.5 -5.5,4.5Z",
  action: "M0,-5.5 5.5,0 0,5.5 -5.5,0Z", ended: "M-4,-4 4,-4 4,4 -4,4Z",
};
const KEYS = [["kill", "kill", "killed"], ["finding", "critical", "critical finding"], ["finding", "warning", "warning"], ["finding", "info", "worth knowing"], ["action", "action", "action"], ["ended", "ended", "ended"]];
const WEIGHT = { kill: 5, critical: 4, warning: 3, ended: 2, action: 1, info: 0 };

// stacked makes of a point's rows the layers that are drawn, the lowest first.
// Memory that Go holds and never touched is counted in the rows of the heap: it is
// taken off the one that is the least used. What no row claims is a layer too.
function stacked(rows, point) {
  const v = rows.map((_, i) => known(point.rows[i]) ? point.rows[i] : null);
  let debt = 0;
  v.forEach((n, i) => { if (n !== null && n < 0) { debt -= n; v[i] = 0; } });
  for (const name of ["go/heap/free", "go/heap/unused", "go/heap/dead", "go/metadata", "anon/other", "go/heap/live"]) {
    const i = rows.indexOf(name);
    if (debt <= 0 || i < 0 || v[i] === null) continue;
    const part = Math.min(debt, v[i]);
    v[i] -= part;
    debt -= part;
  }
  const sum = v.reduce((a, n) => a + (n || 0), 0);
  const some = v.some(n => n !== null);
  return { layers: v, sum, some, rest: known(point.usage) && some ? Math.max(point.usage - sum, 0) : null };
}

// thin keeps of each column of pixels the point with the highest usage: a peak is
// what a limit meets.
function thin(points, from, to, columns) {
  const out = [], width = (to - from) / columns;
  let last = null;
  for (const p of points) {
    if (p.t < from || p.t > to) continue;
    const slot = Math.floor((p.t - from) / width);
    const top = out[out.length - 1];
    if (top && slot === last && top.pid === p.pid) {
      if ((p.usage ?? -1) > (top.usage ?? -1)) out[out.length - 1] = p;
      continue;
    }
    out.push(p);
    last = slot;
  }
  return out;
}

function niceBytes(top) {
  let step = 1 << 20;
  for (let i = 0; top / step > 4.5; i++) step *= [2, 2.5, 2][i % 3];
  return step;
}

function niceTime(span, most) {
  return [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800]
    .map(s => s * 1000).find(s => span / s <= most) || span;
}

export class Plot {
  constructor() {
    this.rows = [];
    this.points = [];
    this.marks = [];
    this.shown = []; // points that are drawn
    this.at = null; // time of the cursor; null is the last point
    this.window = WINDOWS[1][1];

    this.choice = h("select", { id: "window", onchange: () => { this.window = Number(this.choice.value); this.at = null; this.draw(); } },
      ...WINDOWS.map(([name, ms]) => h("option", { value: ms, selected: ms === this.window }, name)));
    this.grid = svg("g");
    this.areas = svg("g");
    this.usage = svg("path", { class: "usageline" });
    this.limit = svg("path", { class: "limitline" });
    this.limitText = svg("text", { class: "limittext", y: 0 });
    this.signs = svg("g");
    this.cursor = svg("line", { class: "cursor", y1: TOP - 8 });
    this.none = svg("text", { class: "none" });
    this.picture = svg("svg", { role: "img", "aria-labelledby": "plot-says" },
      svg("defs", null, svg("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
        svg("line", { class: "hatch", x1: 0, y1: 0, x2: 0, y2: 6 }))),
      this.grid, this.areas, this.usage, this.limit, this.signs, this.cursor, this.limitText, this.none);
    this.scrub = h("input", { type: "range", class: "scrub", min: 0, max: 0, value: 0, "aria-label": "Moment shown", oninput: () => this.moved() });
    this.where = h("p", { class: "at" });
    this.says = h("p", { class: "away", id: "plot-says" });
    this.legendBody = h("tbody");
    this.legendFoot = h("tfoot");
    this.legend = h("div", { class: "legend" }, h("table", null, h("caption", { class: "away" }, "Memory at the moment shown"),
      h("thead", { class: "away" }, h("tr", null, h("th", { scope: "col" }, "owner"), h("th", { scope: "col" }, "memory"), h("th", { scope: "col" }, "of usage"))),
      this.legendBody, this.legendFoot));
    this.moments = table("Memory over time, the newest first", [
      { head: "time", class: "l", text: p => clock(p.t) },
      { head: "usage", text: p => mib(p.usage) },
      { head: "limit", text: p => p.unlimited ? "none" : mib(p.limit) },
      { head: "largest owner", class: "l", text: p => this.largest(p) },
    ], p => p.t);
    this.happened = table("What happened in this time, the newest first", [
      { head: "time", class: "l", text: m => clock(m.t) },
      { head: "what", class: "l", text: m => m.kind === "finding" ? "finding, " + m.class : m.kind === "kill" ? "killed" : m.kind },
      { head: "", class: "l text", text: m => m.text },
    ], m => m.t + m.kind + m.text);
    this.alternative = h("details", { class: "below", ontoggle: () => this.drawTable() }, h("summary", null, "This plot as tables"), this.moments.el, h("h3", null, "What happened"), this.happened.el);

    const draw = h("div", { class: "draw" }, this.picture, this.says);
    this.el = h("section", { class: "plot", "aria-labelledby": "plot-head" },
      h("div", { class: "plothead" }, h("h2", { id: "plot-head" }, "Memory over time"), h("span", null, h("label", { class: "note", for: "window" }, "Show"), this.choice)),
      h("div", { class: "plotbody" },
        h("div", null, draw, this.scrub, this.where,
          h("ul", { class: "keys", "aria-label": "Marks" }, ...KEYS.map(([kind, cls, text]) =>
            h("li", { class: `mark ${cls} m-${kind}` }, svg("svg", { viewBox: "-6 -6 12 12", "aria-hidden": "true" }, svg("path", { d: GLYPHS[kind] })), h("span", { class: "word" }, text))))),
        this.legend),
      this.alternative);
    this.picture.addEventListener("pointermove", e => this.point(e));
    this.picture.addEventListener("pointerdown", e => this.point(e));
    this.picture.addEventListener("pointerleave", e => { if (e.pointerType === "mouse") { this.at = null; this.drawCursor(); } });
    new ResizeObserver(() => this.draw()).observe(draw);
  }

  // update takes rows (names, the lowest of the stack first), points ({t, pid,
  // usage, limit, rows}) in order of time, and marks ({t, kind, class, text}).
  update(rows, points, marks) {
    Object.assign(this, { rows, points, marks });
    this.draw();
  }

  largest(p) {
    let best = -1, most = 0;
    p.rows.forEach((n, i) => { if (known(n) && n > most) { best = i; most = n; } });
    return best < 0 ? null : this.rows[best] + ", " + mib(most);
  }

  draw() {
    const w = this.picture.clientWidth, height = this.picture.clientHeight;
    if (!w) return; // not shown
    attr(this.picture, "viewBox", `0 0 ${w} ${height}`);
    const pts = this.points, end = pts.length ? pts[pts.length - 1].t : 0;
    const marksEnd = this.marks.length ? this.marks[this.marks.length - 1].t : 0;
    const to = Math.max(end, Math.min(marksEnd, end + 60e3));
    let from = this.window ? to - this.window : (pts.length ? pts[0].t : 0);
    // A target that was found a moment ago is not drawn as a sliver at the right.
    if (pts.length) from = Math.max(from, Math.min(pts[0].t, to - 30e3));
    Object.assign(this, { w, height, from, to: Math.max(to, from + 1000) });
    const columns = Math.max(Math.floor((w - LEFT - RIGHT) / 2), 1);
    this.shown = thin(pts, this.from, this.to, columns);
    this.none.textContent = this.shown.length ? "" : "Nothing has been seen yet";
    attr(this.none, "x", w / 2);
    attr(this.none, "y", height / 2);
    this.scale();
    this.drawGrid();
    this.drawAreas();
    this.drawMarks();
    this.drawCursor();
    this.drawTable();
  }

  x(t) { return LEFT + (t - this.from) / (this.to - this.from) * (this.w - LEFT - RIGHT); }
  y(bytes) { return TOP + (1 - bytes / this.top) * (this.height - TOP - BOTTOM); }

  // scale fits the limit in, unless that would press the memory flat.
  scale() {
    let used = 0, limit = 0;
    for (const p of this.shown) {
      used = Math.max(used, p.usage || 0, stacked(this.rows, p).sum);
      limit = Math.max(limit, p.limit || 0);
    }
    this.beyond = limit > 6 * used;
    this.top = Math.max(used, this.beyond ? 0 : limit, 1 << 20) * 1.06;
  }

  drawGrid() {
    const step = niceBytes(this.top), lines = [];
    for (let v = 0; v <= this.top; v += step) lines.push({ k: "y" + v, v });
    const every = niceTime(this.to - this.from, Math.max((this.w - LEFT - RIGHT) / 84, 2));
    const zone = new Date(this.to).getTimezoneOffset() * 60e3;
    for (let t = Math.ceil((this.from - zone) / every) * every + zone; t <= this.to; t += every) lines.push({ k: "x" + t, t });
    sync(this.grid, lines, l => l.k,
      () => svg("g", null, svg("line"), svg("text")),
      (g, l) => {
        const [line, text] = g.children;
        if (l.t === undefined) {
          const y = Math.round(this.y(l.v)) + 0.5;
          for (const [k, v] of Object.entries({ class: "gridline", x1: LEFT, x2: this.w - RIGHT, y1: y, y2: y })) attr(line, k, v);
          for (const [k, v] of Object.entries({ class: "y", x: LEFT - 8, y: y + 4 })) attr(text, k, v);
          set(text, l.v ? Math.round(l.v / (1 << 20)) + " MiB" : "0");
          return;
        }
        const x = Math.round(this.x(l.t)) + 0.5, y = this.height - BOTTOM;
        for (const [k, v] of Object.entries({ class: "tickline", x1: x, x2: x, y1: y, y2: y + 4 })) attr(line, k, v);
        for (const [k, v] of Object.entries({ class: "x", x: Math.min(Math.max(x, 30), this.w - 28), y: y + 18 })) attr(text, k, v);
        set(text, every >= 60e3 ? clock(l.t).replace(/:00$/, "") : clock(l.t));
      });
  }

  // lives cuts the points where the process changed or nothing was seen: where a
  // gap is far longer than those around it, for what is old is kept less finely.
  lives() {
    const gap = i => i > 0 && i < this.shown.length ? this.shown[i].t - this.shown[i - 1].t : 0;
    const out = [];
    this.shown.forEach((p, i) => {
      const life = out[out.length - 1], around = Math.max(...[-3, -2, -1, 1, 2, 3].map(d => gap(i + d)));
      if (!life || p.pid !== life[0].pid || gap(i) > Math.max(3 * around, 5000)) out.push([p]);
      else life.push(p);
    });
    return out;
  }

  drawAreas() {
    const names = [...this.rows, REST], d = names.map(() => ""), lives = this.lives();
    const n = v => v.toFixed(1);
    let usage = "", limit = "", lastLimit = null;
    const starts = [];
    for (const life of lives) {
      starts.push(life[0]);
      let run = []; // points whose rows are known
      const flush = () => {
        if (!run.length) return;
        const low = run.map(() => 0);
        names.forEach((_, i) => {
          const high = run.map((r, k) => low[k] + ((i < this.rows.length ? r.s.layers[i] : r.s.rest) || 0));
          if (high.some((v, k) => v > low[k])) {
            // One look alone is a bar of two pixels.
            const xs = run.length > 1 ? run.map(r => n(this.x(r.p.t))) : [n(this.x(run[0].p.t) - 1), n(this.x(run[0].p.t) + 1)];
            const at = k => run.length > 1 ? k : 0;
            d[i] += "M" + xs.map((x, k) => x + "," + n(this.y(high[at(k)]))).join("L") +
              "L" + xs.map((x, k) => x + "," + n(this.y(low[at(k)]))).reverse().join("L") + "Z";
          }
          high.forEach((v, k) => { low[k] = v; });
        });
        run = [];
      };
      let pen = "M";
      for (const p of life) {
        const s = stacked(this.rows, p);
        if (s.some) run.push({ p, s });
        else flush();
        if (known(p.usage)) { usage += pen + n(this.x(p.t)) + "," + n(this.y(p.usage)); pen = "L"; } else pen = "M";
      }
      flush();
    }
    for (const p of this.shown) {
      if (!known(p.limit) || this.beyond) { lastLimit = null; continue; }
      limit += lastLimit === null ? "M" + n(this.x(p.t)) + "," + n(this.y(p.limit)) : "H" + n(this.x(p.t)) + "V" + n(this.y(p.limit));
      lastLimit = p.limit;
    }
    if (lastLimit !== null) limit += "H" + (this.w - RIGHT);
    sync(this.areas, names.map((name, i) => ({ name, d: d[i] })), a => a.name, () => svg("path"), (el, a) => {
      attr(el, "class", "area " + (a.name === REST ? "row-rest" : rowClass(a.name)));
      attr(el, "data-row", a.name);
      attr(el, "d", a.d);
    });
    attr(this.usage, "d", usage);
    attr(this.limit, "d", limit);
    const last = this.shown[this.shown.length - 1];
    if (last && known(last.limit)) {
      set(this.limitText, "limit " + mib(last.limit) + (this.beyond ? " ↑" : ""));
      const from = this.shown.find(p => known(p.limit)), right = this.w - RIGHT - 130;
      attr(this.limitText, "x", Math.max(Math.min(this.x(from.t), right), LEFT) + 6);
      attr(this.limitText, "y", this.beyond ? TOP + 12 : Math.max(this.y(last.limit) + 15, 12));
    } else set(this.limitText, "");
    this.starts = starts.slice(1).filter((p, i) => p.pid !== lives[i][lives[i].length - 1].pid);
  }

  drawMarks() {
    const inside = this.marks.filter(m => m.t >= this.from && m.t <= this.to);
    this.marksShown = inside;
    // Findings are below what was done and what it came to. Marks that would cover
    // each other become one: the gravest, and their number.
    const groups = [], rows = { [HIGH]: null, [LOW]: null };
    for (const m of inside) {
      const y = m.kind === "finding" ? LOW : HIGH, last = rows[y], x = this.x(m.t);
      if (last && x - last.x < 9 && (last.m.kind === "kill") === (m.kind === "kill")) {
        last.n++;
        if (WEIGHT[m.class] > WEIGHT[last.m.class]) last.m = m;
      } else groups.push(rows[y] = { m, x, y, n: 1 });
    }
    const lives = this.starts.map(p => ({ life: p }));
    sync(this.signs, [...lives, ...groups], g => g.life ? "life" + g.life.t : g.m.t + g.m.kind,
      g => g.life ? svg("line", { class: "life" }) : svg("g", null, svg("line"), svg("path"), svg("title")),
      (el, g) => {
        if (g.life) {
          const x = this.x(g.life.t);
          for (const [k, v] of Object.entries({ x1: x, x2: x, y1: TOP, y2: this.height - BOTTOM })) attr(el, k, v);
          return;
        }
        const [line, path, title] = el.children;
        attr(el, "class", `mark ${g.m.class} m-${g.m.kind}`);
        attr(el, "transform", `translate(${g.x.toFixed(1)},${g.y})`);
        attr(line, "y1", 7);
        attr(line, "y2", this.height - BOTTOM - g.y);
        attr(path, "d", GLYPHS[g.m.kind]);
        set(title, clock(g.m.t) + " " + g.m.text + (g.n > 1 ? ` (and ${g.n - 1} more)` : ""));
      });
  }

  point(e) {
    if (!this.shown.length) return;
    const box = this.picture.getBoundingClientRect(), t = this.from + (e.clientX - box.left - LEFT) / (this.w - LEFT - RIGHT) * (this.to - this.from);
    let best = 0;
    this.shown.forEach((p, i) => { if (Math.abs(p.t - t) < Math.abs(this.shown[best].t - t)) best = i; });
    this.at = this.shown[best].t;
    this.drawCursor();
  }

  moved() {
    const i = Number(this.scrub.value);
    this.at = i >= this.shown.length - 1 ? null : this.shown[i].t;
    this.drawCursor();
  }

  index() {
    if (this.at === null) return this.shown.length - 1;
    let best = 0;
    this.shown.forEach((p, i) => { if (Math.abs(p.t - this.at) < Math.abs(this.shown[best].t - this.at)) best = i; });
    return best;
  }

  drawCursor() {
    const i = this.index(), p = this.shown[i];
    this.cursor.style.display = p && this.at !== null ? "" : "none";
    this.scrub.max = Math.max(this.shown.length - 1, 0);
    this.scrub.value = Math.max(i, 0);
    this.scrub.disabled = !p;
    if (!p) {
      set(this.where, "");
      set(this.says, "Memory over time: nothing has been seen yet.");
      return;
    }
    const x = this.x(p.t);
    for (const [k, v] of Object.entries({ x1: x, x2: x, y2: this.height - BOTTOM })) attr(this.cursor, k, v);
    const of = known(p.limit) ? " of " + mib(p.limit) : "";
    const near = this.marksShown.filter(m => Math.abs(this.x(m.t) - x) < 7).slice(-3);
    const usage = (mib(p.usage) ?? "unknown") + of;
    this.scrub.setAttribute("aria-valuetext", [clock(p.t), usage, ...near.map(m => m.text)].join(", "));
    sync(this.where, [["b", clock(p.t)], ["u", " " + usage + ", pid " + p.pid], ...near.map((m, k) => ["m" + k, " · " + m.text])], w => w[0],
      w => h(w[0] === "b" ? "b" : "span"), (el, w) => set(el, w[1], 300));
    this.drawLegend(p);
    const top = this.shown.reduce((a, q) => Math.max(a, q.usage || 0), 0);
    set(this.says, `Stacked areas of memory by owner over ${duration((this.to - this.from) / 1000)}: now ${mib(this.shown[this.shown.length - 1].usage) ?? "unknown"}${of}, ` +
      `at most ${mib(top)}; ${this.marksShown.length} marks. The slider below moves through it; tables follow.`);
  }

  drawLegend(p) {
    const s = stacked(this.rows, p);
    const rows = this.rows.map((name, i) => ({ name, n: known(p.rows[i]) ? p.rows[i] : null })).reverse()
      .filter(r => r.n !== 0 || this.shown.some(q => q.rows[this.rows.indexOf(r.name)]));
    if (s.rest === null || s.rest > 0.005 * this.top) rows.unshift({ name: REST, n: s.rest, class: "row-rest" });
    const line = () => h("tr", null, h("th", { scope: "row" }, h("i", { class: "chip" }), h("span")), h("td"), h("td", { class: "part" }));
    const fill = (tr, r) => {
      attr(tr.firstChild.firstChild, "class", "chip " + (r.class ?? rowClass(r.name)));
      set(tr.firstChild.lastChild, r.name, 40);
      show(tr.children[1], r.none ?? mib(r.n));
      set(tr.children[2], r.name === "limit" ? "" : percent(r.n, p.usage) ?? "");
    };
    sync(this.legendBody, rows, r => r.name, line, fill);
    sync(this.legendFoot, [{ name: "usage", n: p.usage, class: "usage" }, { name: "limit", n: p.limit, class: "limit", none: p.unlimited ? "none" : null }], r => r.name, line, fill);
  }

  drawTable() {
    if (!this.alternative.open) return;
    const step = Math.max(Math.ceil(this.shown.length / TABLE), 1);
    this.moments.set(this.shown.filter((_, i) => (this.shown.length - 1 - i) % step === 0).reverse());
    this.happened.set(this.marksShown.slice(-TABLE).reverse());
  }
}
