"""`relaymark run`: a target, the engine, one run on it; from options to an exit code.

On two cores and more the relay has the first to itself, and the workers share the others with the master, which gives
way to them. Everything that is started here is stopped here, Ctrl-C included.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from time import time_ns
from typing import Final

import msgspec
from gevent.event import Event
from rich.console import Console

from loadtests.address import TargetError
from loadtests.control import exporter
from loadtests.control.facts import RunFacts
from loadtests.control.live import progress_of, snapshot_of
from loadtests.control.master import Master
from loadtests.driver.sockets import allow_descriptors_at_least
from loadtests.engine import Engine
from loadtests.options import UI_HOST, UI_PORT, CannotRun, CheckedRun, without_secrets
from loadtests.report import files
from loadtests.report.terminal import Progress, render_final
from loadtests.results import files as results
from loadtests.results.environment import commit, machine
from loadtests.results.exit_codes import EXIT_CONFIGURATION, EXIT_INTERRUPTED, EXIT_TARGET
from loadtests.results.schema import Result
from loadtests.settings import Settings
from loadtests.signals import on_ending
from loadtests.target.calibration import floor
from loadtests.target.greeting import greet
from loadtests.target.opening import OpenTarget, default_cores, opened
from loadtests.target.target import ReferenceVariant

MASTER_NICENESS: Final = 10
"""The master only adds up: a worker on the same core goes first."""


def run(checked: CheckedRun, command: Sequence[str]) -> int:
    """Run what was checked, and report; return the exit code. `command` is what the result says of how to repeat it.

    Raises CannotRun if it cannot begin; then nothing of it is left.
    """
    with ExitStack() as stack:
        return _Session(checked, command, stack).run().exit_code


class _Session:
    """One run, from the start of the relay to the files of the result."""

    def __init__(self, checked: CheckedRun, command: Sequence[str], stack: ExitStack) -> None:
        self._options = options = checked.options
        self._checked = checked
        self._command = command
        self._console = Console(stderr=True, quiet=options.quiet, markup=False)
        self._stack = stack
        self._interrupted = Event()
        self._relay_cores, self._load_cores = default_cores(checked.target)
        self._workers = options.workers or len(self._load_cores)
        self._machine = machine()  # before this process binds itself to some of the cores
        out = Path(options.out)
        self._made = [folder for folder in (out, *out.parents) if not folder.exists()]
        self._folder = self._make_folder()

    def _make_folder(self) -> Path:
        try:
            return results.create_run_directory(Path(self._options.out), self._checked.settings.scenario, time_ns())
        except results.ResultsError as error:
            raise CannotRun(EXIT_CONFIGURATION, [f"--out: {error}."]) from None

    def run(self) -> Result:
        handler = logging.FileHandler(self._folder / "harness.log")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
        logging.getLogger().setLevel(logging.INFO)
        self._stack.callback(handler.close)
        try:
            # From now on Ctrl-C ends the preparations at their next step: an exception may strike where it is lost.
            on_ending(self._stack, self._interrupted.set)
            return self._measure(*self._open_target())
        except CannotRun:
            self._remove_folder()
            raise
        except KeyboardInterrupt:
            self._remove_folder()
            raise CannotRun(EXIT_INTERRUPTED, ["interrupted before the load began."]) from None

    def _remove_folder(self) -> None:
        """Leave nothing of a run that did not begin, nor the folders made for it."""
        shutil.rmtree(self._folder, ignore_errors=True)
        for folder in self._made:
            with suppress(OSError):
                folder.rmdir()

    def _go_on(self) -> None:
        """Raise KeyboardInterrupt if there was a Ctrl-C."""
        if self._interrupted.is_set():
            raise KeyboardInterrupt

    # -- the target ----------------------------------------------------------------------------------

    def _open_target(self) -> tuple[OpenTarget, Settings]:
        """Return the target, open, and the settings with its address. Whatever happens, the stack ends it."""
        checked = self._checked
        allow_descriptors_at_least(checked.descriptors)
        try:
            found = self._stack.enter_context(
                opened(
                    checked.target,
                    self._folder,
                    tls=self._options.tls,
                    allow_suite_0=checked.settings.suite == "none",
                    cores=self._relay_cores,
                    go_on=self._go_on,
                )
            )
            self._go_on()
            settings = msgspec.structs.replace(
                checked.settings, url=found.address.url, own_certificate=found.own_certificate
            )
            greet(settings)
        except TargetError as error:
            raise CannotRun(EXIT_TARGET, [str(error)]) from None
        except ValueError as error:  # the dialect's
            raise CannotRun(EXIT_CONFIGURATION, [str(error)]) from None
        self._go_on()
        return found, settings

    # -- the load ------------------------------------------------------------------------------------

    def _measure(self, found: OpenTarget, settings: Settings) -> Result:
        options = self._options
        if self._relay_cores:
            os.sched_setaffinity(0, self._load_cores)
        facts = self._facts(found, settings)
        self._go_on()
        engine = Engine(
            self._folder,
            workers=self._workers,
            cores=self._load_cores if self._relay_cores else None,
            options=options,
            go_on=self._go_on,
        )
        with engine:
            os.nice(MASTER_NICENESS)  # behind the start of the workers, which would inherit it
            self._console.print(self._describe(settings), soft_wrap=True, highlight=False)
            served = self._serve_metrics(engine.master, found)
            if options.ui:
                engine.open_page(UI_HOST, UI_PORT)
                self._console.print(f"Locust's page: http://{UI_HOST}:{UI_PORT}", highlight=False)

            def end_in_order() -> None:
                self._interrupted.set()
                engine.interrupt()

            on_ending(self._stack, end_in_order)
            self._go_on()
            result = self._follow(engine, settings, facts)
            self._report(result, engine)
            self._linger(served or options.ui)
        return result

    def _facts(self, found: OpenTarget, settings: Settings) -> RunFacts:
        target = self._checked.target
        rig = floor(settings, self._folder, self._relay_cores)
        store = target.program.store if isinstance(target.program, ReferenceVariant) else None
        return RunFacts(
            target=target.name,
            version=found.version,
            promises=target.promises.words(),
            relay=found.relay,
            thresholds=self._checked.thresholds,
            calibration=rig.histogram,
            machine=self._machine,
            commit=commit(Path(__file__).parent),
            command=without_secrets(self._command),
            options={"tls": found.address.tls, "store": store},
            notes=[rig.note] if rig.note else [],
            series=target.series,
        )

    def _describe(self, settings: Settings) -> str:
        cores = f"relay on core {min(self._relay_cores)}, " if self._relay_cores else ""
        return (
            f"{settings.scenario}: {settings.participants} participants, {settings.workload().rate:.3g} chat messages a"
            f" second, {settings.duration_s:g} s, suite {settings.suite}, seed {settings.seed}, {settings.url}; {cores}"
            f"{self._workers} worker{'s' if self._workers > 1 else ''} on core {', '.join(map(str, self._load_cores))}"
        )

    def _follow(self, engine: Engine, settings: Settings, facts: RunFacts) -> Result:
        """Show progress until the run is over."""
        duration_ns = int(settings.duration_s * 1e9)
        with Progress(self._console, scenario=settings.scenario, duration_ns=duration_ns) as progress:

            def show(master: Master) -> None:
                if master.collector is not None and not self._options.quiet:
                    progress.update(progress_of(master.collector, master.phase))

            return engine.run(settings, facts, show)

    def _serve_metrics(self, master: Master, found: OpenTarget) -> bool:
        options = self._options
        if options.metrics is None:
            return False
        host, port = exporter.parse_address(options.metrics)
        collector = exporter.LoadtestCollector(
            lambda: snapshot_of(master.collector, master.phase),
            scenario=self._checked.settings.scenario,
            target=self._checked.target.label,
            run=self._checked.settings.run,
        )
        try:
            server = exporter.serve(collector, host, port, lambda: _metrics_of(found))
        except OSError as error:
            raise CannotRun(EXIT_CONFIGURATION, [f"--metrics {options.metrics}: {error.strerror}."]) from None
        self._stack.callback(server.stop)
        shown = f"[{host}]" if ":" in host else host
        self._console.print(f"metrics: http://{shown}:{server.server_port}/metrics", highlight=False)
        return True

    def _report(self, result: Result, engine: Engine) -> None:
        try:
            path = results.write(self._folder, result, engine.intervals())
            files.write([result], self._folder / files.NAME)
        except results.ResultsError as error:
            raise CannotRun(EXIT_CONFIGURATION, [f"{error}."]) from None
        if self._options.json:
            sys.stdout.write(path.read_text())
            sys.stdout.write("\n")
        else:
            render_final(result, Console(markup=False), self._folder)

    def _linger(self, useful: bool) -> None:
        if self._checked.linger_s and useful:
            self._console.print(f"lingering for {self._checked.linger_s:g} s; Ctrl-C ends it")
            self._interrupted.wait(self._checked.linger_s)


def _metrics_of(found: OpenTarget) -> str | None:
    """Return where the relay serves its metrics, None unless it runs."""
    running = found.relay is not None and found.relay.exit_code() is None
    return found.metrics or None if running else None
