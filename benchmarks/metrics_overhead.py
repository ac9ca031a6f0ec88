"""What the relay's metrics cost: throughput without and with a scrape a second, and a scrape with 10,000 connections.

    python -m benchmarks.metrics_overhead [--rounds 10] [--seconds 2] [--shapes ...] [--connections 10000]

Each round measures the relay without --metrics and with it, on fresh processes one after the other, and changes which
comes first. Exit code 1: a bound is missed for certain (its whole interval is beyond it), or something was lost.
"""

from __future__ import annotations

import argparse
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.bootstrap import PAIRS_MIN, Interval, of_pairs
from benchmarks.clients import Role
from benchmarks.counting import CountingError
from benchmarks.load import Measured, Shape, connections, measure
from benchmarks.processes import Cores, ServerError, choose_cores, ended_by_signal, raise_file_limit, stop
from benchmarks.relay_throughput import SHAPES, WARMUP_S
from benchmarks.tables import Row, note, plain, thousands
from benchmarks.targets import Target, all_targets, serving

COST_MAX: Final = 0.02
"""Share of its throughput that the metrics may take."""
SCRAPE_NS_MAX: Final = 20_000_000
SERIES_MAX: Final = 200
CONNECTIONS: Final = 10_000
SCRAPES: Final = 30
SCRAPE_EVERY_S: Final = 1.0
_SPARE_FILES: Final = 200
_SHAPES: Final = ("room", "private-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One round: the same shape without and with metrics."""

    shape: str
    without: Measured
    scraped: Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrapes:
    """Scrapes of a relay with so many idle connections, as the scraper sees them."""

    connections: int
    durations_ns: tuple[int, ...]
    cpu_ns_each: int
    """Processor time of the relay for one scrape, by its own account; what an idle relay does besides is in it."""
    series: int
    page_bytes: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    options = _parse(arguments)
    shapes = [shape for shape in SHAPES if shape.name in options.shapes]
    cores = choose_cores()
    os.sched_setaffinity(0, {cores.load})
    with ended_by_signal():
        try:
            raise_file_limit(options.connections + _SPARE_FILES)
            pairs = [measure_pair(shape, cores, options.seconds, n) for n in range(options.rounds) for shape in shapes]
            scrapes = [measure_scrapes(cores, count) for count in (0, options.connections)]
        except (CountingError, ServerError, OSError) as error:
            print(f"FAILED: {error}", file=sys.stderr)
            return 1
    costs = {shape.name: cost([pair for pair in pairs if pair.shape == shape.name]) for shape in shapes}
    print(f"{'One core for both: compare with nothing. ' if cores.shared else ''}seconds {options.seconds:g}\n")
    print(plain(overhead_lines(pairs, costs)))
    print()
    print(plain(scrape_lines(scrapes)))
    return 1 if misses(costs, scrapes) else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics_overhead", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    parser.add_argument("--shapes", nargs="*", choices=[shape.name for shape in SHAPES], default=_SHAPES)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    options = parser.parse_args(arguments)
    if options.rounds < PAIRS_MIN or options.seconds <= 0 or options.connections < 1:
        parser.error(f"--rounds must be at least {PAIRS_MIN}, --seconds above 0 and --connections at least 1")
    return options


def measure_pair(shape: Shape, cores: Cores, seconds: float, number: int) -> Pair:
    """Measure one round. Raises CountingError, ServerError, OSError."""
    measured = {}
    # Whoever comes second may find the machine warmer, so they take turns.
    for with_metrics in (False, True) if number % 2 == 0 else (True, False):
        measured[with_metrics] = _measure(shape, cores, seconds, with_metrics=with_metrics)
    pair = Pair(shape=shape.name, without=measured[False], scraped=measured[True])
    change = pair.scraped.deliveries_per_s / pair.without.deliveries_per_s - 1
    print(f"round {number + 1}: {shape.name:10} {change:+.1%}", file=sys.stderr, flush=True)
    return pair


def _measure(shape: Shape, cores: Cores, seconds: float, *, with_metrics: bool) -> Measured:
    run = partial(measure, shape=shape, cores=cores, seconds=seconds, warmup_s=WARMUP_S)
    if not with_metrics:
        target = all_targets()["pump"]
        with serving(target, cores) as server:
            return run(target.client(), server)
    target, port = _with_metrics()
    with serving(target, cores) as server, _scraper(port, cores):
        return run(target.client(), server)


def _with_metrics() -> tuple[Target, int]:
    """Return the relay with a metrics listener, and its port."""
    pump = all_targets()["pump"]
    assert pump.command is not None
    start = pump.command
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])

    def command(directory: Path) -> list[str]:
        return [*start(directory), "--metrics", f"127.0.0.1:{port}"]

    return replace(pump, command=command), port


