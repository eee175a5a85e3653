// Keys of the page in view, and the list of them under `?`. Off in fields, with modifiers, and when
// the person has switched them off.

import { h, replace } from "./dom.js";

const STORED = "keys-off";
const scopes = [];

export const enabled = () => localStorage.getItem(STORED) !== "1";

/**
 * Bind keys while a page is mounted: bind({ "/": ["Search", run], "Shift+ArrowLeft": ["…", run] }).
 * The latest binding of a key wins. Answers a function that unbinds.
 */
export function bind(bindings) {
  scopes.push(bindings);
  return () => {
    const place = scopes.indexOf(bindings);
    if (place >= 0) scopes.splice(place, 1);
  };
}

function name(event) {
  return (event.shiftKey && event.key.length > 1 ? "Shift+" : "") + event.key;
}

function isField(target) {
  return target instanceof Element && target.closest("input, textarea, select, [contenteditable], dialog") !== null;
}

function listen(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || isField(event.target)) return;
  if (!enabled() && event.key !== "?") return;
  for (const bindings of [...scopes].reverse()) {
    const found = bindings[name(event)];
    if (!found) continue;
    // A handler that answers false has no use for the key here, and leaves it to the browser.
    if (found[1](event) !== false) event.preventDefault();
    return;
  }
}

const SYMBOLS = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" };
const shown = (key) => key.split("+").map((part) => SYMBOLS[part] ?? part);

function help() {
  const off = h("input", { type: "checkbox", id: "keys-off", checked: !enabled() });
  off.addEventListener("change", () => localStorage.setItem(STORED, off.checked ? "1" : "0"));
  const rows = new Map(scopes.flatMap((bindings) => Object.entries(bindings)));
  const dialog = h("dialog", { class: "dialog keys", "aria-labelledby": "keys-title" });
  replace(
    dialog,
    h("h2", { id: "keys-title" }, "Keys"),
    h(
      "dl",
      {},
      [...rows].map(([key, [label]]) => [
        h("dt", {}, shown(key).map((part) => h("kbd", {}, part))),
        h("dd", {}, label),
      ]),
    ),
    h("label", { class: "check" }, off, "Switch single keys off (this help stays)"),
    h(
      "div",
      { class: "buttons" },
      h("button", { type: "button", on: { click: () => dialog.close() } }, "Close"),
    ),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

export function install() {
  document.addEventListener("keydown", listen);
  bind({ "?": ["This help", help] });
}
