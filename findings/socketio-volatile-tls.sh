#!/usr/bin/env bash
# socket.io 4.8.4 (engine.io 6.6.13, ws 8.23.0), Node 20: over TLS a volatile event is dropped for an idle client where
# the same event over plain TCP arrives.
#
# A good guess: TLS changes nothing. `volatile` drops an event "if the client is not ready to receive", and this one is idle.
# Seen: 20 volatile events from 20 callbacks of setImmediate all arrive over ws://, over wss:// only the first. A plain
# socket's write is over when the callback is; TLS tells that a write is over only in the loop's next round, and until
# then the transport passes for busy. With a round between them (setImmediate awaited each time) all arrive over both.
# So a test without TLS does not show which volatile events a deployment loses.
#
# Output seen (Node 20.20.2; the same in five of five runs):
#   ws:  20 callbacks of setImmediate: 20 of 20 arrived; 20 rounds of the loop: 20 of 20 arrived
#   wss: 20 callbacks of setImmediate: 1 of 20 arrived; 20 rounds of the loop: 20 of 20 arrived
#
# Exits 0 if that is what happens, 1 if it is not, 2 without node, npm or openssl. Loopback only; some 10 s.
set -euo pipefail

for tool in node npm openssl; do
  command -v "$tool" >/dev/null || { echo "$tool is needed" >&2; exit 2; }
done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --no-audit --no-fund --loglevel=error socket.io@4.8.4 engine.io@6.6.13 ws@8.23.0 socket.io-client@4.8.4 >/dev/null
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost \
  -keyout key.pem -out cert.pem 2>/dev/null

cat >volatile.js <<'SCRIPT'
const { readFileSync } = require("node:fs");
const http = require("node:http");
const https = require("node:https");
const { Server } = require("socket.io");
const { io: connect } = require("socket.io-client");

const EVENTS = 20;
const quiet = () => new Promise((done) => setTimeout(done, 500));
const round = () => new Promise((done) => setImmediate(done));

async function tried(scheme) {
  const tls = scheme === "wss";
  const server = tls
    ? https.createServer({ cert: readFileSync("cert.pem"), key: readFileSync("key.pem") })
    : http.createServer();
  const io = new Server(server, { transports: ["websocket"] });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const ca = tls ? readFileSync("cert.pem") : undefined;
  const client = connect(`${scheme}://localhost:${server.address().port}`, { transports: ["websocket"], ca });
  await new Promise((done, failed) => client.on("connect", done).on("connect_error", failed));
  let arrived = 0;
  client.on("state", () => arrived++);
  await quiet();
  for (let i = 0; i < EVENTS; i++) setImmediate(() => io.volatile.emit("state", i));
  await quiet();
  const callbacks = arrived;
  arrived = 0;
  for (let i = 0; i < EVENTS; i++) {
    await round();
    io.volatile.emit("state", i);
  }
  await quiet();
  const rounds = arrived;
  client.close();
  await io.close();
  console.log(
    `${`${scheme}:`.padEnd(4)} ${EVENTS} callbacks of setImmediate: ${callbacks} of ${EVENTS} arrived; ` +
      `${EVENTS} rounds of the loop: ${rounds} of ${EVENTS} arrived`,
  );
  return [callbacks, rounds];
}

(async () => {
  const seen = JSON.stringify([await tried("ws"), await tried("wss")]);
  process.exit(seen === "[[20,20],[1,20]]" ? 0 : 1);
})();
SCRIPT
timeout 60 node volatile.js
