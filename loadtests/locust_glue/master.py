"""The master of runs on Locust's master, or in a lone process; and a plain run of Locust's, which it reports."""

from __future__ import annotations

import atexit
import logging
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic_ns
from typing import Any, Final

import gevent
from locust.runners import STATE_MISSING, LocalRunner, MasterRunner
from msgspec.structs import replace
from rich.console import Console

from loadtests.address import TargetError
from loadtests.control.facts import RunFacts
from loadtests.control.master import Master
from loadtests.control.messages import TO_MASTER, TO_WORKER, ToWorker, encode, read_by_master
from loadtests.locust_glue import options as locust_options
from loadtests.locust_glue import tab
from loadtests.options import without_secrets
from loadtests.report import files
from loadtests.report.terminal import render_final
from loadtests.results.environment import commit, machine
from loadtests.results.exit_codes import EXIT_CONFIGURATION, EXIT_TARGET
from loadtests.results.files import ResultsError, create_run_directory, write
from loadtests.results.schema import Result
from loadtests.settings import Settings
from loadtests.target.greeting import greet
from loadtests.target.opening import OpenTarget, opened
from loadtests.target.target import Target

PAGE_TIMER_S: Final = 0.5
"""By how much the timer of Locust's page may be early."""
PLAN: Final = "relaymark_plan"
"""Attribute of Locust's parsed options that carries the settings to the workers."""

_log = logging.getLogger(__name__)


class LocustMaster:
    """Starts and ends runs when Locust says so, and carries their messages.

    `prepare(participants)` is asked at each start what is to be run, and may raise ValueError or TargetError; `on_done`
    gets each result.
    """

    def __init__(
        self,
        environment: Any,
        *,
        prepare: Callable[[int], tuple[Settings, RunFacts]],
        on_done: Callable[[Result], None],
        quits_after_s: float | None,
    ) -> None:
        """`quits_after_s`: Locust ends so long after the run is over; None: it waits for the next."""
        self._environment = environment
        self._runner = environment.runner
        self._prepare = prepare
        self._on_done = on_done
        self._quits_after_s = quits_after_s
        self._page_ends_ns = 0
        self.master = Master(send=self._send, alive=self._alive, on_done=self._take)
        self._runner.register_message(TO_MASTER, self._on_message)
        environment.events.test_start.add_listener(self._on_test_start)
        environment.events.test_stopping.add_listener(self._on_stopping)
        environment.events.quitting.add_listener(self._on_stopping)

    def _send(self, message: ToWorker, worker: str | None) -> None:
        self._runner.send_message(TO_WORKER, encode(message), worker)

    def _alive(self, worker: str) -> bool:
        if isinstance(self._runner, LocalRunner):
            return True
        client = self._runner.clients.get(worker)
        return client is not None and client.state != STATE_MISSING

    def _on_message(self, msg: Any, **_: Any) -> None:
        self.master.on_message(msg.node_id, read_by_master(msg.data))

    def _on_test_start(self, **_: Any) -> None:
        options = self._environment.parsed_options
        options.host = self._environment.host or options.host
        self._page_ends_ns = 0
        if options.run_time:
            # Given on Locust's page, which then stops the run by itself, so long after the first user.
            options.relaymark_duration_s = options.run_time
            self._page_ends_ns = monotonic_ns() + int((options.run_time - PAGE_TIMER_S) * 1e9)
        try:
            settings, facts = self._prepare(self._runner.target_user_count)
        except (ValueError, TargetError) as error:
            _log.error("%s", error)
            self._environment.process_exit_code = EXIT_TARGET if isinstance(error, TargetError) else EXIT_CONFIGURATION
            gevent.spawn(self._runner.stop if self._quits_after_s is None else self._quit)
            return
        workers = self.workers()
        setattr(options, PLAN, {"settings": settings.to_wire(), "workers": workers})
        self.master.start(settings, facts, workers)

    def workers(self) -> list[str]:
        """Return the ids of the workers that have a part in this run, in their order."""
        if not isinstance(self._runner, MasterRunner):
            return ["local"]
        # The dispatcher deals the first user to the first of these, the second to the second, and so on in turn.
        dispatcher = self._runner._users_dispatcher
        assert dispatcher is not None
        return [node.id for node in dispatcher._worker_nodes]

    def _on_stopping(self, **_: Any) -> None:
        """Locust stops before the time is up: end in order first, which takes as long as draining does."""
        if not self.master.done.is_set():
            self.master.stop(interrupted=not self._page_ends_ns or monotonic_ns() < self._page_ends_ns)
            self.master.done.wait()

    def _take(self, result: Result) -> None:
        self._environment.process_exit_code = result.exit_code
        self._on_done(result)
        if self._quits_after_s is not None:
            gevent.spawn(self._quit)
        elif self._runner.state not in ("stopping", "cleanup", "stopped"):
            gevent.spawn(self._runner.stop)

    def _quit(self) -> None:
        """End Locust, which would do so itself by its timer; but that counts from the first user, not from the load."""
        if self._quits_after_s:
            self._runner.stop()  # so that the page shows it
            gevent.sleep(self._quits_after_s)
        self._runner.quit()
        if self._environment.web_ui is not None:
            self._environment.web_ui.stop()


