// Builds elements. Text is only ever set as text: no string of a run can become markup here.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (name === "data") {
      Object.assign(element.dataset, value);
    } else if (name === "style") {
      // Through the object model: the content security policy refuses style attributes.
      for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    } else if (name === "href" && !/^[/#?](?![/\\])/.test(value) && value !== "/") {
      throw new Error(`Only links within this site: ${value}`);
    } else if (/^on/i.test(name)) {
      throw new Error("Listeners go into `on`");
    } else if (name === "value" || name === "checked" || name === "selected" || name === "disabled") {
      element[name] = value;
    } else {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** An element: h("p", { class: "note", on: { click } }, "text", otherElement, [more]). */
export function h(name, properties, ...children) {
  return fill(document.createElement(name), properties, children);
}

/** The same in SVG's namespace. */
export function svg(name, properties, ...children) {
  return fill(document.createElementNS(SVG, name), properties, children);
}

/** Put `children` in the place of what `element` holds; focus stays, as `refocus` says. */
export function replace(element, ...children) {
  const focused = focusedIn(element);
  element.replaceChildren();
  append(element, children);
  if (focused) refocus(focused, element);
  return element;
}

/** The element in `root` that has the focus, or null. */
export const focusedIn = (root) => (root.contains(document.activeElement) ? document.activeElement : null);

/**
 * Give the focus back to `element`, or to the one in `root` that is there in its place: of the same
 * kind, with the same `data-focus` or, where it has none, the same address, label or text.
 */
export function refocus(element, root) {
  const heir = element.isConnected ? element : [root, ...root.querySelectorAll(element.tagName)].find((one) => sameAs(one, element));
  if (heir !== document.activeElement) heir?.focus({ preventScroll: true });
}

const sameAs = (one, other) => one.tagName === other.tagName && one.tabIndex === other.tabIndex && identity(one) === identity(other);
const identity = (one) => one.dataset.focus ?? (one.id || one.getAttribute("href") || one.getAttribute("aria-label") || one.textContent);

/** Set text only where it differs, so that a live update neither flickers nor loses a selection. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
