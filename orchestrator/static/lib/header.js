// The bar at the top: links to the pages, whether what is shown is fresh, how many GPUs train.

import { h, replace, setText } from "./dom.js";
import { get } from "./api.js";
import { clockTime } from "./format.js";
import * as live from "./live.js";
import { tagOf } from "./numbers.js";
import * as selection from "./selection.js";
import { throttled } from "./throttle.js";

const THEMES = { system: ["◐", "System theme"], light: ["☀", "Light theme"], dark: ["☾", "Dark theme"] };
const GPU_EVENTS = new Set(["gpu", "claimed", "decided", "steered", "resumed"]);
const GPU_REFRESH_MS = 5000;

/** Fill the header; returns a function to call after each change of page. */
export function buildHeader(root) {
  const links = {
    overview: h("a", { href: "/" }, "Overview"),
    tag: h("a", { href: "/", hidden: true }),
    compare: h("a", { href: "/compare" }, "Compare"),
    actions: h("a", { href: "/actions" }, "Actions"),
  };
  replace(root,
    h("a.brand", { href: "/" }, "n-autoresearch"),
    h("nav", { "aria-label": "Pages" }, Object.values(links)),
    h("div.right", connection(), pool(), themeButton()),
  );
  const showPicked = () => {
    const picked = selection.ids().length;
    setText(links.compare, picked ? `Compare (${picked})` : "Compare");
    links.compare.setAttribute("href", selection.compareUrl());
  };
  selection.subscribe(showPicked);
  showPicked();
  return ({ page, params }) => showPage(links, page, params);
}

/** Mark the link of the page in view; the last tag in view keeps its link. */
function showPage(links, page, params) {
  const tag = params.tag ?? (params.id ? tagOf(params.id) : null);
  if (tag) {
    links.tag.hidden = false;
    links.tag.setAttribute("href", `/t/${encodeURIComponent(tag)}`);
    setText(links.tag, tag);
    links.actions.setAttribute("href", `/actions?tag=${encodeURIComponent(tag)}`);
  }
  for (const [name, link] of Object.entries(links)) link.ariaCurrent = name === page ? "page" : null;
}

function connection() {
  const word = h("span", "Connecting");
  const pill = h("span.pill", { role: "status" }, h("i.dot"), word);
  live.watch(({ phase, lastReceived }) => {
    pill.className = `pill connection ${phase}`;
    const since = lastReceived ? `data as of ${clockTime(lastReceived)}` : "no data yet";
    const words = { connecting: "Connecting", live: "Live", stale: `Stale, ${since}`, gone: `Disconnected, ${since}` };
    setText(word, words[phase]);
  });
  return pill;
}

function pool() {
  const pill = h("a.pill", { href: "/", hidden: true });
  const refresh = throttled(async () => {
    const { total, training, offline } = await get("/api/pool/list");
    pill.hidden = total === 0;
    setText(pill, `${training}/${total} GPUs training${offline ? `, ${offline} offline` : ""}`);
  }, GPU_REFRESH_MS);
  live.subscribe(({ kind }) => GPU_EVENTS.has(kind) && refresh());
  return pill;
}

function themeButton() {
  const { dataset } = document.documentElement;
  const names = Object.keys(THEMES);
  const button = h("button.icon.theme", { onclick: change });

  function change() {
    const next = names[(names.indexOf(dataset.theme ?? "system") + 1) % names.length];
    if (next === "system") delete dataset.theme;
    else dataset.theme = next;
    localStorage.setItem("theme", next);
    show();
    dispatchEvent(new Event("themechange"));
  }

  function show() {
    const [symbol, label] = THEMES[dataset.theme ?? "system"];
    setText(button, symbol);
    button.title = label;
    button.ariaLabel = `${label}; change`;
  }

  show();
  return button;
}
