// Lists that are rendered again at each event, of which most rows stay as they are.

import { focusedIn, refocus } from "./dom.js";

const rendered = new WeakMap();

/**
 * Make `container` hold one element for each item, in order. `render(item)` is called for a new or a
 * changed item; all others keep their element, and with it hover and selection. Items are equal when
 * their JSON is. Focus in an element that is rendered again stays, as `refocus` says.
 */
export function keyed(container, items, key, render) {
  const before = rendered.get(container) ?? new Map();
  const after = new Map();
  const focused = focusedIn(container);
  let successor = null;
  for (const item of items) {
    const text = JSON.stringify(item);
    const known = before.get(key(item));
    const entry = known?.text === text ? known : { text, element: render(item) };
    if (known?.element.contains(focused)) successor = entry.element;
    after.set(key(item), entry);
  }
  rendered.set(container, after);
  arrange(container, [...after.values()].map(({ element }) => element));
  if (successor) refocus(focused, successor);
}

/** Move only what is out of place: an element that leaves the document loses its focus. */
function arrange(container, elements) {
  const wanted = new Set(elements);
  for (const child of [...container.children]) if (!wanted.has(child)) child.remove();
  elements.forEach((element, index) => {
    const there = container.children[index];
    if (there !== element) container.insertBefore(element, there ?? null);
  });
}
