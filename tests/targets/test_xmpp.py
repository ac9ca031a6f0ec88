"""prosody and ejabberd as real programs: what every member gets, what is acknowledged, who leaves, what is left."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from targets.conversations import PUBLISH, RECEIVE, Client, settle, started

from loadtests.dialects.base import Attach, Place, Published, Unsubscribed
from loadtests.dialects.xmpp import Xmpp
from loadtests.target.relays import ejabberd, prosody

pytestmark = pytest.mark.process

STREAM = 3
RECORDS = [bytes((number,)) * 300 for number in range(100)]
LARGE = b"\x01\x01" + bytes(range(256)) * 391


def attach_to(use: int) -> Attach:
    return Attach(stream=STREAM, name=bytes(range(50, 82)), use=use, capability=b"")


@pytest.mark.parametrize("relay", [prosody, ejabberd], ids=["prosody", "ejabberd"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_everybody_gets_everything_once_and_in_order(relay: ModuleType, tls: bool, tmp_path: Path) -> None:
    if relay.find() is None:
        pytest.skip(relay.HOW_TO_GET)
    with started(relay, lambda host: Xmpp(Place(host=host)), tmp_path, tls=tls) as connect:
        readers, writers = ([connect() for _ in range(count)] for count in (3, 2))
        for client in readers:
            client.join(attach_to(RECEIVE))
        writers[0].join(attach_to(PUBLISH))
        writers[1].join(attach_to(RECEIVE | PUBLISH))
        for number, sealed in enumerate([*RECORDS, LARGE]):
            writer = writers[number % 2]
            writer.send(writer.dialect.publish(STREAM, number, sealed))
        members = [*readers, writers[1]]
        acknowledged = [[*range(0, 101, 2)], [*range(1, 100, 2)]]
        settle(
            [*readers, *writers],
            lambda: all(len(client.delivered) == 101 for client in members) and ids(writers) == acknowledged,
        )
        for client in members:
            assert client.delivered == members[0].delivered
            for own in ([*RECORDS[::2], LARGE], RECORDS[1::2]):
                assert [sealed for _, sealed in client.delivered if sealed in own] == own
        assert writers[0].delivered == []

        leaver = readers.pop()
        leaver.send(leaver.dialect.unsubscribe(STREAM))
        settle([leaver], lambda: leaver.events[-1] == Unsubscribed(STREAM, None))
        writers[0].send(writers[0].dialect.publish(STREAM, 200, RECORDS[0]))
        settle([*readers, *writers], lambda: all(len(client.delivered) == 102 for client in readers))
        leaver.hear_out()
        assert leaver.events[-1] == Unsubscribed(STREAM, None)


def ids(writers: list[Client]) -> list[list[int]]:
    return [[event.id for event in client.events if isinstance(event, Published)] for client in writers]
