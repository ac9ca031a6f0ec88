"""How many connections a workload needs, by worker: what decides whether the limit of open files allows it."""

from __future__ import annotations

from loadtests.workload.traffic import Workload
from relay.capability import Right

_USES = Right.SUBSCRIBE | Right.PUBLISH


def connections(workload: Workload, *, workers: int, one_stream: bool) -> list[int]:
    """Return the connections of each worker. `one_stream`: a connection is for one stream and one direction."""
    if not one_stream:
        return [len(range(worker, workload.participants, workers)) for worker in range(workers)]
    found = [0] * workers
    for index in range(workload.participants):
        memberships = workload.participant(index).memberships
        found[index % workers] += sum((membership.rights & _USES).bit_count() for membership in memberships)
    return found
