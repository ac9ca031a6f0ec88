"""Scenarios against relays: what is installed of each is started and must be accounted for, to the last record.

    python -m tests.targets.matrix                      all that is installed, 40 participants, 5 s each
    python -m tests.targets.matrix nats prosody --tls   these, with TLS
    python -m tests.targets.matrix --json ...           one line of JSON a run

A target has one engine with two workers for all scenarios, and a fresh relay for each. Exit 1 if any run is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

TARGETS: Final = ("reference", "nats", "bun", "mosquitto", "redis", "nchan", "socketio", "prosody")
SCENARIOS: Final = ("private-chat", "room", "reconnect-storm", "evening-peak")
NOISE: Final = frozenset({"schedule-lag", "loop-lag", "generator-cpu", "uniform-ceiling", "clock-error", "no-samples"})
"""Findings that a busy machine or a load of two seconds brings about, and that say nothing of the accounts.

Of a kind that is sent a few times only, all recipients may be away. That nothing at all was delivered is told here.
"""


def runs(name: str, scenarios: list[str], *, participants: int, seconds: float, tls: bool) -> Iterator[dict[str, Any]]:
    """Yield what came of each scenario against a target that is installed."""
    # Locust patches the process that it is imported into: only when it is really used.
    from loadtests.control.facts import RunFacts
    from loadtests.engine import Engine
    from loadtests.results.environment import machine
    from loadtests.settings import Settings
    from loadtests.target.greeting import greet
    from loadtests.target.opening import opened
    from loadtests.target.spec import read

    target = read(name)
    with TemporaryDirectory(prefix="relaymark-matrix-") as text, Engine(Path(text), workers=2) as engine:
        for scenario in scenarios:
            began = time.monotonic()
            with opened(target, Path(text), tls=tls) as found:
                settings = Settings(
                    scenario=scenario,
                    url=found.address.url,
                    dialect=target.dialect,
                    own_certificate=found.own_certificate,
                    participants=participants,
                    duration_s=seconds,
                    run=f"{time.time_ns():x}",
                )
                greet(settings)
                facts = RunFacts(
                    target=name,
                    relay=found.relay,
                    machine=machine(),
                    commit=None,
                    command=["matrix"],
                    version=found.version,
                )
                result = engine.run(settings, facts)
            yield {
                "target": name,
                "version": found.version,
                "scenario": scenario,
                "seconds": round(time.monotonic() - began, 1),
                "findings": [finding.sentence for finding in result.findings if finding.code not in NOISE],
                "resumes": target.promises.resumes,
                "ordered": target.promises.ordered,
                "ledger": {
                    kind: {column: getattr(figures.ledger, column) for column in figures.ledger.__struct_fields__}
                    for kind, figures in result.kinds.items()
                },
                "notes": result.notes,
            }


def problems_of(run: dict[str, Any]) -> list[str]:
    """Return what is wrong with the accounts of a run, one sentence each."""
    found = list(run["findings"])
    delivered = 0
    for kind, ledger in run["ledger"].items():
        delivered += ledger["delivered"]
        found += [f"{kind}: {column} is {count}" for column, count in ledger.items() if count < 0]
        found += [f"{kind}: {ledger[column]} {column}" for column in ("lost", "duplicated") if ledger[column]]
        if run["ordered"] != "none" and ledger["reordered"]:
            found.append(f"{kind}: {ledger['reordered']} reordered, and order is promised")
        if run["resumes"] and kind != "typing" and ledger["missed_away"]:
            found.append(f"{kind}: {ledger['missed_away']} missed while away, and resume is promised")
    if not delivered:
        found.append("nothing was delivered")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("targets", nargs="*", default=TARGETS)
    parser.add_argument("--scenario", action="append")
    parser.add_argument("--participants", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    wrong = 0
    for name in options.targets:
        if (how_to_get := missing(name)) is not None:
            sys.stderr.write(f"{name:18} is not installed: {how_to_get}\n")
            continue
        scenarios = options.scenario or list(SCENARIOS)
        for run in runs(name, scenarios, participants=options.participants, seconds=options.seconds, tls=options.tls):
            problems = problems_of(run)
            wrong += bool(problems)
            sys.stdout.write(
                (json.dumps({**run, "problems": problems}) if options.json else _line(run, problems)) + "\n"
            )
            sys.stdout.flush()
    return 1 if wrong else 0


def missing(name: str) -> str | None:
    """Return how to get a target of the catalogue that is not installed."""
    from loadtests.target.catalogue import CATALOGUE

    return CATALOGUE[name].missing()


def _line(run: dict[str, Any], problems: list[str]) -> str:
    sums = {
        column: sum(ledger[column] for ledger in run["ledger"].values())
        for column in ("delivered", "lost", "missed_away", "under_way", "boundary")
    }
    figures = ", ".join(f"{count} {column.replace('_', ' ')}" for column, count in sums.items() if count)
    said = "; ".join(problems) or "ok"
    return f"{run['target']:18} {run['version']:10} {run['scenario']:16} {run['seconds']:5.1f} s  {figures}: {said}"


if __name__ == "__main__":
    sys.exit(main())
