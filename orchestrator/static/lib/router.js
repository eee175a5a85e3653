// Addresses to pages. A page is a module loaded when it is first wanted:
//
//   export function mount(root, params, ctx) { ...; return { unmount(), update?(params) }; }
//
// `params` holds what the path names and `query`, a URLSearchParams. When only the query changes and
// the page has `update`, it is told instead of being built anew.

import { failed, loading } from "./states.js";
import { replace } from "./dom.js";

const ROUTES = [
  { pattern: /^\/$/, page: "overview", names: [] },
  { pattern: /^\/t\/([^/]+)$/, page: "tag", names: ["tag"] },
  { pattern: /^\/e\/([^/]+)$/, page: "experiment", names: ["id"] },
  { pattern: /^\/compare$/, page: "compare", names: [] },
  { pattern: /^\/actions$/, page: "actions", names: [] },
];

/** The page and parameters of a path, or null where there is no page. */
export function match(pathname) {
  for (const { pattern, page, names } of ROUTES) {
    const found = pattern.exec(pathname);
    if (!found) continue;
    return { page, params: Object.fromEntries(names.map((name, i) => [name, decodeURIComponent(found[i + 1])])) };
  }
  return null;
}

export class Router {
  #root;
  #context;
  #mounted = null;
  #path = null;
  #visit = 0;
  #loaded = () => {};
  #listeners = new Set();

  /** `context` is handed to each page, with `navigate` added. */
  constructor(root, context) {
    this.#root = root;
    this.#context = { ...context, navigate: (to, options) => this.navigate(to, options) };
  }

  start() {
    document.addEventListener("click", (event) => this.#follow(event));
    addEventListener("popstate", () => this.#show());
    return this.#show();
  }

  /** Call `listener({ page, params })` after each change of page. */
  onChange(listener) {
    this.#listeners.add(listener);
  }

  /** Go to an address of this site; `replace` keeps the history as it is, as filters do. */
  navigate(to, { replace: replacing = false } = {}) {
    history[replacing ? "replaceState" : "pushState"](null, "", to);
    return this.#show();
  }

  #follow(event) {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    const link = event.target.closest?.("a[href]");
    if (!link || link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
    if (!match(link.pathname) || (link.hash && link.pathname === location.pathname)) return;
    event.preventDefault();
    this.navigate(link.pathname + link.search + link.hash);
  }

  async #show() {
    const query = new URLSearchParams(location.search);
    const found = match(location.pathname);
    if (location.pathname === this.#path && this.#mounted?.update) {
      this.#mounted.update({ ...found.params, query });
      return;
    }
    const visit = ++this.#visit;
    const moving = this.#path !== null;
    this.#leave();
    this.#path = location.pathname;
    if (!found) {
      replace(this.#root, failed({ status: 404, message: `There is no page at ${location.pathname}.` }));
      return;
    }
    for (const listener of this.#listeners) listener(found);
    await this.#mount(found, query, visit, moving);
  }

  async #mount({ page, params }, query, visit, moving) {
    this.#loaded = loading(this.#root, { lines: 6, label: "Loading the page" });
    try {
      const module = await import(`/static/${page}/page.js`);
      if (visit !== this.#visit) return;
      this.#loaded();
      replace(this.#root);
      if (moving) {
        scrollTo(0, 0);
        this.#root.focus({ preventScroll: true });
      }
      this.#mounted = module.mount(this.#root, { ...params, query }, this.#context);
    } catch (error) {
      console.error(error);
      if (visit !== this.#visit) return;
      this.#loaded();
      replace(this.#root, failed(error, () => location.reload()));
    }
  }

  #leave() {
    this.#loaded();
    try {
      this.#mounted?.unmount();
    } finally {
      this.#mounted = null;
      replace(this.#root);
    }
  }
}
