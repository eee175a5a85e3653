// The end of a run's log, as it grows. Each request asks for the bytes after the last answer, so that
// nothing is lost or comes twice. What a run writes is never trusted: a line of any length, rewritten
// lines, escapes, turned text and broken UTF-8 are shown and do nothing.

import { h, replace } from "../lib/dom.js";
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

/** Where the service has the log of a run's attempt, or of its last one. */
export const logPath = (id, attempt) => experimentPath(id, `log${attempt ? `?attempt=${attempt}` : ""}`);

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
export function logView() {
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
