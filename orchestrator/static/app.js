// The shell: header, keys, live events, and the router that puts a page into <main>.

import * as keys from "./lib/keys.js";
import * as live from "./lib/live.js";
import { buildHeader } from "./lib/header.js";
import { refreshTimes } from "./lib/format.js";
import { Router } from "./lib/router.js";
import { announce, toast } from "./lib/states.js";

const TIMES_MS = 10_000;

const setTitle = (title) => {
  document.title = title ? `${title} · n-autoresearch` : "n-autoresearch";
};

keys.install();
const router = new Router(document.getElementById("main"), { live, keys, setTitle, announce, toast });
buildHeader(document.getElementById("header"), router);
router.start();
live.install();
setInterval(() => document.hidden || refreshTimes(), TIMES_MS);
