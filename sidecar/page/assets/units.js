// Figures as people read them, in the words of the command's text.

const M = 1 << 20;

// known tells a figure from null, which is unknown and not zero. What does not fit
// into 64 bits is no figure that a kernel or a runtime can mean.
export const known = n => typeof n === "number" && Math.abs(n) <= 2 ** 64;

// mib writes bytes with as many digits as a person wants.
export function mib(n) {
  if (!known(n)) return null;
  const a = Math.abs(n);
  if (a >= 100 * M) return (n / M).toFixed(0) + " MiB";
  if (a >= 0.05 * M) return (n / M).toFixed(1) + " MiB";
  return (n / 1024).toFixed(0) + " KiB";
}

export function percent(part, whole) {
  if (!known(part) || !known(whole) || whole <= 0) return null;
  const p = 100 * part / whole;
  return (p > 0 && p < 10 ? p.toFixed(1) : p.toFixed(0)) + " %";
}

export const count = n => known(n) ? Math.round(n).toLocaleString("en-US") : null;

// duration writes seconds in two units at most.
export function duration(s) {
  if (!known(s)) return null;
  if (s < 0) return "-" + duration(-s);
  if (s < 1) return Math.round(s * 1000) + " ms";
  if (s < 10) return +s.toFixed(1) + " s";
  s = Math.round(s);
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const i = units.findIndex(([n]) => s >= n);
  const [n, name] = units[i], rest = units[i + 1] ? Math.floor((s % n) / units[i + 1][0]) : 0;
  return Math.floor(s / n) + " " + name + (rest ? " " + rest + " " + units[i + 1][1] : "");
}

// when reads an RFC 3339 time into milliseconds; Go's zero time is none.
export function when(s) {
  const t = typeof s === "string" ? Date.parse(s) : NaN;
  return Number.isFinite(t) && t > 0 ? t : null;
}

const two = n => String(n).padStart(2, "0");

// clock is a time of day, with the date where that is not today's.
export function clock(t, now = Date.now()) {
  if (t === null) return null;
  const d = new Date(t), time = two(d.getHours()) + ":" + two(d.getMinutes()) + ":" + two(d.getSeconds());
  return d.toDateString() === new Date(now).toDateString() ? time : day(d) + " " + time;
}

const day = d => d.getFullYear() + "-" + two(d.getMonth() + 1) + "-" + two(d.getDate());

// iso is a time with its date and zone, for titles.
export const iso = t => t === null ? null : new Date(t).toISOString();

// fact writes a figure of a finding's evidence by its unit.
export function fact(f) {
  const v = f?.value;
  switch (f?.unit) {
    case "bytes": return mib(v);
    case "bytes/second": return known(v) ? mib(v) + "/s" : null;
    case "seconds": return duration(v);
    case "percent": return known(v) ? v.toFixed(0) + " %" : null;
  }
  return count(v);
}
