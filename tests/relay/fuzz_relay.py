"""A long-run fuzz target: hostile connections, before and after the upgrade, beside a client that must not notice.

    make fuzz SECONDS=600            or  python tests/relay/fuzz_relay.py --seconds 600 [--seed N]

Each case is made from a number, which is printed when it fails: --seed with that number replays it.
"""

# ruff: noqa: T201 - a program, which prints

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripted import Client, Net, capability_of, label_of, sealed_of

from relay import framing, wire
from relay.errors import Code, close_code
from relay.limits import RECORDS_PER_MESSAGE_MAX, SEALED_SIZES
from relay.transports.handshake import Handshake

CLOSES = {1000, 1002, 1007, 1009, *(close_code(code) for code in Code)}
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: relay.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: relaymark.v1\r\n\r\n"
)


class Witness:
    """An honest pair of clients on the hub, which checks after every attack that it is served as before."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.author, self.number = net.attached(1, member=1)
        self.reader, _ = net.attached(1, member=2)
        self.count = 0

    def check(self) -> None:
        self.count += 1
        came = self.author.publish(self.number, self.count)
        assert came[0] == wire.Published([self.count, self.count])
        (message,) = self.reader.pop()
        assert (message.seq, label_of(message.sealed)) == (self.count, self.count)
        assert self.author.send(wire.Time(self.count)) == [
            wire.Timed(self.count, self.net.hub.now_ns, self.net.hub.now_ns)
        ]
        assert self.author.closed is None
        assert self.reader.closed is None


def upgrade(parts: list[bytes]) -> tuple[bool, bytes]:
    """Feed a handshake; return whether it is open, and the bytes behind it."""
    handshake = Handshake(echo=True)
    for index, part in enumerate(parts):
        answer = handshake.feed(part)
        if answer is not None:
            assert answer.response.startswith(b"HTTP/1.1 ")
            assert answer.response.startswith(b"HTTP/1.1 101") == (answer.path is not None)
            return answer.path is not None, answer.rest + b"".join(parts[index + 1 :])
    return False, b""


def attack(net: Net, data: bytes, cuts: list[int], *, echo: bool = False, room: int | None = None) -> Client:
    """Give the relay the bytes of one connection, cut at `cuts`; return the client as the relay left it."""
    client = net.connect(hello=False, echo=echo)
    client.room = room
    start = 0
    for cut in sorted({*(cut for cut in cuts if 0 < cut < len(data)), len(data)}):
        if client.gone:
            break
        client.give(data[start:cut])
        net.settle()
        start = cut
    if room is None:
        assert client.closed is None or client.closed in CLOSES or 3000 <= client.closed < 5000, client.closed
        if client.closed is not None and client.closed != 1000 and 4000 < client.closed < 4100:
            assert client.records, "an error record comes before its close code"
    client.cut()
    net.clients.remove(client)
    client.peer.box.pending.clear()
    return client


# -- making cases ------------------------------------------------------------------------------------


def any_record(rng: random.Random) -> bytes:
    number = rng.choice((0, 1, 1, 2, 3, 2**32 - 1))
    big = rng.choice((0, 1, 2, 255, 256, 2**32, 2**63, 2**64 - 1))
    size = rng.choice((0, 1, 255, 256, 257, 272, rng.choice(sorted(SEALED_SIZES))))
    sealed = bytes(rng.choices((0, 1, 2, 127, 128), k=2)) + bytes(max(0, size - 2))
    makers: tuple[Callable[[], wire.ClientRecord], ...] = (
        lambda: wire.Hello(rng.choice((0, 1, 1, 1, 2))),
        lambda: wire.Subscribe(
            big, changed(rng, capability_of(rng.choice((2, 3)), rng.randrange(3))), rng.randrange(20),
            rng.choice((None, bytes(64), b"")), rng.choice((None, 0, big)), rng.choice((None, 0, big)),
        ),
        lambda: wire.Subscribe(big, capability_of(2, rng.randrange(3)), 15, None, None, rng.choice((None, 0))),
        lambda: wire.Unsubscribe(number),
        lambda: wire.Publish(number, rng.choice((0, 0, 1, 1, 2)), big, rng.choice((None, bytes(32))), sealed[:size]),
        lambda: wire.Publish(number, rng.randrange(2), rng.randrange(256), None, sealed_of(1, 256)),
        lambda: wire.Ack(number, big),
        lambda: wire.Erase(number),
        lambda: wire.Export(number, big),
        lambda: wire.Time(big),
    )  # fmt: skip
    return wire.encode(rng.choice(makers)())


def changed(rng: random.Random, data: bytes, hostility: float = 0.1) -> bytes:
    """Return `data` as it is, or with some bytes changed, left out, doubled or put in."""
    if rng.random() >= hostility or not data:
        return data
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        position = rng.randrange(len(made) + 1)
        match rng.randrange(4):
            case 0 if position < len(made):
                made[position] ^= 1 << rng.randrange(8)
            case 1:
                del made[position : position + rng.randrange(1, 20)]
            case 2:
                made[position:position] = made[position : position + rng.randrange(1, 200)]
            case _:
                made[position:position] = rng.randbytes(rng.randrange(1, 9))
    return bytes(made)


def frame(rng: random.Random, payload: bytes, hostility: float = 0.0) -> bytes:
    opcode, final = 2, 0x80
    if rng.random() < hostility:
        opcode, final = rng.choice((0, 1, 2, 8, 9, 10, 11)), rng.choice((0x80, 0))
    mask = rng.randbytes(4)
    head = framing.header(opcode, len(payload))
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes(((head[0] & 0x7F) | final, head[1] | 0x80)) + head[2:] + mask + masked


def conversation(rng: random.Random) -> bytes:
    """A connection's bytes after the upgrade: sense, mostly, and some nonsense."""
    hostility = rng.choice((0.0, 0.03, 0.1, 0.4))
    first = frame_of_hello(rng) if rng.random() < 0.9 else b""
    subscribe = wire.encode(wire.Subscribe(1, capability_of(2), 15, None, None, rng.choice((None, 0))))
    parts = [first, frame(rng, subscribe) if rng.random() < 0.8 else b""]
    for _ in range(rng.randrange(12)):
        records = b"".join(any_record(rng) for _ in range(rng.choice((1, 1, 1, 2, 9))))
        if rng.random() < hostility:
            records = rng.choice((b"", records * (RECORDS_PER_MESSAGE_MAX + 1), rng.randbytes(20)))
        parts.append(changed(rng, frame(rng, changed(rng, records, hostility), hostility), hostility))
    return b"".join(parts)


