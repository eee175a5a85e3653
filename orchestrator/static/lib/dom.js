// Builds, replaces and lists elements. Text is only ever set as text: no string of a run becomes markup.

const HTML = "http://www.w3.org/1999/xhtml";
const SVG = "http://www.w3.org/2000/svg";
// As attributes these would only be the initial state.
const PROPERTIES = new Set(["value", "checked", "selected", "disabled"]);

/** An element: h("p.note", { onclick, data: { id } }, "text", other, [more]); properties may be left out. */
export const h = (selector, ...content) => build(HTML, selector, content);

/** The same in SVG's namespace. */
export const svg = (selector, ...content) => build(SVG, selector, content);

function build(namespace, selector, content) {
  const [name, ...classes] = selector.split(".");
  const element = document.createElementNS(namespace, name);
  if (classes.length) element.setAttribute("class", classes.join(" "));
  if (name === "button") element.type = "button"; // HTML would assume "submit"
  const [properties, ...children] = content[0]?.constructor === Object ? content : [{}, ...content];
  for (const [key, value] of Object.entries(properties)) set(element, key, value);
  append(element, children);
  return element;
}

const absent = (value) => value === null || value === undefined || value === false;

function set(element, name, value) {
  if (absent(value)) return;
  if (name === "data") Object.assign(element.dataset, value);
  else if (name === "style") setStyle(element, value);
  else if (name.startsWith("on")) element.addEventListener(name.slice(2), value); // throws on a string
  else if (PROPERTIES.has(name)) element[name] = value;
  else if (name === "href" && !/^[/#?](?![/\\])/.test(value)) throw new Error(`Only links within this site: ${value}`);
  else element.setAttribute(name, value === true ? "" : value);
}

/** Through the object model: the content security policy refuses style attributes. */
export function setStyle(element, style) {
  for (const [name, value] of Object.entries(style)) element.style.setProperty(name, value);
}

function append(element, children) {
  for (const child of children.flat(Infinity)) if (!absent(child)) element.append(child);
}

/** Replace the content of `element`; focus stays, as `refocus` says. */
export function replace(element, ...children) {
  const focused = focusedIn(element);
  element.replaceChildren();
  append(element, children);
  if (focused) refocus(focused, element);
  return element;
}

/** The element in `root` that has the focus, or null. */
const focusedIn = (root) => (root.contains(document.activeElement) ? document.activeElement : null);

/**
 * Give the focus back to `element`, or to its replacement in `root`: of the same kind, with the same
 * `data-focus` or, where it has none, the same address, label or text.
 */
export function refocus(element, root) {
  const next = element.isConnected
    ? element
    : [root, ...root.querySelectorAll(element.tagName)].find((other) => isSame(other, element));
  if (next !== document.activeElement) next?.focus({ preventScroll: true });
}

const isSame = (a, b) => a.tagName === b.tagName && a.tabIndex === b.tabIndex && identity(a) === identity(b);
const identity = (element) =>
  element.dataset.focus ??
  (element.id || element.getAttribute("href") || element.getAttribute("aria-label") || element.textContent);

/** Set text only where it differs, so that a live update neither flickers nor loses a selection. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

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
