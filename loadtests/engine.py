"""Locust's master in this process and worker processes as children, started once and kept for any number of runs.

    with Engine(folder, workers=2, cores=[1]) as engine:
        result = engine.run(settings, facts)

A run has fresh keys, connections and accounts, whatever was run before. What the engine started, it ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import gevent
import msgspec
from gevent.event import Event
from locust import events
from locust.argument_parser import get_parser
from locust.env import Environment
from locust.event import Events

from loadtests.control.facts import RunFacts
from loadtests.control.master import Master
from loadtests.locust_glue import options as locust_options
from loadtests.locust_glue import stats, tab
from loadtests.locust_glue.hooks import participant_class
from loadtests.locust_glue.master import LocustMaster, shown
from loadtests.measuring.recorder import Interval
from loadtests.options import CannotRun, LoadOptions
from loadtests.results.exit_codes import EXIT_CONFIGURATION
from loadtests.results.schema import Result
from loadtests.settings import Settings
from relaymark import child_module

WORKERS_S_MAX: Final = 60.0
"""For the worker processes to start and report."""
STOP_S_MAX: Final = 10.0
FOLLOW_S: Final = 0.5
POLL_S: Final = 0.05
_LOCUSTFILE: Final = Path(__file__).parent / "locust_glue" / "locustfile.py"


class Engine:
    """Enter it to start the workers. Not for several threads; `interrupt` may be called from a signal handler."""

    def __init__(
        self,
        folder: Path,
        *,
        workers: int,
        cores: Sequence[int] | None = None,
        options: LoadOptions | None = None,
        go_on: Callable[[], None] = lambda: None,
    ) -> None:
        """Logs of the workers go to `folder`; worker i stays on the i-th of `cores`, in turn.

        `options` are what the fields of Locust's page begin with; `go_on` is called while the workers start, and may
        raise to give up.
        """
        self._folder = folder
        self._workers = workers
        self._cores = cores
        self._go_on = go_on
        self._stack = ExitStack()
        self._children: list[subprocess.Popen[bytes]] = []
        self._interrupted = Event()
        self._given: tuple[Settings, RunFacts] | None = None
        self._next = False
        self._environment = self._make_environment(options or LoadOptions())
        self._runner = self._environment.runner
        self._locust = LocustMaster(
            self._environment, prepare=self._prepare, on_done=lambda result: None, quits_after_s=None
        )

    def _make_environment(self, options: LoadOptions) -> Any:
        """Return Locust's environment with a master, as its own command would set it up."""
        stats.install()
        listener = locust_options.adder(options)
        events.init_command_line_parser.add_listener(listener)  # type: ignore[no-untyped-call]  # Locust's
        self._stack.callback(events.init_command_line_parser.remove_listener, listener)
        parsed = get_parser().parse_args(["--headless"])
        environment = Environment(
            user_classes=[participant_class("A participant.")],
            events=Events(),  # type: ignore[no-untyped-call]  # Locust's; its own are the process's
            parsed_options=parsed,
        )
        environment.create_master_runner("127.0.0.1", 0)
        parsed.run_time = None
        return environment

    def __enter__(self) -> Self:
        try:
            self._start_workers()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._runner.quit()
        finally:
            self._stack.close()

    # -- the workers ---------------------------------------------------------------------------------

    def _start_workers(self) -> None:
        self._stack.callback(self._stop_workers)
        command = child_module("locust", "-f", str(_LOCUSTFILE), "--worker", "--master-host", "127.0.0.1")
        command += ["--master-port", str(self._runner.server.port)]
        for number in range(self._workers):
            with self._log_of(number).open("wb") as log:
                child = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            self._children.append(child)
            if self._cores:
                os.sched_setaffinity(child.pid, {self._cores[number % len(self._cores)]})
        end = time.monotonic() + WORKERS_S_MAX
        while self._runner.worker_count < self._workers:
            self._go_on()
            dead = [child for child in self._children if child.poll() is not None]
            if dead or time.monotonic() > end:
                words = self._last_words(self._children.index(dead[0]) if dead else 0)
                raise CannotRun(EXIT_CONFIGURATION, [f"A worker did not start. {words}"])
            gevent.sleep(POLL_S)

    def _log_of(self, number: int) -> Path:
        return self._folder / f"worker-{number + 1}.log"

    def _last_words(self, number: int) -> str:
        code = self._children[number].poll()
        how = (
            f"It ended with code {code}." if code is not None else f"Nothing was heard of it in {WORKERS_S_MAX:.0f} s."
        )
        lines = [line.strip() for line in self._log_of(number).read_text(errors="replace").splitlines() if line.strip()]
        said = f"ends: {' | '.join(lines[-3:])}" if lines else "is empty."
        return f"{how} Its log {said}"

    def _stop_workers(self) -> None:
        for child in self._children:
            if child.poll() is None:
                child.terminate()
        for child in self._children:
            try:
                child.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    # -- runs ----------------------------------------------------------------------------------------

    @property
    def master(self) -> Master:
        return self._locust.master

    def run(
        self, settings: Settings, facts: RunFacts, follow: Callable[[Master], None] = lambda master: None
    ) -> Result:
        """Run this and return its result; `follow` is called twice a second meanwhile.

        An interrupt ends it in order, and the result says so.
        """
        self._await_idle()
        self._given, self._next = (settings, facts), True
        options = self._environment.parsed_options
        options.num_users, options.relaymark_duration_s = settings.participants, settings.duration_s
        self._environment.host = settings.url
        self._runner.start(settings.participants, spawn_rate=settings.participants)
        if self._interrupted.is_set():  # perhaps before there was anything to stop
            self.master.stop(interrupted=True)
        while not self.master.done.wait(FOLLOW_S):
            follow(self.master)
        result = self.master.result
        if result is None:
            raise RuntimeError("the run ended without a result")
        return result

    def _await_idle(self) -> None:
        """Wait until Locust has ended the last run everywhere."""
        end = time.monotonic() + WORKERS_S_MAX
        while self._runner.state not in ("ready", "stopped") or len(self._runner.clients.ready) < self._workers:
            if time.monotonic() > end or any(child.poll() is not None for child in self._children):
                raise CannotRun(EXIT_CONFIGURATION, ["A worker was lost after the last run: see the workers' logs."])
            gevent.sleep(POLL_S)

    def _prepare(self, participants: int) -> tuple[Settings, RunFacts]:
        assert self._given is not None
        settings, facts = self._given
        if self._next:
            self._next = False
        else:  # started from Locust's page
            options = self._environment.parsed_options
            base = msgspec.structs.replace(
                settings,
                participants=participants,
                duration_s=float(options.relaymark_duration_s),
                run=f"{time.time_ns():x}",
            )
            settings = locust_options.read_settings(options, base)
        options_shown = {**facts.options, **shown(settings, len(self._locust.workers()))}
        return settings, msgspec.structs.replace(facts, options=options_shown)

    def intervals(self) -> Iterator[Interval]:
        """Yield the histograms over time of the last run."""
        assert self.master.collector is not None
        return self.master.collector.recorder.intervals()

    def interrupt(self) -> None:
        """End the run in order: an exception could strike anywhere, in the midst of adding up."""
        self._interrupted.set()
        self.master.stop(interrupted=True)

    def open_page(self, host: str, port: int) -> None:
        """Serve Locust's own web page of the runs, with our tabs, until the engine ends."""
        # The page parses the arguments of the process at every visit, and must find none of ours.
        ours = sys.argv[1:]
        self._stack.callback(lambda: sys.argv.__setitem__(slice(1, None), ours))
        del sys.argv[1:]
        page = self._environment.create_web_ui(host, port)
        tab.install(self._environment, self.master.so_far)
        self._stack.callback(page.stop)