def shown(settings: Settings, workers: int) -> dict[str, Any]:
    """Return what a reader of the result wants to know of the settings."""
    return {
        "participants": settings.participants,
        "rate": settings.rate,
        "duration_s": settings.duration_s,
        "drain_s": settings.drain_s,
        "suite": settings.suite,
        "workers": workers,
    }


def _quits_after_s(options: Any) -> float | None:
    if options.headless:
        return 0.0
    return float(options.autoquit) if options.autostart and options.autoquit != -1 else None


class PlainRun:
    """What `locust -f FILE` runs: its options are Locust's, its result is shown, and written where `--out` says."""

    def __init__(self, environment: Any, scenario: str) -> None:
        self._environment = environment
        self._scenario = scenario
        self._options = environment.parsed_options
        try:
            self._thresholds = locust_options.check(self._options, scenario)
        except ValueError as error:
            sys.stderr.write(f"relaymark: {error}\n")
            sys.exit(EXIT_CONFIGURATION)
        self._machine = machine()
        self._stack = ExitStack()  # of a target that is started here, once for all runs
        atexit.register(self._stack.close)
        self._target: tuple[str, OpenTarget] | None = None
        self._locust = LocustMaster(
            environment, prepare=self._prepare, on_done=self._report, quits_after_s=_quits_after_s(self._options)
        )
        if environment.web_ui is not None:
            tab.install(environment, self._locust.master.so_far)

    def _prepare(self, participants: int) -> tuple[Settings, RunFacts]:
        options = self._options
        target, settings = locust_options.read_run(options, self._scenario, participants)
        found = self._open(target, allow_suite_0=settings.suite == "none")
        settings = replace(settings, url=found.address.url, own_certificate=found.own_certificate)
        greet(settings)
        facts = RunFacts(
            target=target.name,
            version=found.version,
            promises=target.promises.words(),
            relay=found.relay,
            thresholds=self._thresholds,
            machine=self._machine,
            commit=commit(Path(__file__).parent),
            command=without_secrets([Path(sys.argv[0]).name, *sys.argv[1:]]),
            options=shown(settings, len(self._locust.workers())),
            series=target.series,
        )
        return settings, facts

    def _open(self, target: Target, *, allow_suite_0: bool) -> OpenTarget:
        """Return the target, open; one that is started here goes on until Locust ends, or another is asked for."""
        key = repr((target, allow_suite_0))
        if self._target is None or self._target[0] != key:
            self._stack.close()
            folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="relaymark-")))
            self._target = (key, self._stack.enter_context(opened(target, folder, allow_suite_0=allow_suite_0)))
        return self._target[1]

    def _report(self, result: Result) -> None:
        render_final(result, Console(markup=False))
        collector = self._locust.master.collector
        if self._options.out and collector is not None:
            try:
                folder = create_run_directory(Path(self._options.out), result.scenario, result.started_unix_ns)
                path = write(folder, result, collector.recorder.intervals())
                files.write([result], folder / files.NAME)
            except ResultsError as error:
                _log.error("%s", error)
            else:
                _log.info("results: %s", path)
