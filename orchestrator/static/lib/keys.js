// Keys of the page in view, and the list of them under `?`. They are off in fields, with modifiers,
// and when the person has switched them off.

import { h } from "./dom.js";
import { openDialog } from "./dialog.js";

const STORED = "keys-off";
const SYMBOLS = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" };
const scopes = new Set();

const enabled = () => localStorage.getItem(STORED) !== "1";

/**
 * Bind keys until `signal` aborts: bind({ "/": ["Search", run], "Shift+ArrowLeft": ["…", run] }). The
 * latest binding of a key wins.
 */
export function bind(bindings, signal) {
  scopes.add(bindings);
  signal?.addEventListener("abort", () => scopes.delete(bindings));
}

/** True if the key scrolls what has the focus: a wide diff or table. */
function scrolls({ key, target }) {
  if (key !== "ArrowLeft" && key !== "ArrowRight") return false;
  return target.scrollWidth > target.clientWidth && /auto|scroll/.test(getComputedStyle(target).overflowX);
}

function press(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest?.("input, textarea, select, [contenteditable], dialog")) return;
  if (!enabled() && event.key !== "?") return;
  if (scrolls(event)) return;
  const name = (event.shiftKey && event.key.length > 1 ? "Shift+" : "") + event.key;
  const found = [...scopes].findLast((bindings) => bindings[name])?.[name];
  // A handler that returns false has no use for the key here, and leaves it to the browser.
  if (found && found[1](event) !== false) event.preventDefault();
}

function help() {
  const off = h("input", { type: "checkbox", id: "keys-off", checked: !enabled() });
  off.addEventListener("change", () => localStorage.setItem(STORED, off.checked ? "1" : "0"));
  const bound = new Map([...scopes].flatMap((bindings) => Object.entries(bindings)));
  const symbols = (key) => key.split("+").map((part) => h("kbd", SYMBOLS[part] ?? part));
  const dialog = openDialog("keys", "Keys",
    h("dl", [...bound].map(([key, [label]]) => [h("dt", symbols(key)), h("dd", label)])),
    h("label.check", off, "Switch single keys off (this help stays)"),
    h("div.buttons", h("button", { onclick: () => dialog.close() }, "Close")),
  );
}

export function install() {
  document.addEventListener("keydown", press);
  bind({ "?": ["This help", help] });
}
