"""`relaymark run` and `relaymark report`: options to plans. Locust, and with it gevent, is imported only when called.

Exit codes: 0 done, 99 a threshold was not met, 104 options that cannot work, 105 interrupted, 120 the run is invalid,
122 the target did not start or does not speak the protocol.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def run(
    scenario: str = "evening-peak",
    *,
    target: str = "reference",
    participants: int | None = None,
    rate: float | None = None,
    duration: str = "30s",
    drain: str = "5s",
    workers: int | None = None,
    seed: int = 1,
    suite: str = "sender-key",
    tls: Annotated[bool, Parameter(negative=())] = False,
    tls_ca: str | None = None,
    store: str = "memory",
    transport: str = "pump",
    threshold: Annotated[list[str] | None, Parameter(negative=())] = None,
    out: str = "runs",
    json: Annotated[bool, Parameter(negative=())] = False,
    ui: Annotated[bool, Parameter(negative=())] = False,
    quiet: Annotated[bool, Parameter(negative=())] = False,
    metrics: str | None = None,
    linger: str = "0",
    clock_shift_ms: Annotated[list[float] | None, Parameter(negative=())] = None,
) -> int:
    """Offer a relay the load of a live platform, end-to-end encrypted and open-loop, and show how it fared.

    Parameters
    ----------
    scenario
        private-chat, room, typing-storm, receipt-storm, tips, media, flash-crowd, reconnect-storm, slow-readers, or
        evening-peak: all of them mixed.
    target
        reference: the relay of this package is started and stopped; or the address ws://HOST:PORT or wss://HOST:PORT of
        one that runs.
    participants
        People who take part. Default: 400.
    rate
        Chat messages a second of all together. Default: the scenario's own for that many participants.
    duration
        Of the load: 30, 30s, 2m or 1h30m. It begins when all have joined.
    drain
        How long the last records may take to arrive.
    workers
        Processes that offer the load. Default: one a core, less the relay's.
    seed
        Equal seeds give equal schedules, whatever the number of workers.
    suite
        How records are sealed: none, sender-key, box, sealed-box or signed-sender-key.
    tls
        Serve and connect with TLS, by a certificate of the harness's own.
    tls_ca
        File with the authority that signed the target's certificate. Default: the system's.
    store
        Of the reference relay: memory, sqlite (in the run's folder) or sqlite:PATH.
    transport
        Of the reference relay: pump, trio-websocket or uvloop.
    threshold
        A condition such as "deliver{kind=message}: p(99)<50ms"; may be repeated. Code 99 if one is not met.
    out
        Folder for the results; each run makes its own in it.
    json
        Print the result as JSON instead of tables.
    ui
        Also open Locust's web page on 127.0.0.1:8089.
    quiet
        Show no progress.
    metrics
        HOST:PORT of a listener for Prometheus.
    linger
        How long the page and the metrics stay after the end.
    clock_shift_ms
        A fault to inject: the clock of the first, second, ... worker is off by this.
    """
    from loadtests import settings as shapes

    problems = []
    spans = {"duration": 0.0, "drain": 0.0, "linger": 0.0}
    for name, text in (("duration", duration), ("drain", drain), ("linger", linger)):
        try:
            spans[name] = shapes.seconds(text)
        except ValueError as error:
            problems.append(f"--{name}: {error}.")
            spans[name] = 1.0
    settings = shapes.Settings(
        scenario=scenario,
        url="",
        participants=shapes.PARTICIPANTS_DEFAULT if participants is None else participants,
        rate=rate,
        duration_s=spans["duration"],
        drain_s=spans["drain"],
        seed=seed,
        suite=suite,
        run=f"{time.time_ns():x}",
        ca=tls_ca,
        clock_shift_ms=tuple(clock_shift_ms or ()),
    )
    from loadtests import options as plans

    plan = plans.Plan(
        settings=settings,
        target=target,
        workers=workers,
        tls=tls,
        store=store,
        transport=transport,
        thresholds=tuple(threshold or ()),
        out=out,
        json=json,
        ui=ui,
        quiet=quiet,
        metrics=metrics,
        linger_s=spans["linger"],
        problems=tuple(problems),
        command=("relaymark", *sys.argv[1:]),
    )
    try:
        thresholds = plans.check(plan)
    except plans.Refused as refused:
        for problem in refused.problems:
            sys.stderr.write(f"relaymark run: {problem}\n")
        return refused.code
    from loadtests import run as runner

    return runner.run(plan, thresholds)


def report(*runs: Path, output: Annotated[Path | None, Parameter(alias="-o")] = None) -> int:
    """Show runs again, and write a report of them: of several, one that lays them over each other and compares them.

    Parameters
    ----------
    runs
        Folders of runs, their result.json, or folders that hold runs.
    output
        File to write: .html, .md (Markdown) or .xml (JUnit). Default: report.html in the run's folder, or for several
        runs comparison.html beside the first.
    """
    from rich.console import Console
    from rich.text import Text

    from loadtests.report import comparison, files
    from loadtests.report.terminal import render_final
    from loadtests.results.exit_codes import EXIT_CONFIGURATION
    from loadtests.results.files import ResultsError

    try:
        if not runs:
            raise ResultsError("name one run at least: a folder below runs/")
        if output is not None:
            files.check_name(output)
        paths = files.find(runs)
        found = files.read(paths)
        output = output or files.default_output(paths)
        files.write(found, output)
    except ResultsError as error:
        sys.stderr.write(f"relaymark report: {error}.\n")
        return EXIT_CONFIGURATION
    console = Console()
    for path, result in zip(paths, found, strict=True):
        render_final(result, console, path)
    if len(found) > 1:
        for sentence in comparison.sentences(comparison.group(found)):
            console.print(Text(sentence), soft_wrap=True)
    console.print(Text(f"report: {output}"), soft_wrap=True)
    return 0
