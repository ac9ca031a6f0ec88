"""`relaymark bench micro`, `relaymark bench overhead` and `relaymark gate`: options to plans.

Exit codes: 0 done, 99 regression, 104 options that cannot work, 105 interrupted, 121 inconclusive, 122 a relay did not
start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from benchmarks.gate.metrics import NAMES, MetricName

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
    results: tuple[Path, Path] | None = None,
    json: Path | None = None,
    markdown: Path | None = None,
    junit: Path | None = None,
    github: Path | None = None,
) -> int:
    """Tell whether the relay at HEAD is slower than at BASE: pass (0), regression (99) or inconclusive (121).

    Both commits are checked out into temporary worktrees. Each run is a fresh relay of one of them, pinned to a core,
    under the same load; runs alternate base, head, head, base. What two runs of one commit differ by is measured too,
    and no difference within that counts. An open verdict goes on by itself while the budget lasts.

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
        Any of cpu, throughput, p50, p99, instructions. Default: all of them.
    allow_dirty
        Go on although the checkout has changes; they are not measured, HEAD is the commit.
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

    return command.run(
        command.Wanted(
            base=base,
            head=head,
            quick=quick,
            rounds=rounds,
            seconds=seconds,
            budget=budget,
            metrics=tuple(metrics or NAMES),
            allow_dirty=allow_dirty,
            results=results,
            json=json,
            markdown=markdown,
            junit=junit,
            github=github,
        )
    )


__all__ = ["gate"]
