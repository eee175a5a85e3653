// The runs picked for comparing: kept for this browser tab, over all pages.

const STORED = "compare";
export const MAXIMUM = 8;
const listeners = new Set();

function stored() {
  try {
    const ids = JSON.parse(sessionStorage.getItem(STORED) ?? "[]");
    return Array.isArray(ids) ? ids.filter((id) => typeof id === "string") : [];
  } catch {
    return [];
  }
}

let selected = stored();

export const ids = () => [...selected];
export const has = (id) => selected.includes(id);

/** The picked ids, in the order of picking. */
export function set(next) {
  selected = [...new Set(next)].slice(0, MAXIMUM);
  sessionStorage.setItem(STORED, JSON.stringify(selected));
  for (const listener of listeners) listener(ids());
}

/** Pick or drop one; false when there are as many as can be compared. */
export function toggle(id) {
  if (has(id)) {
    set(selected.filter((other) => other !== id));
    return true;
  }
  if (selected.length >= MAXIMUM) return false;
  set([...selected, id]);
  return true;
}

/** Call `listener(ids)` at each change; answers a function that ends it. */
export function subscribe(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export const compareUrl = () => `/compare${selected.length ? `?${new URLSearchParams({ ids: selected.join(",") })}` : ""}`;
