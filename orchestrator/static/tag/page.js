// The Tag page: how is the search going?

import { h } from "../lib/dom.js";

export function mount(root, { tag }, ctx) {
  ctx.setTitle(tag);
  root.append(h("h1", {}, tag));
  return { unmount() {} };
}
