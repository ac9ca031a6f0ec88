// Bun's publish as a relay: /publish/TOPIC sends what it gets to every /subscribe/TOPIC, and answers with 8 bytes.
const ACK = new Uint8Array(8);

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch(request, server) {
    const [, role, topic] = new URL(request.url).pathname.split("/");
    if ((role === "publish" || role === "subscribe") && topic && server.upgrade(request, { data: { role, topic } })) {
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
      if (ws.data.role === "subscribe") ws.subscribe(ws.data.topic);
      ws.sendBinary(ACK); // says that the subscription stands
    },
    message(ws, message) {
      ws.publishBinary(ws.data.topic, message);
      ws.sendBinary(ACK);
    },
  },
});

console.log(`serving ws://127.0.0.1:${server.port}`);
