// What the panels of the Actions page share.

import { h, setText } from "../lib/dom.js";
import { keyed } from "../lib/keyed.js";
import { time } from "../lib/format.js";
import { panel } from "../lib/parts.js";
import { remark } from "../lib/states.js";
import { plain } from "../lib/visible.js";

/** A panel with a keyed list: `nothing` is said when it is empty, `show(items, note)` fills it. */
export function listPanel(title, { kind = "", nothing = "", end, key, render }) {
  const note = h("span.muted");
  const list = h(`ul.action-rows${kind}`);
  const none = remark(nothing);
  const element = panel(title, { note, end }, list, none);
  const show = (items, text = "") => {
    none.hidden = items.length > 0;
    setText(note, text);
    keyed(list, items, key, render);
  };
  return { element, show };
}

/** A row of such a list: what is the case, and the buttons that change it. */
export const actionRow = (content, ...buttons) => h("li", h("div", content), h("div.buttons", buttons));

/** Who stopped something, and why. */
export const who = ({ by, reason, at }) => [`by ${plain(by)}, `, time(at), `: ${plain(reason)}`];
