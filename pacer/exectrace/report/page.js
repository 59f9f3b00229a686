// Draws the timeline of page.html from the JSON in #data (type data in html.go).
(function () {
  "use strict";
  const D = JSON.parse(document.getElementById("data").textContent);
  const view = document.getElementById("view"), all = document.getElementById("all");
  const tip = document.getElementById("tip"), box = document.getElementById("timeline");
  if (!D.span) { box.hidden = true; return; }
  const MIN = 1000; // ns, the closest zoom
  let t0 = 0, t1 = D.span, color = {}, drag = null, hover = null;

  function colors() {
    const css = getComputedStyle(document.documentElement);
    for (const k of ["p0", "p1", "p2", "p3", "p4", "heap", "heapfill", "goal", "stop", "line", "soft", "faint", "ink", "panel"])
      color[k] = css.getPropertyValue("--" + k).trim();
  }
  function dur(ns) {
    const a = Math.abs(ns);
    const [u, n] = a >= 1e9 ? [1e9, "s"] : a >= 1e6 ? [1e6, "ms"] : a >= 1e3 ? [1e3, "µs"] : [1, "ns"];
    return +(ns / u).toPrecision(3) + n;
  }
  function size(b) {
    if (b < 0) return "?";
    const [u, n] = b >= 2 ** 30 ? [2 ** 30, "GiB"] : b >= 2 ** 20 ? [2 ** 20, "MiB"] : b >= 1024 ? [1024, "KiB"] : [1, "B"];
    return +(b / u).toPrecision(3) + " " + n;
  }
  // The first row whose column c is above v.
  function after(rows, c, v) {
    let lo = 0, hi = rows.length;
    while (lo < hi) { const m = (lo + hi) >> 1; if (rows[m][c] > v) hi = m; else lo = m + 1; }
    return lo;
  }

  // Layout, in CSS pixels.
  const L = 62, R = 12, PH = 14, PG = 54, SH = 64, SG = 10;
  function setup(c) {
    const r = window.devicePixelRatio || 1, w = c.clientWidth, h = c.clientHeight;
    if (c.width !== Math.round(w * r) || c.height !== Math.round(h * r)) { c.width = Math.round(w * r); c.height = Math.round(h * r); }
    const g = c.getContext("2d");
    g.setTransform(r, 0, 0, r, 0, 0);
    g.clearRect(0, 0, w, h);
    g.font = "12px system-ui, sans-serif";
    return [g, w, h];
  }

  // Phases as columns of one pixel, stacked by their share of it.
  function phases(g, a, b, x0, w, y, h) {
    const per = (b - a) / w, n = D.phases.length;
    let i = Math.max(after(D.segments, 1, a), 0);
    g.fillStyle = color.p0;
    g.fillRect(x0, y, w, h);
    for (let x = 0; x < w; x++) {
      const from = a + x * per, to = from + per, part = new Array(n).fill(0);
      while (i < D.segments.length && D.segments[i][1] <= from) i++;
      for (let k = i; k < D.segments.length && D.segments[k][0] < to; k++) {
        const s = D.segments[k], d = Math.min(s[1], to) - Math.max(s[0], from);
        if (s.length > 5) for (let p = 0; p < n; p++) part[p] += d * s[5 + p] / (s[1] - s[0]);
        else part[s[2]] += d;
      }
      let top = y + h;
      for (let p = 1; p < n; p++) {
        if (!part[p]) continue;
        const ph = Math.max(h * part[p] / per, 1);
        top -= ph;
        g.fillStyle = color["p" + p];
        g.fillRect(x0 + x, Math.max(top, y), 1, ph);
      }
    }
  }

  function nice(v) {
    const e = 2 ** Math.floor(Math.log2(v / 4));
    return [1, 2, 4].map(k => k * e).find(s => v / s <= 4.5) || 4 * e;
  }
  function ticks(a, b, n) {
    const raw = (b - a) / n, e = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map(k => k * e).find(s => s >= raw);
    const out = [];
    for (let t = Math.ceil(a / step) * step; t <= b; t += step) out.push(t);
    return out;
  }

  function heap(g, a, b, x0, w, y, h, axis) {
    const X = t => x0 + (t - a) / (b - a) * w;
    let i = Math.max(after(D.points, 0, a) - 1, 0), end = after(D.points, 0, b);
    // Before the window: what was last reported.
    let last = -1, goal = -1;
    for (let k = i; k >= 0 && (last < 0 || goal < 0); k--) {
      if (last < 0) last = D.points[k] ? D.points[k][3] : -1;
      if (goal < 0) goal = D.points[k] ? D.points[k][4] : -1;
    }
    let top = Math.max(last, 0), goals = goal;
    for (let k = i; k < end; k++) { top = Math.max(top, D.points[k][2]); goals = Math.max(goals, D.points[k][4]); }
    // A goal far above the heap is cut off rather than pressing the heap flat.
    const goalTop = Math.min(goals, 2 * top);
    top = Math.max(top, goalTop, 1) * 1.08;
    const Y = v => y + h - Math.min(v / top, 1.2) * h;
    if (axis) {
      const step = nice(top);
      g.fillStyle = color.soft; g.strokeStyle = color.line; g.lineWidth = 1; g.textAlign = "right"; g.textBaseline = "middle";
      for (let v = 0; v <= top; v += step) {
        const yy = Math.round(Y(v)) + 0.5;
        g.beginPath(); g.moveTo(x0, yy); g.lineTo(x0 + w, yy); g.stroke();
        if (yy > y + 4) g.fillText(size(v), x0 - 6, yy);
      }
    }
    g.save(); g.beginPath(); g.rect(x0, y, w, h + 1); g.clip();
    // The heap, as steps; within a point its range is filled.
    g.beginPath();
    const line = new Path2D();
    let started = false, v = last;
    for (let k = i; k < end; k++) {
      const p = D.points[k];
      if (p[3] < 0) continue;
      const x = X(Math.max(p[0], a));
      if (!started) { g.moveTo(X(a), Y(0)); g.lineTo(X(a), Y(v < 0 ? p[3] : v)); line.moveTo(X(a), Y(v < 0 ? p[3] : v)); started = true; }
      else { g.lineTo(x, Y(v)); line.lineTo(x, Y(v)); }
      g.lineTo(x, Y(p[2])); line.lineTo(x, Y(p[2]));
      if (p[1] !== p[2]) line.lineTo(x, Y(p[1]));
      line.lineTo(x, Y(p[3])); g.lineTo(x, Y(p[3]));
      v = p[3];
    }
    if (started || v >= 0) {
      if (!started) { g.moveTo(X(a), Y(0)); g.lineTo(X(a), Y(v)); line.moveTo(X(a), Y(v)); }
      g.lineTo(x0 + w, Y(v)); line.lineTo(x0 + w, Y(v));
      g.lineTo(x0 + w, Y(0));
      g.fillStyle = color.heapfill; g.fill();
      g.strokeStyle = color.heap; g.lineWidth = axis ? 1.5 : 1; g.stroke(line);
    }
    // The goal.
    g.beginPath(); g.setLineDash(axis ? [5, 4] : [3, 3]); g.strokeStyle = color.goal; g.lineWidth = axis ? 1.5 : 1;
    let on = goal >= 0;
    if (on) g.moveTo(X(a), Y(goal));
    for (let k = i; k < end; k++) {
      const p = D.points[k];
      if (p[4] < 0) continue;
      const x = X(Math.max(p[0], a));
      if (on) g.lineTo(x, Y(goal));
      if (on) g.lineTo(x, Y(p[4])); else g.moveTo(x, Y(p[4]));
      goal = p[4]; on = true;
    }
    if (on) { g.lineTo(x0 + w, Y(goal)); g.stroke(); }
    g.restore();
    if (axis && goals > top) {
      g.fillStyle = color.soft; g.textAlign = "right"; g.textBaseline = "top";
      g.fillText("goal up to " + size(goals) + " ↑", x0 + w - 2, y + 2);
    }
  }

  // Stops, by length on a log scale from 1 µs to 100 ms.
  function stopY(len, y, h) { return y + h - Math.min(Math.max(Math.log10(len / 1e3) / 5, 0.03), 1) * h; }
  function stops(g, a, b, x0, w, y, h) {
    g.fillStyle = color.soft; g.strokeStyle = color.line; g.textAlign = "right"; g.textBaseline = "middle"; g.lineWidth = 1;
    for (const [v, s] of [[1e4, "10µs"], [1e6, "1ms"], [1e8, "100ms"]]) {
      const yy = Math.round(stopY(v, y, h)) + 0.5;
      g.beginPath(); g.moveTo(x0, yy); g.lineTo(x0 + w, yy); g.stroke();
      g.fillText(s, x0 - 6, yy);
    }
    const limit = Math.round(stopY(5e5, y, h)) + 0.5;
    g.setLineDash([2, 4]); g.strokeStyle = color.stop; g.beginPath(); g.moveTo(x0, limit); g.lineTo(x0 + w, limit); g.stroke(); g.setLineDash([]);
    g.fillStyle = color.stop; g.strokeStyle = color.stop;
    for (const p of D.pauses) {
      if (p[0] + p[1] < a || p[0] > b) continue;
      const x = x0 + (p[0] - a) / (b - a) * w, wide = p[1] / (b - a) * w, yy = stopY(p[1], y, h);
      if (wide > 3) { g.globalAlpha = 0.35; g.fillRect(Math.max(x, x0), yy, Math.min(wide, x0 + w - x), y + h - yy); g.globalAlpha = 1; }
      g.lineWidth = 1.25; g.beginPath(); g.moveTo(x, y + h); g.lineTo(x, yy); g.stroke();
      if (x >= x0 - 1) { g.beginPath(); g.arc(x, yy, 2.6, 0, 7); g.fill(); }
    }
  }

  function draw() {
    colors();
    let [g, w, h] = setup(view);
    const pw = w - L - R, hy = PH + PG + SG + SH + 16, hh = h - hy - 24;
    g.textAlign = "right"; g.textBaseline = "middle"; g.fillStyle = color.soft;
    g.fillText("phase", L - 6, PH + PG / 2);
    phases(g, t0, t1, L, Math.floor(pw), PH, PG);
    // Numbers of cycles, where there is room.
    g.textAlign = "center"; g.textBaseline = "alphabetic"; g.fillStyle = color.soft;
    let free = -1;
    for (const c of D.cycles) {
      if (c[1] < 0 || c[1] < t0 || c[1] > t1) continue;
      const x = L + (c[1] - t0) / (t1 - t0) * pw, s = "" + c[0], half = g.measureText(s).width / 2 + 3;
      if (x - half > free) { g.fillText(s, x, PH - 3); free = x + half; }
    }
    g.save(); g.beginPath(); g.rect(0, PH + PG, w - R + 3, SG + SH + 8); g.clip();
    stops(g, t0, t1, L, pw, PH + PG + SG, SH);
    g.restore();
    heap(g, t0, t1, L, pw, hy, hh, true);
    g.textBaseline = "top"; g.textAlign = "center"; g.fillStyle = color.soft; g.strokeStyle = color.faint; g.lineWidth = 1;
    const digits = Math.max(0, 1 - Math.floor(Math.log10((t1 - t0) / 8)));
    for (const t of ticks(t0, t1, Math.max(2, Math.floor(pw / 110)))) {
      const x = Math.round(L + (t - t0) / (t1 - t0) * pw) + 0.5;
      g.beginPath(); g.moveTo(x, hy + hh); g.lineTo(x, hy + hh + 4); g.stroke();
      const unit = t1 >= 1e9 ? [1e9, "s"] : t1 >= 1e6 ? [1e6, "ms"] : [1e3, "µs"];
      const label = +(t / unit[0]).toFixed(Math.min(20, Math.max(0, digits + Math.log10(unit[0])))) + unit[1];
      const half = g.measureText(label).width / 2;
      g.fillText(label, Math.min(Math.max(x, half), w - half - 1), hy + hh + 7);
    }
    if (drag && drag.select) {
      const xa = Math.min(drag.x, drag.now), xb = Math.max(drag.x, drag.now);
      g.fillStyle = color.ink; g.globalAlpha = 0.1; g.fillRect(xa, 0, xb - xa, hy + hh); g.globalAlpha = 1;
    } else if (hover !== null) {
      g.strokeStyle = color.faint; g.beginPath(); g.moveTo(hover + 0.5, PH); g.lineTo(hover + 0.5, hy + hh); g.stroke();
    }
    [g, w, h] = setup(all);
    phases(g, 0, D.span, L, Math.floor(w - L - R), 6, 9);
    heap(g, 0, D.span, L, w - L - R, 18, h - 22, false);
    const xa = L + t0 / D.span * (w - L - R), xb = L + t1 / D.span * (w - L - R);
    g.fillStyle = color.panel; g.globalAlpha = 0.72; g.fillRect(L, 0, xa - L, h); g.fillRect(xb, 0, w - R - xb, h); g.globalAlpha = 1;
    g.strokeStyle = color.soft; g.lineWidth = 1; g.strokeRect(Math.round(xa) + 0.5, 1.5, Math.max(Math.round(xb - xa) - 1, 2), h - 3);
    document.getElementById("range").textContent = t0 > 0 || t1 < D.span ? dur(t0) + " + " + dur(t1 - t0) : dur(D.span);
  }

  let queued = false;
  function redraw() { if (!queued) { queued = true; requestAnimationFrame(() => { queued = false; draw(); }); } }
  function show(a, b) {
    const len = Math.min(Math.max(b - a, MIN), D.span);
    t0 = Math.min(Math.max(a, 0), D.span - len);
    t1 = t0 + len;
    redraw();
  }
  function zoom(k, at) { show(at - (at - t0) * k, at + (t1 - at) * k); }
  const time = x => t0 + Math.min(Math.max((x - L) / (view.clientWidth - L - R), 0), 1) * (t1 - t0);

  function describe(t) {
    const s = D.segments[Math.min(after(D.segments, 1, t), D.segments.length - 1)];
    const k = after(D.points, 0, t) - 1;
    let heapNow = -1, goalNow = -1;
    for (let i = k; i >= 0 && (heapNow < 0 || goalNow < 0); i--) {
      if (heapNow < 0) heapNow = D.points[i][3];
      if (goalNow < 0) goalNow = D.points[i][4];
    }
    const lines = ["at " + +(t / 1e6).toFixed(3) + "ms"];
    if (s) lines.push((s.length > 5 ? "mostly " : "") + D.phases[s[2]] + ", " + dur(s[1] - s[0]));
    const cyc = D.cycles.find(c => c[1] >= 0 && c[1] <= t && (c[2] < 0 || t <= c[2]));
    if (cyc) lines.push("cycle " + cyc[0]);
    lines.push("heap " + size(heapNow) + ", goal " + (goalNow < 0 ? "unknown" : size(goalNow)));
    const near = (t1 - t0) / (view.clientWidth - L - R) * 5;
    let worst = null;
    for (const p of D.pauses) if (p[0] - near <= t && t <= p[0] + p[1] + near && (!worst || p[1] > worst[1])) worst = p;
    if (worst) lines.push("stopped " + dur(worst[1]) + ": " + D.reasons[worst[2]]);
    return lines.join("\n");
  }
  function point(x, y) {
    if (x < L || x > view.clientWidth - R) { leave(); return; }
    hover = x;
    tip.textContent = describe(time(x));
    tip.style.display = "block";
    const w = tip.offsetWidth;
    tip.style.left = (x + 14 + w > box.clientWidth ? Math.max(x - 14 - w, 2) : x + 14) + "px";
    tip.style.top = (view.offsetTop + Math.max(y - 20, 4)) + "px";
    redraw();
  }
  function leave() { hover = null; tip.style.display = "none"; redraw(); }

  // One pointer selects (a mouse) or pans (a finger); two pinch.
  const fingers = new Map();
  view.addEventListener("pointerdown", e => {
    fingers.set(e.pointerId, e.offsetX);
    view.setPointerCapture(e.pointerId);
    drag = fingers.size === 1 ? { x: e.offsetX, now: e.offsetX, select: e.pointerType === "mouse", t0, t1 } : null;
  });
  view.addEventListener("pointermove", e => {
    if (fingers.size === 2 && fingers.has(e.pointerId)) {
      const [a, b] = [...fingers.values()], before = Math.abs(a - b);
      fingers.set(e.pointerId, e.offsetX);
      const [c, d] = [...fingers.values()], now = Math.abs(c - d);
      if (before > 4 && now > 4) zoom(before / now, time((c + d) / 2));
      return;
    }
    if (drag) {
      drag.now = e.offsetX;
      if (!drag.select) {
        const by = (drag.x - drag.now) / (view.clientWidth - L - R) * (drag.t1 - drag.t0);
        show(drag.t0 + by, drag.t1 + by);
      }
    }
    point(e.offsetX, e.offsetY);
  });
  function up(e) {
    fingers.delete(e.pointerId);
    if (drag && drag.select && Math.abs(drag.x - drag.now) > 4) {
      const a = time(Math.min(drag.x, drag.now)), b = time(Math.max(drag.x, drag.now));
      drag = null;
      show(a, b);
    }
    drag = null;
    redraw();
  }
  view.addEventListener("pointerup", up);
  view.addEventListener("pointercancel", up);
  view.addEventListener("pointerleave", leave);
  view.addEventListener("dblclick", () => show(0, D.span));
  view.addEventListener("wheel", e => {
    if (!e.ctrlKey && !e.shiftKey) return;
    e.preventDefault();
    if (e.shiftKey) { const by = (e.deltaX || e.deltaY) / 600 * (t1 - t0); show(t0 + by, t1 + by); }
    else zoom(Math.exp(e.deltaY / 300), time(e.offsetX));
  }, { passive: false });
  view.addEventListener("keydown", e => {
    const step = (t1 - t0) / 5, mid = (t0 + t1) / 2;
    switch (e.key) {
      case "ArrowLeft": show(t0 - step, t1 - step); break;
      case "ArrowRight": show(t0 + step, t1 + step); break;
      case "+": case "=": zoom(0.5, mid); break;
      case "-": zoom(2, mid); break;
      case "0": case "Escape": show(0, D.span); break;
      default: return;
    }
    e.preventDefault();
  });
  // The overview moves the window.
  function move(e) {
    const t = (e.offsetX - L) / (all.clientWidth - L - R) * D.span, half = (t1 - t0) / 2;
    show(t - half, t + half);
  }
  all.addEventListener("pointerdown", e => { all.setPointerCapture(e.pointerId); move(e); });
  all.addEventListener("pointermove", e => { if (e.buttons) move(e); });
  document.getElementById("in").onclick = () => zoom(0.5, (t0 + t1) / 2);
  document.getElementById("out").onclick = () => zoom(2, (t0 + t1) / 2);
  document.getElementById("reset").onclick = () => show(0, D.span);
  // A link may name a stretch: #100ms+20ms.
  const m = /^#([\d.]+)ms\+([\d.]+)ms$/.exec(location.hash);
  if (m) show(m[1] * 1e6, m[1] * 1e6 + m[2] * 1e6);
  addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  draw();
})();
