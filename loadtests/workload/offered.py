"""What a workload asks of a relay, counted in its plan: records and deliveries a second."""

from __future__ import annotations

from typing import NamedTuple

from loadtests.sealing.records import Kind
from loadtests.workload.traffic import Workload


class Offered(NamedTuple):
    """Means over the run, a second, with the receipts that messages bring about. Rates are for one seed."""

    messages: float
    """Chat messages, which `--rate` sets."""
    records: float
    """All that is sent."""
    deliveries: float
    """All that is received where everybody is there, and publishers get their own records back."""
    streams: int
    """Rooms, inboxes and private chats."""


def offered(workload: Workload) -> Offered:
    """Count every action of every participant, and the receipts for each message."""
    plans = [workload.participant(index) for index in range(workload.participants)]
    answers: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for plan in plans:
        for stream, rule in plan.receipts.items():
            receipts = rule.delivered + rule.read
            for author in rule.authors:
                answers.setdefault((stream, author), []).append((receipts, workload.streams[rule.to_stream].members))
    messages = records = deliveries = 0
    for plan in plans:
        for action in plan.actions():
            records += 1
            deliveries += workload.streams[action.stream].members
            if action.kind is Kind.MESSAGE:
                messages += 1
                for receipts, members in answers.get((action.stream, plan.participant), ()):
                    records += receipts
                    deliveries += receipts * members
    seconds = workload.duration_ns / 1e9
    return Offered(messages / seconds, records / seconds, deliveries / seconds, len(workload.streams))
