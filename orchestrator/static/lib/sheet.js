// A page's own style sheet, loaded with its module, so that nothing shows unstyled:
//
//   await sheet("/static/overview/style.css");

const loaded = new Map();

/** Resolves once the rules of `href` apply. A sheet that does not come leaves the page plain. */
export function sheet(href) {
  if (!loaded.has(href)) {
    loaded.set(
      href,
      new Promise((resolve) => {
        const link = document.createElement("link");
        link.rel = "stylesheet";
        link.href = href;
        link.onload = link.onerror = resolve;
        document.head.append(link);
      }),
    );
  }
  return loaded.get(href);
}
