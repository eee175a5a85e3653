// What a crash leads with: the error, and the last lines of the log.

import { h, replace } from "../lib/dom.js";
import { scrollable } from "../lib/parts.js";
import { visible } from "../lib/visible.js";
import { lineElement, LogReader } from "./log.js";

const LINES = 40;
const TAIL_BYTES = 64 * 1024;
const ERROR_CHARACTERS = 8000;

export function crashLead(id, signal) {
  const error = scrollable("pre.error-text", "Error");
  const lines = scrollable("pre.log", `Last ${LINES} lines of the log`);
  const log = h("div", h("h3", `Last ${LINES} lines`), lines);
  const element = h("section.panel.crash-lead", { hidden: true, "aria-label": "The crash" },
    h("div.body", h("div", h("h3", "Error"), error), log),
  );
  let shown = null;

  async function showLog(attempt) {
    const text = await new LogReader(id, attempt, TAIL_BYTES).poll(signal);
    log.hidden = text === "";
    replace(lines, text.replace(/\n+$/, "").split("\n").slice(-LINES).map(lineElement));
    lines.scrollTop = lines.scrollHeight;
  }

  function update(run) {
    const failed = run.status === "crash" || run.status === "timeout";
    element.hidden = !failed;
    const attempt = run.attempts.at(-1)?.epoch ?? null;
    const key = `${run.status} ${attempt}`;
    if (!failed || key === shown) return;
    shown = key;
    const text = (run.error || "No error was reported.").slice(0, ERROR_CHARACTERS);
    replace(error, text.split("\n").map((line) => h("span.line", visible(line))));
    log.hidden = attempt === null;
    if (attempt !== null) showLog(attempt).catch(() => (log.hidden = true));
  }

  return { element, update };
}
