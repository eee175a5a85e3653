// The shell: header, keys, live events, and the router that shows a page in <main>.

import * as keys from "./lib/keys.js";
import * as live from "./lib/live.js";
import { buildHeader } from "./lib/header.js";
import { refreshTimes } from "./lib/format.js";
import { start } from "./lib/router.js";

const TIMES_MS = 10_000;

keys.install();
start(document.getElementById("main"), buildHeader(document.getElementById("header")));
live.install();
setInterval(() => document.hidden || refreshTimes(), TIMES_MS);
