"""`relaymark compare`: options to a plan, all of them checked at once.

Exit codes: 0 done, 99 a threshold was missed, 104 options that cannot work, 105 interrupted, 120 the latencies of a target
are invalid, 122 a target did not start, or none is installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from msgspec.structs import replace

from benchmarks.compare.measurements import PARTICIPANTS, ROUNDS_MIN, ComparePlan, plan
from benchmarks.rig.files import unwritable
from benchmarks.rig.say import complain
from loadtests.options import HandshakeOptions, cannot_write, read_thresholds, target_named, with_handshake
from loadtests.results.exit_codes import EXIT_CONFIGURATION
from loadtests.settings import problems_of, seconds

DEFAULT: Final = ("reference", "reference@trio-websocket", "reference@uvloop", "nats", "bun")
ROUNDS_MAX: Final = 1000
_FLAG: Final = Parameter(negative=())
_NO_HANDSHAKE: Final = HandshakeOptions()


def compare(
    *relays: str,
    scenario: str = "mix",
    participants: int = PARTICIPANTS,
    rate: float | None = None,
    duration: str | None = None,
    quick: Annotated[bool, _FLAG] = False,
    rounds: int | None = None,
    seed: int = 1,
    threshold: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    targets: str | None = None,
    handshake: Annotated[HandshakeOptions, Parameter(name="*")] = _NO_HANDSHAKE,
    json: Path | None = None,
    markdown: Path | None = None,
    out: Path = Path("runs"),
) -> int:
    """Measure several relays in turn under the same sealed work: latency, CPU, memory, losses, and how much each carries.

    Every round gives every relay its turn, next to each other in time: a run of the scenario, by the same load processes
    from the first to the last, on a fresh server where it is one that is started here, alone on a core; then, on the same
    server, a closed window that counts how much it carries. Relays that run already get the runs alone.

    Parameters
    ----------
    relays
        Names of `relaymark targets`, DIALECT@URL, FILE.py:Class@URL, or sections of targets.toml. The ratios are to the
        first. Default: reference reference@trio-websocket reference@uvloop nats bun.
    scenario
        What `relaymark run` runs. The default has rooms of all sizes and private chats, and nothing but messages.
    participants
        Of the scenario.
    rate
        Chat messages a second. Default: what the load carries, and at most half of what the slowest target does.
    duration
        Length of each run. Default: 6s, quick: 2s.
    quick
        Shorter turns and 5 rounds, instead of 10.
    rounds
        How often every target has its turn, at least 3.
    seed
        Equal seeds give equal schedules.
    threshold
        As of `relaymark run`, asked of each target over all its rounds; may be given several times.
    targets
        File with targets of yours. Default: ./targets.toml, if it is there.
    handshake
        How relays that run already are reached.
    json
        Also write every figure to this file.
    markdown
        Also write the tables to this file.
    out
        Folder for the results; each comparison makes its own in it, with one run a turn and a report.
    """
    problems: list[str] = []
    planned = _plan(scenario, participants, rate, duration, quick, rounds, seed, problems)
    thresholds, wrong = read_thresholds(threshold)
    problems += wrong
    names = list(relays or DEFAULT)
    problems += [f"{name} is named twice." for name in dict.fromkeys(names) if names.count(name) > 1]
    chosen = [target_named(name, targets, HandshakeOptions(), problems, name) for name in names]
    reached = with_handshake(handshake, planned.settings(""), problems)
    if handshake != _NO_HANDSHAKE and all(target.started for target in chosen):
        problems.append("--header and the like are for relays that run already, and all of these are started here.")
    problems += unwritable({"json": json, "markdown": markdown})
    if problem := cannot_write(out):
        problems.append(problem)
    if problems:
        return complain("relaymark compare", problems, EXIT_CONFIGURATION)
    from benchmarks.compare import command  # gevent, which the engine needs, changes the process that imports it

    return command.run(chosen, replace(planned, reached=reached), thresholds, out=out, json=json, markdown=markdown)


def _plan(
    scenario: str,
    participants: int,
    rate: float | None,
    duration: str | None,
    quick: bool,
    rounds: int | None,
    seed: int,
    problems: list[str],
) -> ComparePlan:
    run_s = None
    if duration is not None:
        try:
            run_s = seconds(duration)
        except ValueError as error:
            problems.append(f"--duration: {error}.")
    if rounds is not None and not ROUNDS_MIN <= rounds <= ROUNDS_MAX:
        problems.append(f"--rounds must be {ROUNDS_MIN} to {ROUNDS_MAX}, not {rounds}: fewer give no interval.")
    made = plan(
        quick=quick,
        rounds=rounds,
        seed=seed,
        scenario=scenario,
        participants=participants,
        rate=rate,
        run_s=run_s,
    )
    problems += problems_of(made.settings(""))
    return made
