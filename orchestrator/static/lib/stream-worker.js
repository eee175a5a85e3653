// A shared worker: one event stream for all tabs of this browser. It ends with the last of them.

import { openStream } from "./stream.js";

const ports = new Set();
let stream = null;
let lastId = null;
let lastHeartbeat = null;

function receive(message) {
  if (message.kind === "heartbeat") lastHeartbeat = message;
  for (const port of ports) port.postMessage(message);
}

function join(port) {
  ports.add(port);
  if (stream === null) stream = openStream(receive, lastId);
  else if (lastHeartbeat) port.postMessage({ ...lastHeartbeat, at: NaN, opened: true });
}

function leave(port) {
  ports.delete(port);
  if (ports.size === 0 && stream !== null) {
    lastId = stream.close();
    stream = null;
  }
}

self.onconnect = ({ ports: [port] }) => {
  port.onmessage = ({ data }) => (data === "bye" ? leave(port) : join(port));
  join(port);
};
