// The sidecar's control API, read only: requests, the stream of events, and what
// is done when there is no answer. URLs are relative to the page, so that it works
// behind a proxy that serves it under a path.

const BASE = "apis/memguard.dev/v1alpha1/namespaces/" + encodeURIComponent(document.querySelector("meta[name=namespace]")?.content ?? "") + "/";
const TOKEN = "memguard-token";
const PATIENCE = 15_000; // ms for an answer
const SILENCE = 60_000; // ms without a heartbeat after which a stream counts as dead
const LONGEST = 4 << 20; // characters of one event

// Refused is an answer that is not what was asked for; the message is the
// server's, which says what to do.
export class Refused extends Error {
  constructor(status, message, after) {
    super(message);
    this.status = status;
    this.after = after; // seconds to wait, where the server said so
  }
}

// token is kept for this tab alone. Storage may be forbidden; then it is kept for
// this page alone.
let kept = "";
export const token = {
  get() { try { return sessionStorage.getItem(TOKEN) || kept; } catch { return kept; } },
  set(t) { kept = t; try { t ? sessionStorage.setItem(TOKEN, t) : sessionStorage.removeItem(TOKEN); } catch { /* this page alone */ } },
};

// ahead is how far this machine's clock is behind the server's, in ms, to the second.
let ahead = 0;
export const serverNow = () => Date.now() + ahead;

// address is where something can be had that the browser asks for by itself, which
// knows no token.
export const address = where => BASE + where;

// path joins parts of a URL, each of which is a name and no more.
export const path = (...parts) => parts.map(encodeURIComponent).join("/");

async function request(where, accept, signal) {
  const headers = { Accept: accept };
  if (token.get()) headers.Authorization = "Bearer " + token.get();
  const r = await fetch(BASE + where, { headers, signal, cache: "no-store", redirect: "error" });
  const date = Date.parse(r.headers.get("Date"));
  if (date && Math.abs(date - Date.now() - ahead) > 2000) ahead = date - Date.now();
  if (r.ok) return r;
  let message = "";
  try { message = JSON.parse((await r.text()).slice(0, 65536)).message; } catch { /* not a Status */ }
  throw new Refused(r.status, String(message || r.statusText || "HTTP " + r.status), Number(r.headers.get("Retry-After")) || 0);
}

// get asks for JSON.
export async function get(where, signal) {
  const limit = AbortSignal.timeout(PATIENCE);
  return (await request(where, "application/json", signal ? AbortSignal.any([signal, limit]) : limit)).json();
}

// blob asks for a file.
export const blob = async (where, accept) => (await request(where, accept, AbortSignal.timeout(60_000))).blob();

// stream follows server-sent events after the one with the given id, and hands
// over their data until the connection ends. EventSource could not send a token.
export async function stream(where, last, signal, each) {
  // A browser has six connections for a server, for all tabs: one that nobody looks
  // at gives its own back.
  const stop = new AbortController(), off = () => { if (signal.aborted || document.hidden) stop.abort(); };
  signal.addEventListener("abort", off);
  document.addEventListener("visibilitychange", off);
  try {
    const r = await request(where + "?watch=1&after=" + last, "text/event-stream", stop.signal);
    if (!(r.headers.get("Content-Type") || "").startsWith("text/event-stream")) throw new Refused(r.status, "the answer is not a stream of events");
    const reader = r.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "", data = [];
    for (;;) {
      let timer;
      const silence = new Promise((_, no) => { timer = setTimeout(() => no(new Error("the stream of events went silent")), SILENCE); });
      const { done, value } = await Promise.race([reader.read(), silence]).finally(() => clearTimeout(timer));
      if (done) return;
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      if (rest.length > LONGEST) throw new Error("an event without an end");
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        else if (line === "" && data.length) { each(JSON.parse(data.join("\n"))); data = []; }
      }
    }
  } catch (e) {
    if (!document.hidden) throw e;
  } finally {
    signal.removeEventListener("abort", off);
    document.removeEventListener("visibilitychange", off);
    stop.abort();
  }
}

// pause waits, and less long when poked.
function pause(ms, loop) {
  return new Promise(done => {
    const timer = setTimeout(done, ms);
    loop.poke = () => { clearTimeout(timer); done(); };
  });
}

function seen(loop) {
  if (!document.hidden) return null;
  return new Promise(done => {
    loop.poke = done;
    document.addEventListener("visibilitychange", done, { once: true });
  });
}

// Loop does work again and again: after every() ms where that went well, after
// twice as long as before, up to half a minute and with jitter, where it did not.
// A page that nobody looks at does not ask.
export class Loop {
  constructor(work, every, failed = () => {}) {
    Object.assign(this, { work, every, failed, poke: () => {}, stopper: new AbortController() });
    this.run();
  }

  async run() {
    const { signal } = this.stopper;
    for (let failures = 0; !signal.aborted;) {
      await seen(this);
      let wait;
      try {
        await this.work(signal);
        failures = 0;
        wait = this.every();
      } catch (e) {
        if (signal.aborted) return;
        wait = Math.max(Math.min(1000 * 2 ** failures++, 30_000) * (0.5 + Math.random() / 2), (e.after || 0) * 1000);
        this.failed(e, wait);
      }
      await pause(wait, this);
    }
  }

  now() { this.poke(); }
  stop() { this.stopper.abort(); this.poke(); }
}
