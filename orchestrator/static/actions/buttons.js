// Buttons that take an operator action.

import { h } from "../lib/dom.js";
import { drainGpu, undrainGpu } from "./steer.js";

/**
 * A button that asks with `run` and calls `changed(answer)` when something was done. `name` identifies
 * it to the focus rules, `describe` says more to screen readers than its label.
 */
export function actionButton(label, run, changed, { kind, name = label, describe } = {}) {
  const onclick = async () => {
    const answer = await run();
    if (answer) changed(answer);
  };
  return h("button", { class: kind, data: { focus: name }, "aria-label": describe, onclick }, label);
}

export function drainButton(gpu, changed, kind) {
  const [label, act] = gpu.drain ? ["Undrain", undrainGpu] : ["Drain", drainGpu];
  return actionButton(label, () => act(gpu), changed, { kind, name: "drain", describe: `${label} ${gpu.id}` });
}
