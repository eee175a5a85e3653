// A shared worker: one event stream for all tabs of this browser. The browser ends it with the last tab.

import { openStream } from "./stream.js";

const ports = new Set();
let lastHeartbeat = null;

openStream((message) => {
  if (message.kind === "heartbeat") lastHeartbeat = message;
  for (const port of ports) port.postMessage(message);
});

self.onconnect = ({ ports: [port] }) => {
  ports.add(port);
  // Its time is past, so that no clock is set by it.
  if (lastHeartbeat) port.postMessage({ ...lastHeartbeat, at: NaN, opened: true });
};
