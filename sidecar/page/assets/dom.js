// Elements and text. Nothing that came from a target is ever parsed as HTML: what
// is shown goes through clean and becomes a text node.

const SVG = "http://www.w3.org/2000/svg";

// Control characters, and those that turn the direction of text around, would let
// a process name pretend to be something else.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

// clean makes a string fit to be shown: printable, and no longer than most.
export function clean(value, most = 600) {
  let s = String(value ?? "");
  if (s.length > most) s = s.slice(0, most) + "…";
  return s.replace(HIDDEN, "\ufffd");
}

// items are what should be a list, as one.
export const items = x => Array.isArray(x) ? x.filter(i => i !== null && i !== undefined) : [];

// set writes text into an element, and leaves it alone where that changes nothing:
// a selection or a screen reader's place in it stays.
export function set(el, value, most) {
  const s = clean(value, most);
  if (el.textContent !== s) el.textContent = s;
  return el;
}

export function attr(el, name, value) {
  if (value === null || value === undefined || value === false) {
    if (el.hasAttribute(name)) el.removeAttribute(name);
    return;
  }
  const s = value === true ? "" : String(value);
  if (el.getAttribute(name) !== s) el.setAttribute(name, s);
}

function fill(el, attrs, kids) {
  for (const [k, v] of Object.entries(attrs || {})) {
    if (k.startsWith("on")) el.addEventListener(k.slice(2), v);
    else attr(el, k, v);
  }
  for (const kid of kids) {
    if (kid === null || kid === undefined) continue;
    el.append(kid instanceof Node ? kid : clean(kid, 4000));
  }
  return el;
}

export const h = (tag, attrs, ...kids) => fill(document.createElement(tag), attrs, kids);
export const svg = (tag, attrs, ...kids) => fill(document.createElementNS(SVG, tag), attrs, kids);

// sync makes the children of parent those of items: elements are kept by key, made
// once, filled each time, and moved only when their order changes. So the DOM is
// as large as items, and what is open or focused stays so.
export function sync(parent, items, key, make, fillIn) {
  const old = parent.kept || new Map(), now = new Map();
  let at = parent.firstChild;
  for (const item of items) {
    let k = String(key(item));
    while (now.has(k)) k += "'"; // two of the same name are two rows
    const el = old.get(k) || make(item);
    now.set(k, el);
    fillIn(el, item);
    if (el === at) at = at.nextSibling;
    else parent.insertBefore(el, at);
  }
  for (const [k, el] of old) if (now.get(k) !== el) el.remove();
  parent.kept = now;
}

// table is a table with a caption. Columns have a head, a class, and either text
// (of a row), or make and fill for a cell of elements; the first is the row's head.
export function table(caption, cols, key) {
  const body = h("tbody");
  const el = h("div", { class: "wide" }, h("table", null,
    h("caption", { class: "away" }, caption),
    h("thead", null, h("tr", null, ...cols.map(c => h("th", { scope: "col", class: c.class, title: c.title }, c.head)))),
    body));
  const make = () => {
    const tr = h("tr");
    cols.forEach((c, i) => tr.append(h(i ? "td" : "th", { scope: i ? null : "row", class: c.class }, c.make ? c.make() : null)));
    return tr;
  };
  const fillRow = (tr, row) => {
    attr(tr, "class", row.class);
    cols.forEach((c, i) => {
      const cell = tr.children[i];
      if (c.make) c.fill(cell.firstChild, row);
      else show(cell, c.text(row));
    });
  };
  return { el, set(rows) { sync(body, rows, key, make, fillRow); } };
}

// show writes a figure; null is "unknown", and looks so.
export function show(el, text, why) {
  set(el, text ?? "unknown");
  el.classList.toggle("unknown", text === null || text === undefined);
  attr(el, "title", why ? clean(why) : null);
  return el;
}

// tabs is a row of tabs and their panels, by the pattern of the ARIA authoring
// practices: one tab stop, arrow keys, Home and End. names are [id, label].
export function tabs(label, names, chosen) {
  const list = h("div", { class: "tabs", role: "tablist", "aria-label": label });
  const panels = {}, buttons = {};
  const box = h("div", null, list);
  const choose = (id, focus) => {
    for (const [name] of names) {
      const on = name === id;
      attr(buttons[name], "aria-selected", on ? "true" : "false");
      attr(buttons[name], "tabindex", on ? "0" : "-1");
      panels[name].hidden = !on;
    }
    if (focus) buttons[id].focus();
  };
  names.forEach(([id, text], i) => {
    const go = n => { const to = names[(n + names.length) % names.length][0]; choose(to, true); chosen(to); };
    buttons[id] = h("button", {
      type: "button", role: "tab", id: "tab-" + id, "aria-controls": "panel-" + id,
      onclick: () => { choose(id); chosen(id); },
      onkeydown: e => {
        const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: names.length - 1 }[e.key];
        if (to === undefined || e.ctrlKey || e.altKey || e.metaKey) return;
        e.preventDefault();
        go(to);
      },
    }, h("span", null, text), h("span", { class: "count" }));
    panels[id] = h("div", { class: "panel", role: "tabpanel", id: "panel-" + id, "aria-labelledby": "tab-" + id, tabindex: "0" });
    list.append(buttons[id]);
    box.append(panels[id]);
  });
  return { el: box, panels, choose, count(id, n) { set(buttons[id].lastChild, n ?? ""); } };
}
