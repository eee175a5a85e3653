// The end of a run's log, as it grows. Each request asks for the bytes after the last answer, so that
// nothing is lost or comes twice. What a run writes is never trusted: a line of any length, rewritten
// lines, escapes, turned text and broken UTF-8 are shown and do nothing.

import { h, replace, setText } from "../lib/dom.js";
import { experimentPath } from "../lib/api.js";
import { count } from "../lib/format.js";
import { scrollable } from "../lib/parts.js";
import { shortened, visible } from "../lib/visible.js";

const TAIL_BYTES = 256 * 1024;
const CHUNK_BYTES = 512 * 1024;
const LINES = 4000;
const LINE_CHARACTERS = 2000;
const PENDING_CHARACTERS = 64 * 1024;
const AT_END_PX = 40;
const POLL_MS = 1000;

/** Where the service has the log of a run's attempt, or of its last one. */
const logPath = (id, attempt) => experimentPath(id, `log${attempt ? `?attempt=${attempt}` : ""}`);

/** Follows one attempt's log, from its last `tail` bytes. */
export class LogReader {
  #path;
  #tail;
  #next = null;
  #decoder = new TextDecoder("utf-8");

  constructor(id, attempt, tail = TAIL_BYTES) {
    this.#path = logPath(id, attempt);
    this.#tail = tail;
    this.start = 0;
    this.total = 0;
  }

  /** The new text, "" where there is none yet. */
  async poll(signal) {
    const isFirst = this.#next === null;
    // The last byte is asked for again: an empty range would be an error each time.
    const from = this.#next - 1;
    const range = isFirst ? `bytes=-${this.#tail}` : `bytes=${from}-${from + CHUNK_BYTES - 1}`;
    const response = await fetch(this.#path, { headers: { range }, signal });
    if (!response.ok) throw new Error(`The log could not be read (${response.status}).`);
    const bytes = new Uint8Array(await response.arrayBuffer());
    if (!bytes.length) return "";
    const found = /bytes (\d+)-\d+\/(\d+)/.exec(response.headers.get("content-range") ?? "");
    const [first, total] = found ? [Number(found[1]), Number(found[2])] : [0, bytes.length];
    this.#next = first + bytes.length;
    this.total = Math.max(total, this.#next);
    const text = this.#decoder.decode(isFirst ? bytes : bytes.subarray(1), { stream: true });
    if (!isFirst) return text;
    this.start = first;
    // A tail begins within a line: without that line, unless it is all there is.
    return first > 0 ? text.slice(text.indexOf("\n") + 1) : text;
  }

  get more() {
    return this.#next !== null && this.#next < this.total;
  }
}

/** One line as an element. Of a line that was rewritten, what was written last, as in a terminal. */
export function lineElement(line) {
  const parts = line.split("\r").filter((part) => part.trim() !== "");
  return h("span.line",
    visible(shortened(parts.at(-1) ?? "", LINE_CHARACTERS)),
    parts.length > 1 && h("span.rewritten", ` ⟲ ${count(parts.length - 1)}`),
  );
}

/** A <pre> that takes text as it comes and keeps its newest lines. */
function logView() {
  const element = scrollable("pre.log", "Log");
  let pending = ""; // a line that has not ended
  let pendingLine = null;

  function append(text) {
    const isAtEnd = element.scrollHeight - element.scrollTop - element.clientHeight < AT_END_PX;
    const lines = (pending + text).split("\n");
    pending = lines.pop();
    if (pending.length > PENDING_CHARACTERS) {
      pending = pending.slice(0, LINE_CHARACTERS) + pending.slice(-PENDING_CHARACTERS / 2);
    }
    pendingLine?.remove();
    element.append(...lines.slice(-LINES).map(lineElement));
    pendingLine = pending === "" ? null : lineElement(pending);
    if (pendingLine) element.append(pendingLine);
    while (element.childElementCount > LINES) element.firstElementChild.remove();
    if (isAtEnd) toEnd();
  }

  function toEnd() {
    element.scrollTop = element.scrollHeight;
  }

  function clear() {
    pending = "";
    pendingLine = null;
    replace(element);
  }

  return { element, append, toEnd, clear, isEmpty: () => element.childElementCount === 0 };
}

const kib = (bytes) => `${count(Math.ceil(bytes / 1024))} KiB`;

/**
 * The Log tab, { element, update(run), show(isVisible) }: the newest attempt, or an earlier one, followed
 * while it runs. It reads only while it is visible.
 */
export function logTab(id, signal) {
  const view = logView();
  const select = h("select", { "aria-label": "Attempt", hidden: true, onchange: () => start(Number(select.value)) });
  const note = h("span.muted");
  const whole = h("a", { href: logPath(id), target: "_blank", rel: "noopener" }, "The whole log");
  const problem = h("p.problem", { role: "alert" });
  const element = h("div.log-tab", h("div.tab-bar", select, note, h("span.end", whole)), problem, view.element);
  let reader = null;
  let attempt = 0;
  let newest = 0;
  let running = false;
  let shown = false;
  let timer = null;
  let reading = new AbortController();

  const isLive = () => running && attempt === newest;

  function start(which) {
    attempt = which;
    reader = new LogReader(id, which);
    view.clear();
    whole.setAttribute("href", logPath(id, which));
    setText(note, "");
    read();
  }

  /** Read all that is new, and come back while there is more to come. */
  async function read() {
    clearTimeout(timer);
    timer = null;
    reading.abort();
    if (!reader || !shown) return;
    reading = new AbortController();
    const mine = AbortSignal.any([signal, reading.signal]);
    const isFirst = view.isEmpty();
    try {
      do {
        const text = await reader.poll(mine);
        if (mine.aborted) return;
        if (text) view.append(text);
      } while (reader.more);
      setText(problem, "");
    } catch (error) {
      if (mine.aborted) return;
      setText(problem, error.message);
    }
    describe();
    if (isFirst) view.toEnd();
    if (isLive() && !document.hidden) timer = setTimeout(read, POLL_MS);
  }

  function describe() {
    const { start: from, total } = reader;
    const part = from > 0 ? `the last ${kib(total - from)} of ${kib(total)}` : kib(total);
    setText(note, view.isEmpty() ? "Nothing was written yet." : `${part}${isLive() ? ", live" : ""}`);
  }

  /** The run as it is now; called at each change of it. */
  function update(run) {
    const attempts = run.attempts.map(({ epoch }) => epoch);
    running = run.status === "running";
    whole.hidden = !attempts.length;
    if (!attempts.length) {
      setText(note, run.status === "queued" ? "No worker has it yet." : "No worker has run it: there is no log.");
      return;
    }
    select.hidden = attempts.length < 2;
    const follows = attempt === newest;
    if (newest !== attempts.at(-1)) {
      newest = attempts.at(-1);
      replace(select, attempts.map((epoch) => h("option", { value: epoch }, `Attempt ${epoch}`)));
      select.value = follows ? newest : attempt;
      if (follows) start(newest);
    } else if (timer === null) {
      read(); // what was written between the last look and the end
    }
  }

  function show(isVisible) {
    shown = isVisible;
    read();
  }

  const wake = () => !document.hidden && running && read();
  document.addEventListener("visibilitychange", wake, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  return { element, update, show };
}
