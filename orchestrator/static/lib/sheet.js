// A page's own style sheet, awaited by the page's module so that nothing shows unstyled.

const loaded = new Map();

/** Resolves once the rules of `href` apply, or could not be loaded: the page is plain then. */
export function sheet(href) {
  if (!loaded.has(href)) {
    const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href });
    loaded.set(href, new Promise((resolve) => (link.onload = link.onerror = resolve)));
    document.head.append(link);
  }
  return loaded.get(href);
}
