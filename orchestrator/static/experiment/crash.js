// What a crash leads with: the error, and the last lines of the log.

import { h, replace } from "../lib/dom.js";
import { visible } from "../lib/visible.js";
import { LogReader, lineElement } from "./log.js";

const LINES = 40;
const TAIL_BYTES = 64 * 1024;
const ERROR_CHARACTERS = 8000;

export function crashLead(id) {
  const error = h("pre", { class: "error-text", tabindex: "0", role: "region", "aria-label": "Error" });
  const lines = h("pre", { class: "log", tabindex: "0", role: "region", "aria-label": `Last ${LINES} lines of the log` });
  const log = h("div", {}, h("h3", {}, `Last ${LINES} lines`), lines);
  const element = h(
    "section",
    { class: "panel crash-lead", hidden: true, "aria-label": "The crash" },
    h("div", { class: "body" }, h("div", {}, h("h3", {}, "Error"), error), log),
  );
  const closing = new AbortController();
  let shown = null;

  async function showLog(attempt) {
    const text = await new LogReader(id, attempt, { tail: TAIL_BYTES }).poll(closing.signal);
    const last = text.replace(/\n+$/, "").split("\n").slice(-LINES);
    log.hidden = text === "";
    replace(lines, last.map(lineElement));
    lines.scrollTop = lines.scrollHeight;
  }

  return {
    element,
    update(run) {
      const failed = run.status === "crash" || run.status === "timeout";
      element.hidden = !failed;
      const attempt = run.attempts.at(-1)?.epoch ?? null;
      const key = `${run.status} ${attempt}`;
      if (!failed || key === shown) return;
      shown = key;
      replace(error, (run.error || "No error was reported.").slice(0, ERROR_CHARACTERS).split("\n").map((line) => h("span", { class: "line" }, visible(line))));
      log.hidden = attempt === null;
      if (attempt !== null) {
        showLog(attempt).catch(() => {
          log.hidden = true;
        });
      }
    },
    close: () => closing.abort(),
  };
}
