// Addresses to pages. A page is a module that is loaded when it is first opened:
//
//   export function mount(root, params, signal) { …; return update; }
//
// `params` holds what the path names and `query`, a URLSearchParams. `signal` aborts when the page is
// left. When only the query changes, `update(params)` is called where the page returned one.

import { replace } from "./dom.js";
import { failed, loading } from "./states.js";

const PAGES = {
  overview: /^\/$/,
  tag: /^\/t\/(?<tag>[^/]+)$/,
  experiment: /^\/e\/(?<id>[^/]+)$/,
  compare: /^\/compare$/,
  actions: /^\/actions$/,
};

// Where a page needs another's style sheet before its own.
const SHEETS = { compare: ["experiment", "compare"] };

let root = null;
let opened = () => {};
let current = { path: null, leaving: new AbortController(), update: null };

/** The page and parameters of a path, or null where there is no page. */
function match(pathname) {
  for (const [page, pattern] of Object.entries(PAGES)) {
    const found = pattern.exec(pathname);
    if (!found) continue;
    const names = Object.entries(found.groups ?? {});
    try {
      return { page, params: Object.fromEntries(names.map(([name, text]) => [name, decodeURIComponent(text)])) };
    } catch {
      return null; // a % that is followed by no code: there is no such page
    }
  }
  return null;
}

/** Show the address's page in `element`; call `onPage({ page, params })` after each change of page. */
export function start(element, onPage) {
  root = element;
  opened = onPage;
  document.addEventListener("click", follow);
  addEventListener("popstate", show);
  return show();
}

/** Go to an address of this site; `replace` adds no entry to the history, as for filters. */
export function navigate(to, { replace: replacing = false } = {}) {
  history[replacing ? "replaceState" : "pushState"](null, "", to);
  return show();
}

export function setTitle(title) {
  document.title = `${title} · n-autoresearch`;
}

/** Open a plain click on a link to one of the pages without loading the document again. */
function follow(event) {
  if (event.defaultPrevented || event.button !== 0) return;
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  const link = event.target.closest?.("a[href]");
  if (!link || link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
  if (!match(link.pathname) || (link.hash && link.pathname === location.pathname)) return;
  event.preventDefault();
  navigate(link.pathname + link.search + link.hash);
}

function show() {
  const { pathname } = location;
  const found = match(pathname);
  const query = new URLSearchParams(location.search);
  if (pathname === current.path && current.update) return current.update({ ...found.params, query });
  const isFirst = current.path === null;
  current.leaving.abort();
  current = { path: pathname, leaving: new AbortController(), update: null };
  replace(root);
  if (!found) return replace(root, failed({ status: 404, message: `There is no page at ${pathname}.` }));
  opened(found);
  return mount(found, query, isFirst);
}

async function mount({ page, params }, query, isFirst) {
  const visit = current;
  const { signal } = visit.leaving;
  const loaded = loading(root, "Loading the page", { lines: 6, signal });
  try {
    const [module] = await Promise.all([import(`/static/${page}/page.js`), loadStyles(page, signal)]);
    if (signal.aborted) return;
    replace(root);
    if (!isFirst) {
      scrollTo(0, 0);
      root.focus({ preventScroll: true });
    }
    visit.update = module.mount(root, { ...params, query }, signal);
  } catch (error) {
    console.error(error);
    if (!signal.aborted) replace(root, failed(error, () => location.reload()));
  } finally {
    loaded();
  }
}

/** Load a page's style sheets, so that nothing shows unstyled, and remove them when the page is left. */
function loadStyles(page, signal) {
  return Promise.all((SHEETS[page] ?? [page]).map((name) => {
    const link = document.createElement("link");
    Object.assign(link, { rel: "stylesheet", href: `/static/${name}/style.css` });
    document.head.append(link);
    signal.addEventListener("abort", () => link.remove());
    return new Promise((resolve) => (link.onload = link.onerror = resolve));
  }));
}
