// Lists that are drawn anew at each event, of which most rows stay as they are.

import { focusedIn, refocus } from "./dom.js";

const drawn = new WeakMap();

/**
 * Make `container` hold one element for each item, in order: `render(item)` is called for a new or a
 * changed one, all others stay the very elements they were (with focus, hover and selection). Items
 * are equal when their JSON is. Focus in an element that is rendered anew stays, as `refocus` says.
 */
export function keyed(container, items, key, render) {
  const before = drawn.get(container) ?? new Map();
  const after = new Map();
  const focused = focusedIn(container);
  let place = null;
  const elements = items.map((item) => {
    const name = key(item);
    const text = JSON.stringify(item);
    const known = before.get(name);
    const entry = known?.text === text ? known : { text, element: render(item) };
    if (known?.element.contains(focused)) place = entry.element;
    after.set(name, entry);
    return entry.element;
  });
  drawn.set(container, after);
  const inPlace = elements.length === container.children.length &&
    elements.every((element, index) => container.children[index] === element);
  if (!inPlace) arrange(container, elements);
  if (place) refocus(focused, place);
}

/** Move only what is out of place: an element that leaves the document loses its focus. */
function arrange(container, elements) {
  const wanted = new Set(elements);
  for (const child of [...container.children]) if (!wanted.has(child)) child.remove();
  elements.forEach((element, index) => {
    if (container.children[index] !== element) container.insertBefore(element, container.children[index] ?? null);
  });
}