@contextmanager
def _scraper(port: int, cores: Cores) -> Iterator[None]:
    """Scrape from a process of its own, as Prometheus does; a thread of this one would disturb the load."""
    program = (
        "import time; from benchmarks.metrics_overhead import SCRAPE_EVERY_S, scrape\n"
        f"while True: scrape({port}); time.sleep(SCRAPE_EVERY_S)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], process_group=0)
    try:
        os.sched_setaffinity(process.pid, {cores.load})
        yield
        if process.poll() is not None:
            raise ServerError(f"the scraper ended by itself: {process.returncode}")
    finally:
        stop(process)


def scrape(port: int) -> tuple[int, bytes]:
    """Return how long a scrape took, ns, and the page. OSError, ServerError if it fails."""
    started = time.monotonic_ns()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        page = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise ServerError(f"a scrape was answered with {answer.status}")
    return time.monotonic_ns() - started, page


def measure_scrapes(cores: Cores, count: int, scrapes: int = SCRAPES) -> Scrapes:
    """Scrape a relay that has `count` connections, each subscribed to a stream of its own."""
    target, port = _with_metrics()
    client = target.client()
    with (
        serving(target, cores) as server,
        connections(client, server, [(stream, Role.SUBSCRIBE) for stream in range(count)]),
    ):
        time.sleep(SCRAPE_EVERY_S)
        taken = []
        for _ in range(scrapes):
            taken.append(scrape(port))
            time.sleep(0.05)
    first, page = taken[0][1], taken[-1][1]
    return Scrapes(
        connections=count,
        durations_ns=tuple(duration_ns for duration_ns, _ in taken),
        cpu_ns_each=(cpu_of(page) - cpu_of(first)) // (len(taken) - 1),
        series=series_of(page),
        page_bytes=len(page),
    )


def series_of(page: bytes) -> int:
    """Return how many samples a page in the text format has."""
    return sum(not line.startswith(b"#") for line in page.splitlines() if line)


def cpu_of(page: bytes) -> int:
    """Return the processor time that the relay had used when it made the page, ns. Raises ServerError."""
    for line in page.splitlines():
        if line.startswith(b"process_cpu_seconds_total "):
            return int(float(line.split()[1]) * 1e9)
    raise ServerError("the page does not say how much processor time the relay has used")


def cost(pairs: Sequence[Pair]) -> Interval:
    """Return throughput with metrics over throughput without."""
    return of_pairs([(pair.without.deliveries_per_s, pair.scraped.deliveries_per_s) for pair in pairs])


def _per_cpu(pairs: Sequence[Pair]) -> tuple[str, str]:
    """Return the same ratio for deliveries a second of the relay's processor: others on its core disturb that less."""
    figures = [
        tuple(one.deliveries_per_s / max(one.server_cpu, 0.01) for one in (pair.without, pair.scraped))
        for pair in pairs
    ]
    interval = of_pairs([(without, scraped) for without, scraped in figures])
    return f"{interval.value:.3f}", f"{interval.low:.3f}..{interval.high:.3f}"


def misses(costs: dict[str, Interval], scrapes: Sequence[Scrapes]) -> bool:
    """Tell whether a bound is missed for certain."""
    return any(interval.high < 1 - COST_MAX for interval in costs.values()) or any(
        one.series >= SERIES_MAX or median(one.durations_ns) >= SCRAPE_NS_MAX for one in scrapes
    )


def overhead_lines(pairs: Sequence[Pair], costs: dict[str, Interval]) -> list[list[str]]:
    """Return the table of throughput: a heading and a line a shape."""
    lines = [
        [
            *("shape", "without, deliveries/s", "with", "with : without", "95% interval", "pairs", "at least", ""),
            *("for a CPU second", "95% interval", ""),
        ]
    ]
    for shape, interval in costs.items():
        chosen = [pair for pair in pairs if pair.shape == shape]
        missed = interval.high < 1 - COST_MAX
        word = "reached" if interval.low >= 1 - COST_MAX else "missed" if missed else "inconclusive"
        rows = [
            Row(target="pump", shape=shape, round=number, measured=measured)
            for number, pair in enumerate(chosen)
            for measured in (pair.without, pair.scraped)
        ]
        lines.append(
            [
                shape,
                thousands(median(pair.without.deliveries_per_s for pair in chosen)),
                thousands(median(pair.scraped.deliveries_per_s for pair in chosen)),
                f"{interval.value:.3f}",
                f"{interval.low:.3f}..{interval.high:.3f}",
                str(interval.count),
                f"{1 - COST_MAX:g}",
                word,
                *_per_cpu(chosen),
                note(rows),
            ]
        )
    return lines


def scrape_lines(scrapes: Sequence[Scrapes]) -> list[list[str]]:
    """Return the table of scrapes: a heading and a line for each number of connections."""
    heading = ["connections", "scrape, median", "longest", "less than", "relay's CPU", "series", "less than", "page"]
    return [
        heading,
        *(
            [
                str(one.connections),
                f"{median(one.durations_ns) / 1e6:.1f} ms",
                f"{max(one.durations_ns) / 1e6:.1f} ms",
                f"{SCRAPE_NS_MAX / 1e6:g} ms",
                f"{one.cpu_ns_each / 1e6:.1f} ms",
                str(one.series),
                str(SERIES_MAX),
                f"{one.page_bytes / 1000:.1f} kB",
            ]
            for one in scrapes
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
