"""The load as Locust sees it: options, the user class of a scenario, and the two sides of a run.

A scenario file needs one line, and then runs alone (`locust -f FILE --host ws://HOST:PORT`), with a web page, with
`--processes`, or with a master and workers on several hosts:

    Participant = scenario("private-chat")

Every Locust user is one participant of the workload's plan; `-u` counts them. Locust deals its users out to the workers
in turn, so worker i of n gets the participants i, i + n, i + 2n, ...: which is which does not depend on timing.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from argparse import Namespace
from functools import partial
from pathlib import Path
from time import monotonic_ns
from typing import Any, Final

import gevent
from gevent.event import Event
from locust import User, events, task
from locust.main import main as locust_main
from locust.runners import STATE_MISSING, LocalRunner, MasterRunner, WorkerRunner

from loadtests.address import TargetError
from loadtests.control.master import Conductor
from loadtests.control.worker import CLOCKS, DRAIN, GO, QUIET, REPORT, SETTLED, STOP, Worker
from loadtests.locust_glue import stats as locust_stats
from loadtests.options import cannot_write, read_thresholds
from loadtests.results.exit_codes import EXIT_CONFIGURATION, EXIT_TARGET
from loadtests.results.files import ResultsError, create_run_directory, write
from loadtests.results.schema import Result
from loadtests.results.thresholds import Threshold
from loadtests.settings import DRAIN_S_DEFAULT, DURATION_S_DEFAULT, SUITES, Settings, problems_of
from loadtests.target.probe import probe

PAGE_TIMER_S: Final = 0.5
"""By how much the timer of Locust's page may be early."""
PLAN: Final = "relaymark_plan"
"""Attribute of Locust's parsed options that carries the settings to the workers."""

_log = logging.getLogger(__name__)
_installed: list[str] = []


def scenario(name: str) -> type[User]:
    """Return the Locust user class of scenario `name`, and hook it into Locust. A process has one scenario."""
    if not _installed:
        locust_stats.install()
        events.init_command_line_parser.add_listener(_add_options)  # type: ignore[no-untyped-call]  # Locust's
        events.init.add_listener(partial(_attach, name))  # type: ignore[no-untyped-call]  # Locust's
    elif _installed != [name]:
        raise RuntimeError(f"one scenario a run: {_installed[0]} is loaded already, {name} cannot be as well")
    _installed[:] = [name]
    return type("Participant", (_Participant,), {"__doc__": f"A participant of {name}.", "abstract": False})


def main(file: str) -> None:
    """Run a scenario's file as `locust -f` does, so that --help, which Locust answers before it looks at any file, lists
    the scenario's options too."""
    sys.argv[1:1] = ["-f", file]
    locust_main()  # type: ignore[no-untyped-call]  # Locust's


class _Participant(User):
    """Enters the population of its worker and stays until it is stopped: the loop does what its plan says."""

    abstract = True

    def on_start(self) -> None:
        worker = getattr(self.environment, "relaymark_worker", None)
        self._index = None if worker is None else worker.user_starts()

    def on_stop(self) -> None:
        worker = getattr(self.environment, "relaymark_worker", None)
        if worker is not None and self._index is not None:
            worker.user_stops(self._index)

    @task
    def stay(self) -> None:
        Event().wait()


# -- options -----------------------------------------------------------------------------------------


def _add_options(parser: Any, **_: Any) -> None:
    group = parser.add_argument_group("relaymark")

    def add(*names: str, in_page: bool = False, **rest: Any) -> None:
        action = group.add_argument(*names, **rest)
        # As Locust's own parser does for what is added to it directly: the page then has a field for it.
        action.include_in_web_ui, action.is_secret, action.is_required, action.is_multiple = (
            in_page,
            False,
            False,
            False,
        )

    add(
        "--rate",
        type=float,
        in_page=True,
        help="Chat messages a second of all participants together. Default: the scenario's own.",
    )
    add("--seed", type=int, default=1, in_page=True, help="Equal seeds give equal schedules. Default: 1.")
    suites = ", ".join(SUITES)
    add("--suite", default="sender-key", in_page=True, help=f"How records are sealed: {suites}. Default: sender-key.")
    add("--drain", type=float, default=DRAIN_S_DEFAULT, in_page=True, help="Seconds for the last records to arrive.")
    add("--tls-ca", help="File with the authority that signed the target's certificate.")
    add("--threshold", action="append", help='Such as "deliver{kind=message}: p(99)<50ms"; may be repeated.')
    add("--out", help="Folder for the results. Default: none are written.")
    add("--clock-shift-ms", default="", help="Fault to inject: by how much each worker's clock is off, with commas.")


