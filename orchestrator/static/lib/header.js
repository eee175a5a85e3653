// The bar at the top: where one can go, whether what is shown is fresh, how many GPUs train.

import { h, replace, setText } from "./dom.js";
import { get } from "./api.js";
import * as live from "./live.js";
import * as selection from "./selection.js";
import { throttled } from "./throttle.js";

const THEMES = { system: "System theme", light: "Light theme", dark: "Dark theme" };
const GPU_EVENTS = new Set(["gpu", "claimed", "decided", "steered", "resumed"]);
const GPU_REFRESH_MS = 5000;

const clock = (at) => new Date(at).toTimeString().slice(0, 5);

export function buildHeader(root, router) {
  const links = {
    overview: h("a", { href: "/" }, "Overview"),
    tag: h("a", { href: "/", hidden: true }),
    compare: h("a", { href: "/compare" }, "Compare"),
    actions: h("a", { href: "/actions" }, "Actions"),
  };
  const pool = h("a", { class: "pill", href: "/", hidden: true });
  replace(
    root,
    h("a", { class: "brand", href: "/" }, "n-autoresearch"),
    h("nav", { "aria-label": "Pages" }, Object.values(links)),
    h("div", { class: "right" }, connection(), pool, themeButton()),
  );
  selection.subscribe(() => showCompare(links.compare));
  showCompare(links.compare);
  router.onChange(({ page, params }) => mark(links, page, params));
  followPool(pool);
}

function showCompare(link) {
  const picked = selection.ids().length;
  setText(link, picked ? `Compare (${picked})` : "Compare");
  link.setAttribute("href", selection.compareUrl());
}

/** Which link stands for the page in view; the tag last seen stays within reach. */
function mark(links, page, params) {
  const tag = params.tag ?? (params.id ? params.id.slice(19) : null);
  if (tag) {
    links.tag.hidden = false;
    links.tag.setAttribute("href", `/t/${encodeURIComponent(tag)}`);
    setText(links.tag, tag);
    links.actions.setAttribute("href", `/actions?tag=${encodeURIComponent(tag)}`);
  }
  for (const [name, link] of Object.entries(links)) {
    if (name === page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function connection() {
  const word = h("span", {}, "Connecting");
  const pill = h("span", { class: "pill connection connecting", role: "status" }, h("i", { class: "dot" }), word);
  live.watch(({ phase, lastHeard }) => {
    pill.className = `pill connection ${phase}`;
    const since = lastHeard ? `data as of ${clock(lastHeard)}` : "no data yet";
    setText(word, { connecting: "Connecting", live: "Live", stale: `Stale, ${since}`, gone: `Disconnected, ${since}` }[phase]);
  });
  return pill;
}

function followPool(pill) {
  const refresh = throttled(async () => {
    const { total, training, offline } = await get("/api/pool/list");
    pill.hidden = total === 0;
    setText(pill, `${training}/${total} GPUs training${offline ? `, ${offline} offline` : ""}`);
  }, GPU_REFRESH_MS);
  live.subscribe(({ kind }) => GPU_EVENTS.has(kind) && refresh());
}

function themeButton() {
  const order = Object.keys(THEMES);
  const button = h("button", { type: "button", class: "icon theme" });
  const current = () => document.documentElement.dataset.theme ?? "system";
  const show = () => {
    button.setAttribute("aria-label", `${THEMES[current()]}; change`);
    button.title = THEMES[current()];
    setText(button, { system: "◐", light: "☀", dark: "☾" }[current()]);
  };
  button.addEventListener("click", () => {
    const next = order[(order.indexOf(current()) + 1) % order.length];
    if (next === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    localStorage.setItem("theme", next);
    show();
    dispatchEvent(new Event("themechange"));
  });
  show();
  return button;
}
