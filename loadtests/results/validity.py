"""The verdict before the verdict: the eight ways in which a load generator lies, each checked after every run.

code                   what it would have done to the figures
generator-cpu          samples waited in a busy generator, not in the relay
schedule-lag           less load was offered than the schedule says, or later
loop-lag               records lay in the generator's sockets before they were looked at
clock-error            one-way times are off by more than they are long
ledger                 some records are in no column: losses may be hidden
no-samples             nothing was measured
uniform-ceiling        all workers stop at the same rate: something that they share limits them, not the relay
exhausted              connections failed for want of ports or descriptors here
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from statistics import fmean, pstdev
from typing import Final, TypeAlias

from msgspec import Struct

CPU_MAX: Final = 0.9
"""Share of one core, on average over the load. A worker is one thread: above this, it measures its own queues."""
LAG_P99_NS_MAX: Final = 10_000_000
"""Sends that are later than this are another load than the one asked for; a healthy worker is at 0.1 ms."""
LOOP_LAG_P99_NS_MAX: Final = 20_000_000
"""Every received record waits up to this long unseen. Twice the lag's bound: a batch of reads may be under way."""
CEILING_SHARE: Final = 0.95
"""Workers that reach this share of what was due are not held up."""
CEILING_SPREAD: Final = 0.02
"""Relative spread of what the workers reached, below which they hit one ceiling; independent limits differ by more."""
RELAY_BUSY: Final = 0.85
"""A relay at this share of a core is itself the ceiling, and the figure is what was asked for."""


class Verdict(Enum):
    VALID = "valid"
    INVALID = "invalid"


class Finding(Struct, frozen=True):
    """One reason not to believe the run. `sentence` says what was found and what to do about it."""

    code: str
    sentence: str


class WorkerFacts(Struct, frozen=True, kw_only=True):
    """What one worker process can say of itself. Shares are of one core."""

    name: str
    cpu: float
    due: int
    """Sends that the schedule asked for, and ..."""
    sent: int
    """... those that were made."""


class Facts(Struct, frozen=True, kw_only=True):
    """All that the checks look at."""

    workers: tuple[WorkerFacts, ...]
    lag_p99_ns: int
    loop_lag_p99_ns: int
    clock_error_ns: int | None
    """Error of a one-way time; None: it could not be estimated. 0 where one clock stamps both ends."""
    one_way_p50_ns: int
    """The smallest median that is reported of a one-way time; 0 if there is none."""
    unreconciled: int
    """Contradictions in the ledger."""
    samples: int
    silent_kinds: tuple[str, ...] = ()
    """Kinds that were sent to someone and of which no delivery was measured."""
    relay_cpu: float | None = None
    """None: the relay runs elsewhere."""
    ports_exhausted: int = 0
    descriptors_exhausted: int = 0


def check(facts: Facts) -> list[Finding]:
    """Return every reason not to believe the run; an empty list means that it is valid."""
    findings: list[Finding] = []

    def find(code: str, sentence: str) -> None:
        findings.append(Finding(code, sentence))

    busy = [worker for worker in facts.workers if worker.cpu > CPU_MAX]
    if busy:
        worst = max(busy, key=lambda worker: worker.cpu)
        find(
            "generator-cpu",
            f"{len(busy)} of {len(facts.workers)} workers used more than {CPU_MAX:.0%} of a core ({worst.name}:"
            f" {worst.cpu:.0%}): add workers or cores, or offer less.",
        )
    if facts.lag_p99_ns > LAG_P99_NS_MAX:
        find(
            "schedule-lag",
            f"1% of the sends were more than {_ms(facts.lag_p99_ns)} late against the schedule (bound"
            f" {_ms(LAG_P99_NS_MAX)}): offer less, add --workers, or free the machine of other work.",
        )
    if facts.loop_lag_p99_ns > LOOP_LAG_P99_NS_MAX:
        find(
            "loop-lag",
            f"The generator's loop was held up by {_ms(facts.loop_lag_p99_ns)} at its 99th percentile (bound"
            f" {_ms(LOOP_LAG_P99_NS_MAX)}): add --workers, or free the machine of other work.",
        )
    _check_clock(facts, find)
    if facts.unreconciled:
        find(
            "ledger",
            f"The ledger does not add up, in {facts.unreconciled} places (see the notes): give the run a longer --drain,"
            " and if no worker was lost and that does not help, report it with the result file.",
        )
    if not facts.samples:
        find("no-samples", "No delivery was measured: check the target, the rate, and that the run lasts long enough.")
    elif facts.silent_kinds:
        find(
            "no-samples",
            f"No delivery of {', '.join(facts.silent_kinds)} was measured though some were sent: check the relay's"
            " log, or make the run longer.",
        )
    _check_ceiling(facts, find)
    if facts.ports_exhausted:
        find(
            "exhausted",
            f"{facts.ports_exhausted} connections failed for want of local ports: widen"
            " net.ipv4.ip_local_port_range, wait for TIME_WAIT to pass, or use more hosts.",
        )
    if facts.descriptors_exhausted:
        find(
            "exhausted",
            f"{facts.descriptors_exhausted} connections failed for want of file descriptors: raise the limit"
            " (ulimit -n), or add --workers.",
        )
    return findings


_Find: TypeAlias = Callable[[str, str], None]


def _check_clock(facts: Facts, find: _Find) -> None:
    if facts.clock_error_ns is None:
        sentence = "The offset between the workers' clocks could not be estimated: use a target that answers TIME."
    elif facts.one_way_p50_ns and facts.clock_error_ns > facts.one_way_p50_ns:
        sentence = (
            f"The clock error of {_ms(facts.clock_error_ns)} is larger than the smallest median of"
            f" {_ms(facts.one_way_p50_ns)}: run the workers on one host, or synchronise the clocks (PTP)."
        )
    else:
        return
    find("clock-error", sentence)


def _check_ceiling(facts: Facts, find: _Find) -> None:
    """Equal shortfalls are suspicious only among several workers, and only while the relay has room to spare."""
    workers = [worker for worker in facts.workers if worker.due]
    if len(workers) < 2 or (facts.relay_cpu is not None and facts.relay_cpu >= RELAY_BUSY):
        return
    reached = [worker.sent / worker.due for worker in workers]
    if max(reached) < CEILING_SHARE and pstdev(reached) < CEILING_SPREAD * fmean(reached):
        find(
            "uniform-ceiling",
            f"All {len(workers)} workers stopped at {fmean(reached):.0%} of what was due while the relay was not busy:"
            " look for a limit that they share (network, cores, connection tracking), or use more hosts.",
        )


def verdict(findings: Sequence[Finding]) -> Verdict:
    return Verdict.INVALID if findings else Verdict.VALID


def _ms(value_ns: int) -> str:
    value = value_ns / 1e6
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"
