"""Does the gate find what it must? Plants a slow-down, lets quick gates look for it, and counts what they say.

    python -m benchmarks.plant [--gates 10] [--share 0.10] [--metrics cpu ...] [--json PATH]

In a clone that is deleted afterwards, a commit makes the relay burn so many loop passes for every delivery that a
delivery costs 10% more processor time; how many that takes is measured first, in lock step. Then quick gates alternate:
one with the planted commit, one with no change. What must come out: at least 9 of 10 planted ones say regression, and
none of the others. Takes up to 40 minutes; exit code 0 if so, 1 if not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.gate.metrics import NAMES
from benchmarks.gate.report import judged, load
from benchmarks.gate.tree_runs import costs_ns
from benchmarks.gate.trees import checked_out, repository
from benchmarks.rig.git import git
from benchmarks.rig.priority import preferred
from benchmarks.rig.processes import choose_cores, ended_by_signal, finish
from benchmarks.rig.say import say
from benchmarks.rig.statistics import of_pairs
from loadtests.results.exit_codes import EXIT_INTERRUPTED

FOUND_SHARE: Final = 0.9
GATE_S_MAX: Final = 120.0
_PROBE: Final = 20.0
"""Loop passes a delivery of the first plant, from which the right one is reckoned."""
_OFF_MAX: Final = 0.005
_TRIES: Final = 4
_PAIRS: Final = 6
_SECONDS: Final = 1.0
_CODE: Final = """

def _planted(turn, passes):
    from itertools import repeat

    def planted(self):
        before = self.counters.deliveries
        more = turn(self)
        for _ in repeat(None, int((self.counters.deliveries - before) * passes)):
            pass
        return more

    return planted


