// Socket.IO as a relay: a room for each topic, an acknowledgement for each request, sealed bytes as binary attachments.
// The client's side is loadtests/dialects/socketio.py. Arguments: port, and for TLS the files of certificate and key.
const { readFileSync } = require("node:fs");
const http = require("node:http");
const https = require("node:https");
const { Server } = require("socket.io");

const [port, certificate, key] = process.argv.slice(2);
const server = certificate
  ? https.createServer({ cert: readFileSync(certificate), key: readFileSync(key) })
  : http.createServer();
const io = new Server(server, {
  transports: ["websocket"],
  serveClient: false,
  perMessageDeflate: false,
  maxHttpBufferSize: 4 << 20, // as it comes, a message above 1 MB ends the connection
});

io.on("connection", (socket) => {
  // Who only publishes asks too, so that it knows when it may.
  socket.on("join", (topic, receives, done) => {
    if (receives) socket.join(topic);
    done();
  });
  socket.on("leave", (topic, done) => {
    socket.leave(topic);
    done();
  });
  socket.on("publish", (topic, sealed, done) => {
    io.to(topic).emit("message", topic, sealed);
    done();
  });
  // A volatile event is dropped for a client that was sent anything in the same turn, so each state gets a turn; over TLS
  // a write lasts longer, and some are dropped all the same (findings/socketio-volatile-tls.sh). The bytes come last:
  // recovery, where it is on, takes a string at the end for an offset.
  socket.on("state", (topic, slot, sealed) => {
    setImmediate(() => io.to(topic).volatile.emit("state", topic, slot, sealed));
  });
});

process.on("SIGTERM", () => process.exit(0));
server.listen(Number(port), "127.0.0.1");