def frame_of_hello(rng: random.Random) -> bytes:
    return frame(rng, wire.encode(wire.Hello(1)))


def case(seed: int, witness: Witness) -> None:
    """Make and run the case of one number."""
    rng = random.Random(seed)
    net = witness.net
    net.hub.now_ns += rng.randrange(10**9)
    data = conversation(rng) if rng.random() < 0.9 else rng.randbytes(rng.randrange(2000))
    if rng.random() < 0.3:
        request = changed(rng, REQUEST) + data
        cut = rng.randrange(len(request))
        is_open, data = upgrade([request[:cut], request[cut:]])
        if not is_open:
            return
    cuts = [rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 1, 3, 30)))]
    room = rng.choice((None, None, None, 0, 100, 5000))
    attack(net, data, cuts, echo=rng.random() < 0.1, room=room)


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the relay in this process.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, help="replay this one case")
    options = parser.parse_args()
    if options.seed is not None:
        witness = Witness(Net())
        case(options.seed, witness)
        witness.check()
        print("no fault")
        return 0
    first = random.SystemRandom().randrange(1 << 48)
    ended = time.monotonic() + options.seconds
    cases = 0
    witness = Witness(Net())
    while time.monotonic() < ended:
        if cases % 1000 == 0:
            witness = Witness(Net())
        seed = first + cases
        try:
            case(seed, witness)
            witness.check()
        except Exception:
            traceback.print_exc()
            print(f"case {seed} failed; replay: {sys.executable} {sys.argv[0]} --seed {seed}", file=sys.stderr)
            return 1
        cases += 1
    print(f"{cases} cases from seed {first}, no fault")
    return 0


if __name__ == "__main__":
    sys.exit(main())