def settings_of(options: Namespace, name: str, participants: int) -> Settings:
    """Return the settings that Locust's options state. Raises ValueError with every problem in it."""
    problems = []
    shifts: tuple[float, ...] = ()
    try:
        shifts = tuple(float(part) for part in options.clock_shift_ms.split(",") if part.strip())
    except ValueError:
        problems.append("--clock-shift-ms needs numbers with commas between them.")
    rate = None
    try:
        # Locust's page gives text, and an empty one for nothing.
        rate = None if options.rate in (None, "") else float(options.rate)
    except ValueError:
        problems.append(f"--rate must be a number, not {options.rate!r}.")
    settings = Settings(
        scenario=name,
        url=options.host or "",
        participants=participants,
        rate=rate,
        duration_s=float(options.relaymark_duration_s),
        drain_s=options.drain,
        seed=options.seed,
        suite=options.suite,
        run=getattr(options, "relaymark_run", "") or f"{time.time_ns():x}",
        ca=options.tls_ca,
        own_certificate=getattr(options, "relaymark_own_certificate", False),
        clock_shift_ms=shifts,
    )
    try:
        settings.address.numeric()
    except (ValueError, TargetError) as error:
        problems.append(f"--host: {error}")
    problems += problems_of(settings)
    if problems:
        raise ValueError(" ".join(problems))
    return settings


def _check(options: Namespace, name: str) -> list[Threshold]:
    """Return the thresholds of Locust's options. Raises ValueError with every problem in it.

    Without a page, everything is known from the start; with one, it has fields for the settings, and is asked later.
    """
    thresholds, problems = read_thresholds(options.threshold or ())
    if options.out and (problem := cannot_write(Path(options.out))):
        problems.append(problem)
    if options.headless:
        try:
            settings_of(options, name, options.num_users or 1)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError(" ".join(problems))
    return thresholds


# -- the two sides -----------------------------------------------------------------------------------


def _attach(name: str, environment: Any, **_: Any) -> None:
    """Called by Locust when it is set up, before anything runs."""
    options, runner = environment.parsed_options, environment.runner
    # Locust counts --run-time from the first user on; here the load lasts that long from the moment when all have joined.
    options.relaymark_duration_s = options.run_time or DURATION_S_DEFAULT
    options.run_time = None
    if isinstance(runner, MasterRunner | LocalRunner):
        try:
            thresholds = _check(options, name)
        except ValueError as error:
            sys.stderr.write(f"relaymark: {error}\n")
            sys.exit(EXIT_CONFIGURATION)
        environment.relaymark = _Master(environment, name, thresholds)
        if environment.web_ui is not None:
            from loadtests.locust_glue import tab as locust_tab

            locust_tab.install(environment, environment.relaymark.conductor.so_far)
    if isinstance(runner, WorkerRunner | LocalRunner):
        _attach_worker(environment)


