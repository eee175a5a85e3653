// The runs picked for comparing: kept for this browser tab, over all pages.

import { url } from "./api.js";

const STORED = "compare";
export const MAXIMUM = 8;
export const FULL = `At most ${MAXIMUM} runs can be compared: take one out first.`;

const changes = new EventTarget();
let selected = JSON.parse(sessionStorage.getItem(STORED) ?? "[]");

/** The picked ids, in the order of picking. */
export const ids = () => [...selected];
export const has = (id) => selected.includes(id);

export function set(next) {
  selected = [...new Set(next)].slice(0, MAXIMUM);
  sessionStorage.setItem(STORED, JSON.stringify(selected));
  changes.dispatchEvent(new Event("change"));
}

/** Pick or drop one; false when as many are picked as can be compared. */
export function toggle(id) {
  const picked = has(id);
  if (!picked && selected.length >= MAXIMUM) return false;
  set(picked ? selected.filter((other) => other !== id) : [...selected, id]);
  return true;
}

/** Call `listener()` at each change until `signal` aborts. */
export function subscribe(listener, signal) {
  changes.addEventListener("change", () => listener(), { signal });
}

export const compareUrl = () => url("/compare", { ids: selected.join(",") });
