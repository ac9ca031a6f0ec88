"""Relays as real programs: what every reader gets, what is acknowledged, how one resumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from targets.conversations import PUBLISH, RECEIVE, settle, started

from loadtests.dialects.base import Attach, Dialect, Place, Published, State, Unsubscribed
from loadtests.dialects.jetstream import JetStream
from loadtests.dialects.nostr import Nostr
from loadtests.dialects.redis_streams import RedisStreams
from loadtests.dialects.socketio import SocketIo
from loadtests.dialects.stomp import Stomp
from loadtests.target.relays import jetstream, nostr, rabbitmq, redis, socketio, valkey

pytestmark = pytest.mark.process

STREAM = 3
RECORDS = [bytes((number,)) * 300 for number in range(100)]
LARGE = b"\x01\x01" + bytes(range(256)) * 391
MAKE: dict[str, tuple[ModuleType, Callable[[str], Dialect]]] = {
    "jetstream": (jetstream, lambda host: JetStream(Place(host=host))),
    "redis-streams": (redis, lambda host: RedisStreams(Place(host=host))),
    "redis-streams of Valkey": (valkey, lambda host: RedisStreams(Place(host=host))),
    "socketio": (socketio, lambda host: SocketIo(Place(host=host))),
    "rabbitmq": (rabbitmq, lambda host: Stomp(Place(host=host))),
    "nostr": (nostr, lambda host: Nostr(Place(host=host))),
}
LEFT_OUT = [("redis-streams of Valkey", True), ("rabbitmq", False)]
"""The Python package's Valkey is built without TLS; RabbitMQ needs 4 s of CPU to start, once is enough."""


def attach_to(use: int) -> Attach:
    return Attach(stream=STREAM, name=bytes(range(50, 82)), use=use, capability=b"")


def made(name: str) -> tuple[ModuleType, Callable[[str], Dialect]]:
    relay, make = MAKE[name]
    if relay.find() is None:
        pytest.skip(relay.HOW_TO_GET)
    return relay, make


@pytest.mark.parametrize(
    ("name", "tls"), [(name, tls) for name in MAKE for tls in (False, True) if (name, tls) not in LEFT_OUT]
)
def test_everybody_gets_everything_once_and_in_order(name: str, tls: bool, tmp_path: Path) -> None:
    relay, make = made(name)
    features = make("").features
    with started(relay, make, tmp_path, tls=tls) as connect:
        readers, writers = ([connect() for _ in range(count)] for count in (3, 2))
        heads = [client.join(attach_to(RECEIVE)).head for client in readers]
        heads += [client.join(attach_to(PUBLISH)).head for client in writers]
        assert heads == [0 if features.numbers else None] * 5
        first, second = (client.dialect for client in writers)
        for number, sealed in enumerate(RECORDS):
            writers[number % 2].send(writers[number % 2].dialect.publish(STREAM, number, sealed))
        writers[0].send(first.publish(STREAM, 100, LARGE))
        settle(writers, lambda: sum(len(client.events) - 2 for client in writers) >= 101)
        settle(readers, lambda: all(len(client.events) - 2 >= 101 for client in readers))
        # A relay may drop a state that meets a record.
        writers[1].send(second.publish(STREAM, 0, b"typing", durable=False))
        settle(readers, lambda: all(len(client.events) - 2 >= 102 for client in readers))
        for client in readers:
            client.send(client.dialect.unsubscribe(STREAM))
        settle(readers, lambda: all(isinstance(client.events[-1], Unsubscribed) for client in readers))

        acknowledged = [[event for event in client.events if isinstance(event, Published)] for client in writers]
        assert [[one.id for one in some] for some in acknowledged] == [[*range(0, 101, 2)], [*range(1, 100, 2)]]
        got = [[sealed for _, sealed in client.delivered if sealed != b"typing"] for client in readers]
        assert got[0] == got[1] == got[2]
        for publisher in (0, 1):
            own = [*RECORDS[publisher::2], *([LARGE] if not publisher else [])]
            assert [sealed for sealed in got[0] if sealed in own] == own
        assert len(got[0]) == 101
        if features.ephemeral:
            states = [event.sealed for client in readers for event in client.events if isinstance(event, State)]
            assert states == [b"typing"] * 3
        if features.numbers:
            assert sorted(one.seq or 0 for some in acknowledged for one in some) == [*range(1, 102)]
            assert [seq for seq, _ in readers[0].delivered] == [*range(1, 102)]
            assert readers[0].events[-1] == Unsubscribed(STREAM, 101)
        writers[0].send(first.publish(STREAM, 102, LARGE))
        settle(writers, lambda: Published in {type(event) for event in writers[0].events[-1:]})
        ends = [client.events[-1] for client in readers]
        for client in readers:
            client.hear_out()
        assert [client.events[-1] for client in readers] == ends


@pytest.mark.parametrize("name", [name for name, (_, make) in MAKE.items() if make("").features.resumes])
def test_who_was_away_gets_what_it_missed(name: str, tmp_path: Path) -> None:
    relay, make = made(name)
    with started(relay, make, tmp_path) as connect:
        writer, first = connect(), connect()
        writer.join(attach_to(PUBLISH))
        epoch = first.join(attach_to(RECEIVE)).epoch
        for number in range(10):
            writer.send(writer.dialect.publish(STREAM, number, RECORDS[number]))
        settle([writer, first], lambda: len(first.delivered) >= 10)
        first.socket.close()
        for number in range(10, 20):
            writer.send(writer.dialect.publish(STREAM, number, RECORDS[number]))
        settle([writer], lambda: len(writer.events) == 22)
        again = connect()
        subscribed = again.join(attach_to(RECEIVE), after=10, epoch=epoch)
        assert (subscribed.epoch, subscribed.head, subscribed.recovered) == (epoch, 20, True)
        settle([again], lambda: len(again.delivered) >= 10)
        assert again.delivered == [(number + 1, RECORDS[number]) for number in range(10, 20)]
        other = connect()
        assert other.join(attach_to(RECEIVE), after=10, epoch=(epoch or 0) + 1).recovered is False
        settle([other], lambda: len(other.delivered) >= 20)
        assert [seq for seq, _ in other.delivered] == [*range(1, 21)]


def test_a_retry_on_another_connection_is_known(tmp_path: Path) -> None:
    relay, make = made("jetstream")
    with started(relay, make, tmp_path) as connect:
        writers = [connect() for _ in range(2)]
        for client in writers:
            client.join(attach_to(PUBLISH))
            client.send(client.dialect.publish(STREAM, 1, LARGE))
            settle([client], lambda client=client: Published(1, 1) in client.events)
            client.send(client.dialect.publish(STREAM, 2, RECORDS[0]))
            settle([client], lambda client=client: Published(2, 2) in client.events)