class _Master:
    """Ties the conductor to Locust's master, or to a lone process."""

    def __init__(self, environment: Any, name: str, thresholds: list[Threshold]) -> None:
        self._environment = environment
        self._runner = environment.runner
        self._name = name
        self._out = environment.parsed_options.out
        self.quits = bool(environment.parsed_options.headless)
        """Locust ends when the run is over; a web page stays."""
        self.reports = True
        """The result is shown and written here; `relaymark run` does it itself."""
        self._page_ends_ns = 0
        self.conductor = Conductor(send=self._send, alive=self._alive, on_done=self._on_done)
        self.conductor.thresholds = thresholds
        for kind in (REPORT, QUIET, SETTLED):
            self._runner.register_message(kind, partial(self._on_message, kind))
        environment.events.test_start.add_listener(self._on_test_start)
        environment.events.test_stopping.add_listener(self._on_stopping)
        environment.events.quitting.add_listener(self._on_stopping)

    def _send(self, kind: str, data: dict[str, Any], worker: str | None) -> None:
        self._runner.send_message(kind, data, worker)

    def _alive(self, worker: str) -> bool:
        if isinstance(self._runner, LocalRunner):
            return True
        client = self._runner.clients.get(worker)
        return client is not None and client.state != STATE_MISSING

    def _on_message(self, kind: str, msg: Any, **_: Any) -> None:
        self.conductor.on_message(kind, msg.node_id, msg.data)

    def _on_test_start(self, **_: Any) -> None:
        options = self._environment.parsed_options
        options.host = self._environment.host or options.host
        if options.run_time:
            # Given on Locust's page, which then stops the run by itself, so long after the first user.
            options.relaymark_duration_s = options.run_time
            self._page_ends_ns = monotonic_ns() + int((options.run_time - PAGE_TIMER_S) * 1e9)
        try:
            settings = settings_of(options, self._name, self._runner.target_user_count)
            if self.reports:  # `relaymark run` has asked the target before
                self.conductor.target = settings.address.url
                probe(settings.address, settings.client_context())
        except (ValueError, TargetError) as error:
            _log.error("%s", error)
            self._environment.process_exit_code = EXIT_TARGET if isinstance(error, TargetError) else EXIT_CONFIGURATION
            gevent.spawn(self._runner.quit if self.quits else self._runner.stop)
            return
        workers = ["local"]
        if isinstance(self._runner, MasterRunner):
            # The dispatcher deals the first user to the first of these, the second to the second, and so on in turn.
            dispatcher = self._runner._users_dispatcher
            assert dispatcher is not None
            workers = [node.id for node in dispatcher._worker_nodes]
        setattr(options, PLAN, {"settings": settings.to_wire(), "workers": workers})
        self.conductor.options = {**self.conductor.options, **_shown(settings, len(workers))}
        self.conductor.start(settings, workers)

    def _on_stopping(self, **_: Any) -> None:
        """Locust stops before the time is up: end in order first, which takes as long as draining does."""
        if not self.conductor.done.is_set():
            self.conductor.stop(interrupted=not self._page_ends_ns or monotonic_ns() < self._page_ends_ns)
            self.conductor.done.wait()

    def _on_done(self, result: Result) -> None:
        self._environment.process_exit_code = result.exit_code
        if self.reports:
            self._report(result)
        if self.quits:
            gevent.spawn(self._runner.quit)
        elif self._runner.state not in ("stopping", "cleanup", "stopped"):
            gevent.spawn(self._runner.stop)

    def _report(self, result: Result) -> None:
        from rich.console import Console

        from loadtests.report import files
        from loadtests.report.terminal import render_final

        render_final(result, Console())
        if self._out and self.conductor.gathering is not None:
            try:
                folder = create_run_directory(Path(self._out), result.scenario, result.started_unix_ns)
                path = write(folder, result, self.conductor.gathering.recorder.intervals())
                files.write([result], folder / files.NAME)
            except ResultsError as error:
                _log.error("%s", error)
            else:
                _log.info("results: %s", path)


def _shown(settings: Settings, workers: int) -> dict[str, Any]:
    return {
        "participants": settings.participants,
        "rate": settings.rate,
        "duration_s": settings.duration_s,
        "drain_s": settings.drain_s,
        "suite": settings.suite,
        "workers": workers,
    }


def _attach_worker(environment: Any) -> None:
    runner = environment.runner

    def on_test_start(**_: Any) -> None:
        plan = getattr(environment.parsed_options, PLAN, None)
        if plan is None:
            return
        workers = plan["workers"]
        ordinal = workers.index(runner.client_id) if runner.client_id in workers else 0
        worker = Worker(
            Settings.from_wire(plan["settings"]),
            ordinal=ordinal,
            workers=len(workers),
            send=runner.send_message,
            on_fold=lambda name, histogram: locust_stats.feed(environment.stats, name, histogram),
        )
        environment.relaymark_worker = worker
        worker.open()

    def on_test_stop(**_: Any) -> None:
        worker = getattr(environment, "relaymark_worker", None)
        if worker is not None:
            worker.close()

    def on_message(act: str, msg: Any, **_: Any) -> None:
        worker = getattr(environment, "relaymark_worker", None)
        if worker is not None:
            getattr(worker, act)(msg.data)

    for kind, act in ((GO, "go"), (CLOCKS, "clocks"), (STOP, "stop"), (DRAIN, "drain")):
        runner.register_message(kind, partial(on_message, act))
    environment.events.test_start.add_listener(on_test_start)
    environment.events.test_stop.add_listener(on_test_stop)
    if isinstance(runner, WorkerRunner):
        _leave_ctrl_c_to_the_master(environment)


def _leave_ctrl_c_to_the_master(environment: Any) -> None:
    """A terminal interrupts all processes at once, but the master needs the workers to end the run in order."""
    seen = 0

    def on_interrupt(_number: int, _frame: Any) -> None:
        nonlocal seen
        seen += 1
        worker = getattr(environment, "relaymark_worker", None)
        if worker is None or worker.population.phase.over or seen > 1:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, on_interrupt)


__all__ = ["PLAN", "main", "scenario", "settings_of"]