Hub.turn = _planted(Hub.turn, {passes})
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment; return 0 if the gate found what it must, 1 if not."""
    options = _parse(arguments)
    top = repository(Path(__file__).parent)
    with ended_by_signal(), tempfile.TemporaryDirectory(prefix="relaymark-plant-") as directory:
        # Its own objects: nothing of the plant is left in the repository.
        clone = Path(directory) / "clone"
        git(top, "clone", "--quiet", "--shared", "--no-tags", str(top), str(clone))
        git(clone, "checkout", "--quiet", "--detach", git(top, "rev-parse", options.base))
        base = git(clone, "rev-parse", "HEAD")
        if options.passes is None:
            passes, share = _calibrate(clone, base, options.share)
        else:
            passes, share = options.passes, _added(clone, base, _plant(clone, base, options.passes))
        say(f"{passes:.1f} passes a delivery cost {share:+.1%}")
        planted = _plant(clone, base, passes)
        gates: dict[str, list[dict[str, Any]]] = {"planted": [], "no change": []}
        for number in range(options.gates):
            for kind, head in (("planted", planted), ("no change", base)):
                gates[kind].append(_gate(clone, base, head, options.metrics, Path(directory) / "result.json"))
                say(f"gate {number + 1}, {kind}: {gates[kind][-1]}")
    found, wrong = (sum(gate["word"] == "regression" for gate in gates[kind]) for kind in ("planted", "no change"))
    slow = max(gate["seconds"] for gate in gates["planted"] + gates["no change"])
    print(f"planted {share:+.1%} CPU a delivery: {found} of {options.gates} gates say regression")
    print(f"no change: {wrong} of {options.gates} gates say regression")
    for kind, made in gates.items():
        words = {word: sum(gate["word"] == word for gate in made) for word in ("regression", "inconclusive", "pass")}
        costs = [gate["costs"]["cpu"] for gate in made if gate["costs"].get("cpu")]
        alone = {
            name: sum(gate["words"].get(name) == "regression" for gate in made) for name in ("cpu", "instructions")
        }
        print(
            f"  {kind}: {words}; regression by one figure alone: {alone}; CPU a delivery that the gates measured: "
            f"{median(costs) - 1:+.1%} ({min(costs) - 1:+.1%}..{max(costs) - 1:+.1%})"
            if costs
            else f"  {kind}: {words}"
        )
    print(f"the longest gate took {slow:.0f} s")
    if options.json:
        content = {"base": base, "share": share, "passes": passes, "gates": gates}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0 if found >= FOUND_SHARE * options.gates and not wrong and slow <= GATE_S_MAX else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plant", description=__doc__.split("\n")[0])
    parser.add_argument("--gates", type=int, default=10, help="of each kind")
    parser.add_argument("--share", type=float, default=0.10, help="what is planted, as a share of CPU a delivery")
    parser.add_argument("--metrics", nargs="+", choices=NAMES, default=NAMES, help="what the gates may decide by")
    parser.add_argument("--passes", type=float, help="plant so many, as an earlier call found them")
    parser.add_argument("--base", default="HEAD", help="the commit that is made slower")
    parser.add_argument("--json", type=Path, help="also write every gate's word and costs to this file")
    options = parser.parse_args(arguments)
    if options.gates < 1 or not 0 < options.share < 10:
        parser.error("--gates must be at least 1, --share above 0")
    return options


def _plant(clone: Path, base: str, passes: float) -> str:
    """Commit the plant on top of `base`; return its commit."""
    git(clone, "checkout", "--quiet", "--detach", base)
    with (clone / "relay" / "hub.py").open("a") as file:
        file.write(_CODE.format(passes=f"{passes:.3f}"))
    author = ("-c", "user.name=plant", "-c", "user.email=plant@localhost", "-c", "commit.gpgsign=false")
    git(clone, *author, "commit", "--quiet", "--no-verify", "-am", f"Burn {passes:.1f} passes a delivery")
    planted = git(clone, "rev-parse", "HEAD")
    git(clone, "checkout", "--quiet", "--detach", base)
    return planted


def _calibrate(clone: Path, base: str, share: float) -> tuple[float, float]:
    """Return how many passes make a delivery `share` dearer, and what they were measured to add."""
    passes = _PROBE
    for _ in range(_TRIES):
        added = _added(clone, base, _plant(clone, base, passes))
        if abs(added - share) <= _OFF_MAX:
            break
        passes *= min(4.0, share / max(added, share / 4))
    return passes, added


def _added(clone: Path, base: str, planted: str) -> float:
    cores = choose_cores()
    affinity = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cores.load})

    try:
        with preferred(), checked_out(clone, base, planted) as (one, two):
            pairs = [
                costs_ns((one, two), cores, _SECONDS) if at % 2 else costs_ns((two, one), cores, _SECONDS)[::-1]
                for at in range(_PAIRS)
            ]
    finally:
        os.sched_setaffinity(0, affinity)
    return of_pairs(pairs).value - 1


def _gate(clone: Path, base: str, head: str, metrics: Sequence[str], result: Path) -> dict[str, Any]:
    """Run one quick gate in a process of its own, as a user would."""
    started = time.monotonic()
    start = "from relay.cli import main; main()"
    # Imported from here: the load is the harness's, not the clone's.
    environment = {"PYTHONPATH": str(repository(Path(__file__).parent))}
    command = [sys.executable, "-P", "-c", start, "gate", "--quick", "--base", base, "--head", head]
    done = finish([*command, "--json", str(result), "--metrics", *metrics], directory=clone, environment=environment)
    seconds = time.monotonic() - started
    if done.returncode not in (0, 99, 121):
        raise SystemExit(f"the gate ended with {done.returncode}: {done.stderr}")
    verdict = judged(load(result))
    assert {"pass": 0, "regression": 99, "inconclusive": 121}[verdict.word.value] == done.returncode
    return {
        "word": verdict.word.value,
        "seconds": round(seconds, 1),
        "costs": {one.metric.name: round(one.cost.value, 4) for one in verdict.decisions if one.cost},
        "words": {one.metric.name: one.word.value for one in verdict.decisions},
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
