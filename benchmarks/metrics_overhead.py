"""What the relay's metrics cost: throughput without and with a scrape a second, and a scrape with 10,000 connections.

    python -m benchmarks.metrics_overhead [--rounds 20] [--pairs 30] [--shapes ...] [--connections 10000]

A round starts two relays, one without --metrics and one with it, and loads them in turn for a quarter of a second each:
a machine that changes its speed changes it for both. Two processes of one program differ in speed by a percent or so
for as long as they live, so rounds take fresh processes, and a round is one figure. A noisy machine needs very many
rounds; where perf or callgrind can count, the relay's instructions for the same work without and with --metrics say at
once what it costs that nobody scrapes, and the relay's own account says what a scrape costs. Exit code 1: a bound is missed
for certain (its whole interval is beyond it), or something was lost.
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks.fast_load.clients import RelayClient, Role
from benchmarks.fast_load.closed_loop import BLOCK_S, TURN_S, ClosedLoop, Shape, loaded
from benchmarks.fast_load.connections import connections
from benchmarks.fast_load.counting import CountingError
from benchmarks.fast_load.lockstep import instructions_per_delivery
from benchmarks.rig import instructions
from benchmarks.rig.instructions import ToolError
from benchmarks.rig.processes import (
    Cores,
    ServerError,
    choose_cores,
    ended_by_signal,
    raise_file_limit,
    running,
    stop,
)
from benchmarks.rig.say import say
from benchmarks.rig.statistics import PAIRS_MIN, Estimate, of_pairs
from benchmarks.rig.tables import plain, thousands
from benchmarks.rig.usage import Meter, no_collections
from benchmarks.throughput.goals import OTHERS_MAX
from benchmarks.throughput.shapes import SHAPES
from loadtests.results.exit_codes import EXIT_INTERRUPTED
from loadtests.target.opening import free_port
from relaymark import child

COST_MAX: Final = 0.02
"""Share of its throughput that the metrics may take."""
SCRAPE_NS_MAX: Final = 20_000_000
SERIES_MAX: Final = 200
CONNECTIONS: Final = 10_000
SCRAPES: Final = 30
COUNTS: Final = 10
"""Pairs of counts: how records fall into turns differs by a percent from process to process."""
SCRAPE_EVERY_S: Final = 1.0
"""As dashboards/prometheus/prometheus.yml asks for."""
_SPARE_FILES: Final = 200
_BLOCKS_A_SCRAPE: Final = round(SCRAPE_EVERY_S / BLOCK_S)
"""One block in so many is scraped: a scrape for each second that is counted."""
_SHAPES: Final = ("room", "private-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Deliveries a second of two relays that were loaded in turn. `others_cpu`: what others took of the relays' core."""

    shape: str
    without: float
    scraped: float
    others_cpu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Instructions of the relay for a delivery: pairs without --metrics and with it."""

    tool: str
    pairs: tuple[tuple[float, float], ...]


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
            rounds = [
                measure_round(shape, cores, options.pairs, number)
                for number in range(options.rounds)
                for shape in shapes
            ]
            scrapes = [measure_scrapes(cores, count) for count in (0, options.connections)]
            counts = count_instructions(cores)
        except (CountingError, ServerError, ToolError, OSError) as error:
            say(f"FAILED: {error}")
            return 1
    costs = {shape.name: cost([one for one in rounds if one.shape == shape.name]) for shape in shapes}
    if cores.shared:
        print("One core for relay and load: the figures compare with nothing.\n")
    print(plain(overhead_lines(rounds, costs)))
    print()
    print(plain(scrape_lines(scrapes)))
    print()
    print(account(scrapes, counts))
    return 1 if misses(costs, scrapes) else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics_overhead", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="each with fresh processes")
    parser.add_argument("--pairs", type=int, default=30, help=f"of measurements of {BLOCK_S} s in a round")
    parser.add_argument("--shapes", nargs="*", choices=[shape.name for shape in SHAPES], default=_SHAPES)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    options = parser.parse_args(arguments)
    if options.rounds < PAIRS_MIN or options.pairs < 1 or options.connections < 1:
        parser.error(f"--rounds must be at least {PAIRS_MIN}, --pairs and --connections at least 1")
    return options


def measure_round(shape: Shape, cores: Cores, pairs: int, number: int) -> Round:
    """Load two relays in turn, `pairs` times. Raises CountingError, ServerError, OSError."""
    port = free_port()
    total_without, total_scraped = _Total(), _Total()
    with (
        running(_relay(), cores) as plain_server,
        running(_relay(port), cores) as server,
        loaded(RelayClient(), plain_server, shape) as plain_load,
        loaded(RelayClient(), server, shape) as load,
        _scraper(port, cores) as scraping,
        no_collections(),
    ):
        plain_load.start()
        load.start()
        meter = Meter(cores, plain_server.pid, server.pid)
        draw = random.Random(number)
        for pair in range(pairs):
            scraped = scraping() if pair % _BLOCKS_A_SCRAPE == 0 else nullcontext()
            # Whoever comes second may find the machine warmer, so that is drawn by lot.
            if draw.random() < 0.5:
                with scraped:
                    total_scraped.add_block(load)
                total_without.add_block(plain_load)
            else:
                total_without.add_block(plain_load)
                with scraped:
                    total_scraped.add_block(load)
        usage = meter.read()
        plain_load.settle()
        load.settle()
    measured = Round(
        shape=shape.name, without=total_without.per_s, scraped=total_scraped.per_s, others_cpu=usage.others
    )
    change = measured.scraped / measured.without - 1
    say(f"round {number + 1}: {shape.name:10} {change:+.1%}")
    return measured


class _Total:
    """Deliveries of one relay, and the time that they took."""

    def __init__(self) -> None:
        self._delivered = 0
        self._elapsed_ns = 0

    def add_block(self, load: ClosedLoop) -> None:
        load.run(TURN_S)
        delivered = load.delivered
        self._elapsed_ns += load.run(BLOCK_S)
        self._delivered += load.delivered - delivered

    @property
    def per_s(self) -> float:
        return self._delivered / self._elapsed_ns * 1e9


def _relay(metrics_port: int | None = None) -> list[str]:
    """Return what starts the relay, with a listener for metrics or without: as a target it always has one."""
    metrics = [] if metrics_port is None else ["--metrics", f"127.0.0.1:{metrics_port}"]
    return child("serve", "--listen", "127.0.0.1:0", "--store", "memory", *metrics)


@contextmanager
def _scraper(port: int, cores: Cores) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Scrape from a process of its own, as Prometheus does; a thread of this one would disturb the load.

    What it gives starts a scrape within a block, and waits for its end.
    """
    program = f"import relaymark; from benchmarks.metrics_overhead import scrape_on_demand; scrape_on_demand({port})"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
    )
    assert process.stdin is not None
    assert process.stdout is not None
    requests, answers = process.stdin, process.stdout

    def answered() -> None:
        if not answers.readline():
            raise ServerError(f"the scraper ended by itself: {process.wait()}")

    @contextmanager
    def scraping() -> Iterator[None]:
        requests.write(b"\n")
        requests.flush()
        yield
        answered()

    try:
        os.sched_setaffinity(process.pid, {cores.load})
        answered()  # it has imported what it needs
        yield scraping
    finally:
        stop(process)


