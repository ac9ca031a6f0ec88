"""Seeded open-loop arrival processes: when something is due, as a pure function of (seed, scenario, participant).

Nothing here knows of workers or of time passing, so splitting a run over processes changes no arrival. Offsets are
integer ns from the start of the run, in ascending order, below its duration.

    Constant      every 1/rate s, with a phase of the participant's own
    Poisson       independent arrivals at a rate
    Ramp          Poisson with a rate that goes linearly from one value to another over the run
    FlashCrowd    a number of arrivals, uniform within a short time
    Diurnal       Poisson with a rate that swings like a day's: trough first, peak in the middle of the period
    Bursts        self-exciting (Hawkes): each arrival brings others with it, soon after
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from heapq import heappop, heappush
from itertools import accumulate, takewhile
from math import cos, exp, isfinite, pi, sqrt
from random import Random
from typing import Final, TypeAlias

from msgspec import Struct

NS: Final = 1_000_000_000

BRANCHING_MAX: Final = 0.95
"""Each arrival brings fewer than one other on average, or a burst would never end; at 0.95 one has 20 on average."""
COUNT_MAX: Final = 1_000_000
"""Arrivals of one flash crowd, which are drawn at once because they must be sorted."""
RATE_MIN: Final = 1e-6
"""Below one arrival in eleven days a rate is zero or a mistake."""
RATE_MAX: Final = 1e6
"""Bound for one participant. Nothing sends that fast; it keeps offsets apart in ns."""
TIME_S_MAX: Final = 1e9


class Constant(Struct, frozen=True, tag="constant", forbid_unknown_fields=True):
    rate: float
    """Arrivals a second."""

    def __post_init__(self) -> None:
        _need_rate("rate", self.rate)


class Poisson(Struct, frozen=True, tag="poisson", forbid_unknown_fields=True):
    rate: float

    def __post_init__(self) -> None:
        _need_rate("rate", self.rate)


class Ramp(Struct, frozen=True, tag="ramp", forbid_unknown_fields=True):
    first: float
    """Rate at the start, and ..."""
    last: float
    """... at the end of the run."""

    def __post_init__(self) -> None:
        _need_rate("first", self.first)
        _need_rate("last", self.last)


class FlashCrowd(Struct, frozen=True, tag="flash-crowd", forbid_unknown_fields=True):
    count: int
    within_s: float
    at_s: float = 0.0

    def __post_init__(self) -> None:
        _need("count", self.count, 0, COUNT_MAX)
        _need("within_s", self.within_s, 0, TIME_S_MAX)
        _need("at_s", self.at_s, 0, TIME_S_MAX)


class Diurnal(Struct, frozen=True, tag="diurnal", forbid_unknown_fields=True):
    rate: float
    """The mean over a period."""
    period_s: float
    swing: float = 0.5
    """The peak is (1 + swing) and the trough (1 - swing) of the mean."""

    def __post_init__(self) -> None:
        _need_rate("rate", self.rate)
        _need("period_s", self.period_s, 1e-9, TIME_S_MAX)
        _need("swing", self.swing, 0, 1)


class Bursts(Struct, frozen=True, tag="bursts", forbid_unknown_fields=True):
    rate: float
    """The mean in the long run, those that came with others included."""
    branching: float = 0.6
    """How many others an arrival brings on average; bursts have 1 / (1 - branching) arrivals."""
    decay_s: float = 2.0
    """How long after it they come, on average (exponential)."""

    def __post_init__(self) -> None:
        _need_rate("rate", self.rate)
        _need("branching", self.branching, 0, BRANCHING_MAX)
        _need("decay_s", self.decay_s, 1e-9, TIME_S_MAX)


Process: TypeAlias = Constant | Poisson | Ramp | FlashCrowd | Diurnal | Bursts


def _need(name: str, value: float, least: float, most: float = float("inf")) -> None:
    if not isfinite(value) or not least <= value <= most:
        above = "" if most == float("inf") else f" and at most {most:g}"
        raise ValueError(f"{name} must be at least {least:g}{above}, not {value!r}")


def _need_rate(name: str, value: float) -> None:
    if value and not RATE_MIN <= value <= RATE_MAX:
        raise ValueError(f"{name} must be 0, or at least {RATE_MIN:g} and at most {RATE_MAX:g} a second, not {value!r}")


def generator(*parts: int | str) -> Random:
    """Return a generator that depends on `parts` and on nothing else, not even on the interpreter's hash seed."""
    digest = blake2b(digest_size=32, person=b"relaymark.sched")
    for part in parts:
        text = str(part).encode()
        digest.update(len(text).to_bytes(4, "big") + text)
    return Random(digest.digest())


