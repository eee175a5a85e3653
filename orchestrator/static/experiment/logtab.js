// The Log tab: the newest attempt, or an earlier one, followed while it runs.

import { h, replace, setText } from "../lib/dom.js";
import { count } from "../lib/format.js";
import { LogReader, logView } from "./log.js";

const POLL_MS = 1000;

export function logTab(id) {
  const view = logView();
  const choice = h("select", { "aria-label": "Attempt", hidden: true, on: { change: () => start(Number(choice.value)) } });
  const note = h("span", { class: "muted" });
  const whole = h("a", { href: `/api/experiment/${encodeURIComponent(id)}/log`, target: "_blank", rel: "noopener" }, "The whole log");
  const problem = h("p", { class: "problem", role: "alert" });
  const element = h("div", { class: "log-tab" }, h("div", { class: "tab-bar" }, choice, note, h("span", { class: "end" }, whole)), problem, view.element);
  let reader = null;
  let attempt = 0;
  let newest = 0;
  let running = false;
  let shown = false;
  let timer = null;
  let reading = null;

  function start(which) {
    reading?.abort();
    attempt = which;
    reader = new LogReader(id, which);
    view.clear();
    whole.setAttribute("href", `/api/experiment/${encodeURIComponent(id)}/log?attempt=${which}`);
    setText(note, "");
    read();
  }

  /** Read what is new, all of it, and come back while there is more to come. */
  async function read() {
    clearTimeout(timer);
    timer = null;
    if (!reader || !shown) return;
    const mine = new AbortController();
    reading?.abort();
    reading = mine;
    const first = view.empty;
    try {
      do {
        const text = await reader.poll(mine.signal);
        if (mine.signal.aborted) return;
        if (text) view.append(text);
      } while (reader.more);
      setText(problem, "");
    } catch (error) {
      if (mine.signal.aborted) return;
      setText(problem, error.message);
    }
    describe();
    if (first) view.toEnd();
    if (running && attempt === newest && !document.hidden) timer = setTimeout(read, POLL_MS);
  }

  function describe() {
    const kib = (bytes) => `${count(Math.ceil(bytes / 1024))} KiB`;
    const part = reader.start > 0 ? `the last ${kib(reader.total - reader.start)} of ${kib(reader.total)}` : kib(reader.total);
    setText(note, view.empty ? "Nothing was written yet." : `${part}${running && attempt === newest ? ", live" : ""}`);
  }

  const wake = () => !document.hidden && running && read();
  document.addEventListener("visibilitychange", wake);

  return {
    element,
    /** The run as it is now; called at each change of it. */
    update(run) {
      const attempts = run.attempts.map(({ epoch }) => epoch);
      running = run.status === "running";
      if (!attempts.length) {
        setText(note, run.status === "queued" ? "No worker has it yet." : "No worker has run it: there is no log.");
        whole.hidden = true;
        return;
      }
      whole.hidden = false;
      choice.hidden = attempts.length < 2;
      const followed = attempt === newest;
      if (newest !== attempts.at(-1)) {
        newest = attempts.at(-1);
        replace(choice, attempts.map((epoch) => h("option", { value: epoch }, `Attempt ${epoch}`)));
        choice.value = followed ? newest : attempt;
        if (followed) start(newest);
      } else if (timer === null) {
        read(); // what was written between the last look and the end
      }
    },
    show(visible) {
      shown = visible;
      if (visible) read();
      else clearTimeout(timer);
    },
    close() {
      document.removeEventListener("visibilitychange", wake);
      clearTimeout(timer);
      reading?.abort();
      reader = null;
    },
  };
}
