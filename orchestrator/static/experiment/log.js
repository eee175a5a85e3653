// The end of a run's log, as it grows. Bytes are asked for by range from where the last answer ended,
// so nothing is lost and nothing comes twice. What a run writes is never trusted: a line of any
// length, rewritten lines, escapes, turned text and broken UTF-8 all show, and do nothing.

import { h, replace } from "../lib/dom.js";
import { visible, shortened } from "../lib/visible.js";

const TAIL_BYTES = 256 * 1024;
const CHUNK_BYTES = 512 * 1024;
const LINES = 4000;
const LINE_CHARACTERS = 2000;
const PENDING_CHARACTERS = 64 * 1024;

/** Follows one attempt's log. `poll()` answers the new text, "" where there is none yet. */
export class LogReader {
  #path;
  #next = null;
  #decoder = new TextDecoder("utf-8");
  #cutStart = false;

  constructor(id, attempt, { tail = TAIL_BYTES } = {}) {
    this.#path = `/api/experiment/${encodeURIComponent(id)}/log${attempt ? `?attempt=${attempt}` : ""}`;
    this.tail = tail;
    this.start = 0;
    this.total = 0;
  }

  async poll(signal) {
    // The last byte is asked for again: a range with nothing in it would be an error each time.
    const known = this.#next === null ? 0 : 1;
    const from = known ? this.#next - known : null;
    const range = known ? `bytes=${from}-${from + CHUNK_BYTES - 1}` : `bytes=-${this.tail}`;
    const response = await fetch(this.#path, { headers: { range }, signal, credentials: "same-origin" });
    if (!response.ok) throw new Error(`The log could not be read (${response.status}).`);
    const bytes = new Uint8Array(await response.arrayBuffer());
    if (!bytes.length) return "";
    const [, first, total] = /bytes (\d+)-\d+\/(\d+)/.exec(response.headers.get("content-range") ?? "") ?? [null, 0, bytes.length];
    if (!known) {
      this.start = Number(first);
      this.#cutStart = this.start > 0;
    }
    this.#next = Number(first) + bytes.length;
    this.total = Math.max(Number(total), this.#next);
    return this.#decoded(bytes.subarray(known));
  }

  get more() {
    return this.#next !== null && this.#next < this.total;
  }

  /** Text, without the broken line that a tail begins with (unless that is all there is). */
  #decoded(bytes) {
    const text = this.#decoder.decode(bytes, { stream: true });
    if (!this.#cutStart) return text;
    this.#cutStart = false;
    const end = text.indexOf("\n");
    return end < 0 ? text : text.slice(end + 1);
  }
}

/** What a terminal would show of a line that was rewritten: what was written last. */
export function settled(line) {
  const parts = line.split("\r").filter((part) => part.trim() !== "");
  return { text: parts.at(-1) ?? "", rewritten: Math.max(0, parts.length - 1) };
}

/** One line as an element. */
export function lineElement(raw) {
  const { text, rewritten } = settled(raw);
  return h(
    "span",
    { class: "line" },
    visible(shortened(text, LINE_CHARACTERS)),
    rewritten > 0 && h("span", { class: "rewritten" }, ` ⟲ ${rewritten.toLocaleString("en-US")}`),
  );
}

/** A <pre> that takes text as it comes and keeps its newest lines. */
export function logView() {
  const element = h("pre", { class: "log", tabindex: "0", role: "region", "aria-label": "Log" });
  let pending = "";
  let open = null;

  function append(text) {
    const following = atEnd();
    const lines = (pending + text).split("\n");
    pending = lines.pop();
    if (pending.length > PENDING_CHARACTERS) {
      pending = pending.slice(0, LINE_CHARACTERS) + pending.slice(-PENDING_CHARACTERS / 2);
    }
    const fresh = lines.slice(-LINES).map(lineElement);
    open?.remove();
    open = pending === "" ? null : lineElement(pending);
    element.append(...fresh, ...(open ? [open] : []));
    while (element.childElementCount > LINES) element.firstElementChild.remove();
    if (following) toEnd();
  }

  const atEnd = () => element.scrollHeight - element.scrollTop - element.clientHeight < 40;
  const toEnd = () => {
    element.scrollTop = element.scrollHeight;
  };

  return {
    element,
    append,
    toEnd,
    clear() {
      pending = "";
      open = null;
      replace(element);
    },
    get empty() {
      return element.childElementCount === 0;
    },
  };
}
