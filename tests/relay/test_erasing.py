"""Erasures are gathered into calls of the store, and each comes to an end of its own."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from scripted import ALL, ERASE, PUBLISH, Net, errors, sealed_of, seqs

from relay import wire
from relay.errors import Code
from relay.store import Batch, Committed, MemoryStore, Record


class Store(MemoryStore):
    """Finishes the erasures that the test says; None: all that are asked for."""

    def __init__(self) -> None:
        super().__init__(bytes(32))
        self.asked: list[list[int]] = []
        self.answers: deque[list[tuple[int, bool | None]] | None] = deque()
        self.committed: deque[Committed] = deque()
        self.bad_frame = False

    def erase(self, erasures: list[tuple[int, int]]) -> list[tuple[int, bool | None]]:
        self.asked.append([number for number, _ in erasures])
        answer = self.answers.popleft() if self.answers else None
        gone = dict(erasures)
        if answer is None:
            return super().erase(erasures)
        super().erase([(number, gone[number]) for number, is_gone in answer if is_gone])
        return answer

    def commit(self, batch: Batch) -> Committed:
        answer = self.committed.popleft() if self.committed else Committed()
        refused = {*answer.full, *answer.damaged}
        batch.runs = [(number, run) for number, run in batch.runs if number not in refused]
        super().commit(batch)
        return answer

    def read(self, number: int, after: int, bytes_max: int) -> list[Record]:
        found = super().read(number, after, bytes_max)
        return [Record(r.seq, r.at_ns, r.handle, r.id, b"\x82\x01\xc1") for r in found] if self.bad_frame else found


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def owners(store: Store) -> tuple[Net, list[Any], list[int]]:
    """Three clients with a stream of their own each."""
    net = Net(store)
    pairs = [net.attached(index, use=ALL) for index in (1, 2, 3)]
    return net, [client for client, _ in pairs], [number for _, number in pairs]


def test_what_came_in_one_turn_is_one_call(store: Store, owners: tuple[Net, list[Any], list[int]]) -> None:
    net, clients, numbers = owners
    for client, number in zip(clients, numbers, strict=True):
        client.give(client.frame(wire.encode(wire.Erase(number))))
    net.settle()
    assert store.asked == [numbers]
    assert [[type(record) for record in client.pop()] for client in clients] == [[wire.Erased]] * 3


def test_one_that_fails_is_refused_and_the_others_are_gone(
    store: Store, owners: tuple[Net, list[Any], list[int]]
) -> None:
    net, clients, numbers = owners
    clients[0].publish(numbers[0], 1)
    store.answers.append([(numbers[0], False), (numbers[1], True)])
    for client, number in zip(clients, numbers, strict=True):
        client.give(client.frame(wire.encode(wire.Erase(number))))
    net.settle()
    assert store.asked == [numbers, [numbers[2]]], "what is left is asked for again"
    assert errors(clients[0].pop()) == [(Code.STORE, 6, numbers[0])]
    assert [type(record) for record in clients[1].pop()] == [wire.Erased]
    assert seqs(clients[0].publish(numbers[0], 2)) == [2], "it goes on as it was"


def test_a_call_that_finishes_nothing_is_made_again_a_second_later(
    store: Store, owners: tuple[Net, list[Any], list[int]]
) -> None:
    net, clients, numbers = owners
    store.answers.append([])
    assert clients[0].send(wire.Erase(numbers[0])) == []
    net.settle()
    assert len(store.asked) == 1
    came = clients[0].send(wire.Publish(numbers[0], 0, 7, None, sealed_of(7)))
    assert came == [], "nothing of the stream is committed meanwhile"
    assert seqs(clients[1].publish(numbers[1], 1)) == [1]
    net.hub.tick(lambda: None)
    net.settle()
    came = clients[0].pop()
    assert [type(record) for record in came if not isinstance(record, wire.Published)] == [wire.Erased, wire.Message]
    assert seqs(came) == [1]


def test_runs_that_the_store_does_not_take_are_refused_and_their_numbers_given_again(
    store: Store, owners: tuple[Net, list[Any], list[int]]
) -> None:
    net, clients, numbers = owners
    store.committed.append(Committed([], [numbers[0]], [numbers[1]]))
    for client, number in zip(clients, numbers, strict=True):
        client.give(client.frame(wire.encode(wire.Publish(number, 0, 5, None, sealed_of(5)))))
    net.settle()
    came = [client.pop() for client in clients]
    assert errors(came[0]) == [(Code.FULL, 4, 5)]
    assert errors(came[1]) == [(Code.STORE, 4, 5)]
    assert seqs(came[2]) == [1]
    assert seqs(clients[0].publish(numbers[0], 5)) == [1], "with the same id"


def test_a_page_that_cannot_be_told_ends_that_connection_and_no_other(
    store: Store, owners: tuple[Net, list[Any], list[int]]
) -> None:
    net, clients, numbers = owners
    faults: list[Exception] = []
    net.hub.report = faults.append
    clients[0].publish(numbers[0], 1)
    store.bad_frame = True
    clients[0].send(wire.Export(numbers[0], 0))
    assert clients[0].closed == 4000 + Code.INTERNAL
    assert len(faults) == 1
    assert seqs(clients[1].publish(numbers[1], 1)) == [1]


def test_a_second_erasure_of_a_stream_is_refused_while_one_is_under_way(store: Store) -> None:
    net = Net(store)
    client, number = net.attached(use=ERASE | PUBLISH)
    store.answers.append([])
    assert errors(client.send(wire.Erase(number), wire.Erase(number))) == [(Code.STORE, 6, number)]