def arrivals(
    process: Process, *, seed: int, scenario: str, participant: int | str, duration_ns: int, purpose: str = ""
) -> Iterator[int]:
    """Yield the offsets in ns at which `participant` is due, ascending, each in 0 <= offset < `duration_ns`.

    `purpose` tells apart several schedules of one participant, say its messages and its typing: with the same purpose
    and process they would coincide. Lazy: a long run is never held in memory, but for a FlashCrowd's count.
    """
    random = generator(seed, scenario, participant, type(process).__name__, purpose)
    match process:
        case Constant():
            offsets = _constant(process, random)
        case Poisson():
            offsets = _poisson(process.rate, random)
        case Ramp():
            offsets = _ramp(process, random, duration_ns / NS)
        case FlashCrowd():
            offsets = _flash_crowd(process, random)
        case Diurnal():
            offsets = _diurnal(process, random)
        case Bursts():
            offsets = _bursts(process, random)
    return takewhile(lambda offset: offset < duration_ns, offsets)


def _constant(process: Constant, random: Random) -> Iterator[int]:
    if not process.rate:
        return
    # A phase of one's own: participants that all send at the same instant would be a load of another kind.
    interval_ns = NS / process.rate
    phase_ns = random.random() * interval_ns
    count = 0
    while True:
        yield int(phase_ns + count * interval_ns)  # from the count, so that rounding does not add up
        count += 1


def _poisson_s(rate: float, random: Random) -> Iterator[float]:
    now_s = 0.0
    while rate:
        now_s += random.expovariate(rate)
        yield now_s


def _poisson(rate: float, random: Random) -> Iterator[int]:
    return (int(at_s * NS) for at_s in _poisson_s(rate, random))


def _ramp(process: Ramp, random: Random, duration_s: float) -> Iterator[int]:
    """Map arrivals at rate 1 through the inverse of the expected count, a t + (b - a) t^2 / 2T."""
    first, slope = process.first, (process.last - process.first) / duration_s if duration_s > 0 else 0.0
    for expected in _poisson_s(1.0, random):
        # The root in the form that neither divides by a vanishing slope nor cancels.
        under = first * first + 2 * slope * expected
        if under < 0 or first + sqrt(under) == 0:
            return
        yield int(2 * expected / (first + sqrt(under)) * NS)


def _flash_crowd(process: FlashCrowd, random: Random) -> Iterator[int]:
    yield from sorted(int((process.at_s + random.random() * process.within_s) * NS) for _ in range(process.count))


def _diurnal(process: Diurnal, random: Random) -> Iterator[int]:
    """Thin a Poisson process at the peak's rate (Lewis and Shedler, 1979)."""
    peak = 1 + process.swing
    for at_s in _poisson_s(process.rate * peak, random):
        if random.random() * peak < 1 - process.swing * cos(2 * pi * at_s / process.period_s):
            yield int(at_s * NS)


def _bursts(process: Bursts, random: Random) -> Iterator[int]:
    """Hawkes process as clusters (Hawkes and Oakes, 1974): arrivals of their own, each with Poisson many children.

    Only children that are still to come are held; with a branching below one they are few.
    """
    parents = _poisson_s(process.rate * (1 - process.branching), random)
    pending: list[float] = []
    parent = next(parents, None)
    while parent is not None:
        heappush(pending, parent)
        parent = next(parents, None)
        while pending and (parent is None or pending[0] <= parent):
            at_s = heappop(pending)
            yield int(at_s * NS)
            for _ in range(_poisson_count(process.branching, random)):
                heappush(pending, at_s + random.expovariate(1 / process.decay_s))


def _poisson_count(mean: float, random: Random) -> int:
    """Draw a Poisson number for a small mean (Knuth, The Art of Computer Programming 2, section 3.4.1)."""
    limit, product, count = exp(-mean), random.random(), 0
    while product > limit:
        product *= random.random()
        count += 1
    return count


def zipf_sizes(total: int, exponent: float, *, rooms: int, least: int = 1) -> list[int]:
    """Split `total` members over `rooms`, sizes falling as 1 / rank^exponent, largest first, each at least `least`.

    The sum is exactly `total`. ValueError if they do not suffice for `least` in each.
    """
    if rooms < 1 or least < 0 or total < rooms * least:
        raise ValueError(f"{total} members do not fill {rooms} rooms of at least {least}")
    _need("exponent", exponent, 0)
    spare = total - rooms * least
    weights = [(rank + 1) ** -exponent for rank in range(rooms)]
    # Cumulated shares rounded to whole members: the sum is exact, and no share is off by more than one.
    edges = [round(spare * share / sum(weights)) for share in accumulate(weights)]
    sizes = [least + high - low for low, high in zip([0, *edges], edges, strict=False)]
    return sorted(sizes, reverse=True)