def scrape_on_demand(port: int) -> None:
    """Scrape once for each line on stdin, in the middle of a block, and answer with a line. Ends with its input."""
    print("ready", flush=True)
    for _ in sys.stdin:
        time.sleep(TURN_S + BLOCK_S / 2)
        scrape(port)
        print("scraped", flush=True)


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
    port, client = free_port(), RelayClient()
    with (
        running(_relay(port), cores) as server,
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


def count_instructions(cores: Cores) -> Counts | None:
    """Count the same work without --metrics and with it; None where nothing can. Raises as instructions_per_delivery does."""
    tool = instructions.find()
    if tool is None:
        return None
    pairs = [
        (
            instructions_per_delivery(_relay(), {}, tool.fresh(), cores),
            instructions_per_delivery(_relay(0), {}, tool.fresh(), cores),
        )
        for _ in range(COUNTS)
    ]
    return Counts(tool=tool.name, pairs=tuple(pairs))


def account(scrapes: Sequence[Scrapes], counts: Counts | None) -> str:
    """Return in words what the metrics cost by account: per delivery, and for a scrape a second."""
    share = max(one.cpu_ns_each for one in scrapes) / (SCRAPE_EVERY_S * 1e9)
    text = f"A scrape a second takes {share:.2%} of the relay's core, by its own account"
    if counts is None:
        return f"{text}; instructions were not counted: neither perf nor valgrind can here."
    ratio = of_pairs(counts.pairs)
    low, high = share + ratio.low - 1, share + ratio.high - 1
    word = "reached" if high < COST_MAX else "missed" if low >= COST_MAX else "inconclusive"
    return (
        f"{text}.\nInstructions a delivery ({counts.tool}), with --metrics and no scrape : without, {ratio.count} pairs: "
        f"{ratio.value:.4f} ({ratio.low:.4f}..{ratio.high:.4f}).\n"
        f"Together {share + ratio.value - 1:.2%} ({low:.2%}..{high:.2%}), less than {COST_MAX:.0%}: {word}"
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


def cost(rounds: Sequence[Round]) -> Estimate:
    """Return throughput with metrics over throughput without; a round is one figure."""
    return of_pairs([(one.without, one.scraped) for one in rounds])


def misses(costs: dict[str, Estimate], scrapes: Sequence[Scrapes]) -> bool:
    """Tell whether a bound is missed for certain."""
    return any(interval.high < 1 - COST_MAX for interval in costs.values()) or any(
        one.series >= SERIES_MAX or median(one.durations_ns) >= SCRAPE_NS_MAX for one in scrapes
    )


def overhead_lines(rounds: Sequence[Round], costs: dict[str, Estimate]) -> list[list[str]]:
    """Return the table of throughput: a heading and a line a shape."""
    lines = [
        [*("shape", "without, deliveries/s", "with", "with : without", "95% interval", "rounds", "at least", "", "")]
    ]
    for shape, interval in costs.items():
        chosen = [one for one in rounds if one.shape == shape]
        missed = interval.high < 1 - COST_MAX
        word = "reached" if interval.low >= 1 - COST_MAX else "missed" if missed else "inconclusive"
        others = max(one.others_cpu for one in chosen)
        lines.append(
            [
                shape,
                thousands(median(one.without for one in chosen)),
                thousands(median(one.scraped for one in chosen)),
                f"{interval.value:.3f}",
                f"{interval.low:.3f}..{interval.high:.3f}",
                str(interval.count),
                f"{1 - COST_MAX:g}",
                word,
                f"disturbed: others took {others:.0%} of a core" if others > OTHERS_MAX else "",
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
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
