"""`relaymark bench micro`, `relaymark bench overhead` and `relaymark gate`: options to plans.

Exit codes: 0 done, 99 regression, 104 options that cannot work, 105 interrupted, 121 inconclusive, 122 a relay did not
start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from benchmarks.gate.metrics import NAMES, TIMED, MetricName
from benchmarks.overhead.command import Part
from relaymark import child_module

_Flag = Parameter(negative=())


def gate(
    *,
    base: str | None = None,
    head: str = "HEAD",
    quick: Annotated[bool, _Flag] = False,
    rounds: int | None = None,
    seconds: float | None = None,
    budget: float | None = None,
    metrics: Annotated[list[MetricName] | None, Parameter(consume_multiple=True, negative=())] = None,
    allow_dirty: Annotated[bool, _Flag] = False,
    target: tuple[str, str] | None = None,
    targets: str | None = None,
    scenario: str = "mix",
    participants: int = 400,
    rate: float | None = None,
    results: tuple[Path, Path] | None = None,
    json: Path | None = None,
    markdown: Path | None = None,
    junit: Path | None = None,
    github: Path | None = None,
) -> int:
    """Tell whether a relay has become slower: pass (0), regression (99) or inconclusive (121).

    Of the reference relay two commits are compared (--base, --head), checked out into temporary worktrees; of any other
    two targets (--target), as its old and its new build. Each run is a fresh relay of one of them, pinned to a core, under
    the same load; runs alternate base, head, head, base. What two runs of one and the same differ by is measured too, and
    no difference within that counts. An open verdict goes on by itself while the budget lasts.

    Parameters
    ----------
    base
        The commit, branch or tag to compare with.
    head
        What is judged.
    quick
        At most two minutes, with shorter runs and fewer of them.
    rounds
        Rounds of four runs, at least 3. Default: 6, quick: 3.
    seconds
        Length of each of a run's two measurements. Default: 1.5, quick: 0.8.
    budget
        Seconds after which no further round begins. Default: 600, quick: 110.
    metrics
        Any of cpu, throughput, p50, p99, instructions. Default: all of them, with --target all but the last.
    allow_dirty
        Go on although the checkout has changes; they are not measured, HEAD is the commit.
    target
        Two relays, the old one and the new one: names of `relaymark targets`, or sections of targets.toml that say how
        each is started, such as ["./old/relay", "--port", "{port}"].
    targets
        File with targets of yours. Default: ./targets.toml, if it is there.
    scenario
        What the latency of targets is measured under.
    participants
        Of the scenario.
    rate
        Chat messages a second of the scenario. Default: what the load carries, and at most half of what a target does.
    results
        Compare the heads of two stored results of one machine instead of measuring.
    json
        Store the result here.
    markdown
        Write the verdict for a job summary here.
    junit
        Write the verdict as JUnit XML here.
    github
        Write the figures for github-action-benchmark (customSmallerIsBetter) here.
    """
    from benchmarks.gate import command
    from benchmarks.gate.runs import TargetWork

    return command.run(
        command.GateOptions(
            base=base,
            head=head,
            quick=quick,
            rounds=rounds,
            seconds=seconds,
            budget=budget,
            metrics=tuple(metrics or (NAMES if target is None else TIMED)),
            allow_dirty=allow_dirty,
            results=results,
            target=target,
            targets=targets,
            work=TargetWork(scenario=scenario, participants=participants, rate=rate),
            json=json,
            markdown=markdown,
            junit=junit,
            github=github,
        )
    )


def micro(
    *,
    only: str = "",
    output: Path | None = None,
    fast: Annotated[bool, _Flag] = False,
    pyperf: Annotated[
        list[str] | None, Parameter(consume_multiple=True, negative=(), allow_leading_hyphen=True)
    ] = None,
) -> int:
    """Time the parts of the relay and of the load, one item each: a record, a delivery, a sample.

    The results are pyperf's: `python -m pyperf compare_to A.json B.json` compares two of them.

    Parameters
    ----------
    only
        Benchmarks whose name has this in it.
    output
        Store the results here, as pyperf's JSON. The file must not exist.
    fast
        Fewer processes and values: for a look, not for a comparison.
    pyperf
        Everything after this goes to pyperf as it is.
    """
    import tempfile

    from benchmarks.rig.processes import ended_by_signal, finish
    from benchmarks.rig.say import complain
    from loadtests.results.exit_codes import EXIT_CONFIGURATION, EXIT_INTERRUPTED

    problem = None
    if output is not None and output.exists():
        problem = f"--output {output}: it exists already; remove it, or name another file"
    elif output is not None and not output.parent.is_dir():
        problem = f"--output {output}: its directory does not exist"
    elif only:
        from benchmarks.micro.__main__ import BENCHMARKS

        if not any(only in name for name in BENCHMARKS):
            problem = f"--only {only}: no benchmark has this in its name; there are: {'; '.join(BENCHMARKS)}"
    if problem:
        return complain("relaymark bench micro", [problem], EXIT_CONFIGURATION)
    command = child_module("benchmarks.micro", "--only", only, "--inherit-environ", "TMPDIR")
    command += ["--fast"] * fast + (["--output", str(output)] if output else []) + (pyperf or [])
    try:
        # An interrupted pyperf kills its workers, which leave their databases behind: in a directory of ours.
        with (
            tempfile.TemporaryDirectory(prefix="relaymark-micro-", ignore_cleanup_errors=True) as directory,
            ended_by_signal(),
        ):
            return finish(command, environment={"TMPDIR": directory}, shown=True).returncode
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def overhead(
    *,
    parts: Annotated[list[Part] | None, Parameter(consume_multiple=True, negative=())] = None,
    quick: Annotated[bool, _Flag] = False,
    scenario: str = "private-chat",
    participants: int = 500,
    seconds: float | None = None,
    rounds: int | None = None,
    seed: int = 1,
    json: Path | None = None,
    markdown: Path | None = None,
) -> int:
    """Measure what encryption costs: an operation, a message to a group, joining a group, and end to end.

    End to end, the same seeded scenario runs with suite none and with secretbox, without and with TLS, in rounds of
    four runs; three rounds or more give intervals.

    Parameters
    ----------
    parts
        Any of operations, end-to-end. Default: both.
    quick
        Fewer payloads and groups, three rounds of 5 seconds.
    scenario
        What `relaymark run` runs end to end.
    participants
        Of the scenario. The default makes some 90 messages a second: of far fewer, a p99 is their maximum, and the
        relay's processor time is that of being idle.
    seconds
        Of each run end to end. Default: 20, quick: 5.
    rounds
        Rounds of four runs. Default: 8, quick: 3.
    seed
        Of the first round; each further one takes the next.
    json
        Store every figure here.
    markdown
        Write the tables here.
    """
    from benchmarks.overhead import command

    return command.run(
        command.OverheadOptions(
            parts=tuple(parts or command.PARTS),
            quick=quick,
            scenario=scenario,
            participants=participants,
            seconds=seconds if seconds is not None else 5.0 if quick else 20.0,
            rounds=rounds if rounds is not None else 3 if quick else 8,
            seed=seed,
            json=json,
            markdown=markdown,
        )
    )
