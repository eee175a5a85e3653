// The frame of a page that loads its data, follows events, and says what is wrong.

import { h, replace, setText } from "./dom.js";
import * as live from "./live.js";
import { failed, loading } from "./states.js";
import { throttled } from "./throttle.js";

/**
 * Show `head` and, once `load` succeeds, `body`; return a function that loads again, at most once each
 * `pause` ms. Events that `concerns` accepts load too. `load(showBody)` may show the body early, and may
 * return an element to show above it. When it fails, the body stays and the page says that it is older.
 */
export function livePage(root, signal, { name, head, body, label, load, pause, concerns = () => true }) {
  const problem = h("p.problem", { role: "alert" });
  const waiting = h("div");
  body.hidden = true;
  replace(root, h(`div.${name}`, head, problem, waiting, body));
  const loaded = loading(waiting, label, { lines: 8, signal });
  const showBody = (above) => {
    loaded();
    replace(waiting, above);
    body.hidden = false;
  };

  const refresh = throttled(async () => {
    try {
      const above = await load(showBody);
      if (signal.aborted) return;
      setText(problem, "");
      showBody(above);
    } catch (error) {
      if (signal.aborted) return;
      if (body.hidden) replace(waiting, failed(error, refresh));
      else setText(problem, `${error.message} What you see is older.`);
    } finally {
      loaded();
    }
  }, pause, signal);

  live.subscribe((event) => concerns(event) && refresh(), signal);
  refresh();
  return refresh;
}
