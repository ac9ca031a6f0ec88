// Bun's publish as a relay. A connection to /subscribe/TOPIC or /publish/TOPIC is for one topic: what the one publishes goes
// to all of the other, and 8 bytes are the answer. A connection to /raw names topics in its messages: loadtests/dialects/raw.py.
// Arguments: the port (none: any free one), and for TLS the files of certificate and key.
const ACK = new Uint8Array(8);
const [SUBSCRIBE, JOIN, LEAVE, PUBLISH, ACCEPTED] = [..."SJUPA"].map((letter) => letter.charCodeAt(0));
const TOPIC_END = 9, ID_END = 13;

const [port, certificate, key] = process.argv.slice(2);
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(port ?? 0),
  tls: certificate ? { cert: Bun.file(certificate), key: Bun.file(key) } : undefined,
  fetch(request, server) {
    const [, role, topic] = new URL(request.url).pathname.split("/");
    const known = role === "raw" || ((role === "publish" || role === "subscribe") && topic);
    if (known && server.upgrade(request, { data: { role, topic } })) {
      return undefined;
    }
    return new Response("no such path\n", { status: 404 });
  },
  websocket: {
    perMessageDeflate: false,
    publishToSelf: false,
    idleTimeout: 0,
    sendPings: false,
    backpressureLimit: 1 << 30,
    open(ws) {
      if (ws.data.role === "raw") return;
      if (ws.data.role === "subscribe") ws.subscribe(ws.data.topic);
      ws.sendBinary(ACK); // says that the subscription stands
    },
    message(ws, message) {
      if (ws.data.role === "raw") return raw(ws, message);
      ws.publishBinary(ws.data.topic, message);
      ws.sendBinary(ACK);
    },
  },
});

function raw(ws, message) {
  const topic = message.latin1Slice(1, TOPIC_END);
  switch (message[0]) {
    case PUBLISH: {
      server.publish(topic, message);
      const answer = new Uint8Array(message.subarray(0, ID_END));
      answer[0] = ACCEPTED;
      return ws.sendBinary(answer);
    }
    case SUBSCRIBE:
      ws.subscribe(topic);
      return ws.sendBinary(message);
    case LEAVE:
      ws.unsubscribe(topic);
      return ws.sendBinary(message);
    case JOIN:
      return ws.sendBinary(message);
  }
  ws.close(1002, "no such request");
}

console.log(`serving ${certificate ? "wss" : "ws"}://127.0.0.1:${server.port}`);
