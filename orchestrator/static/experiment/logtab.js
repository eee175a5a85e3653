// The Log tab: the newest attempt, or an earlier one, followed while it runs.

import { h, replace, setText } from "../lib/dom.js";
import { count } from "../lib/format.js";
import { logPath, LogReader, logView } from "./log.js";

const POLL_MS = 1000;

const kib = (bytes) => `${count(Math.ceil(bytes / 1024))} KiB`;

/** Returns { element, update(run), show(isVisible) }; reads only while it is visible. */
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
