"""`relaymark run`: a relay, Locust's master in this process, workers as children; from options to an exit code.

On two cores and more the relay has the first to itself, and the workers share the others with the master, which gives
way to them. Everything that is started here is stopped here, Ctrl-C included.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic_ns, time_ns
from typing import Any, Final

import gevent
from gevent.event import Event
from locust import events
from locust.argument_parser import get_parser
from locust.env import Environment
from locust.util.load_locustfile import load_locustfile
from rich.console import Console

import loadtests
from loadtests.address import Address, TargetError, client_context, parse_url
from loadtests.control import exporter
from loadtests.control.collector import Gathering
from loadtests.control.master import Conductor
from loadtests.locust_glue import tab as locust_tab
from loadtests.measuring.histogram import Histogram
from loadtests.measuring.series import series_name
from loadtests.options import REFERENCE, UI_HOST, UI_PORT, Plan, Refused
from loadtests.report import files
from loadtests.report.terminal import Live, Progress, render_final
from loadtests.results import files as results
from loadtests.results.environment import machine
from loadtests.results.exit_codes import EXIT_CONFIGURATION, EXIT_INTERRUPTED, EXIT_TARGET
from loadtests.results.schema import Result
from loadtests.results.thresholds import Threshold
from loadtests.sealing.records import KIND_NAMES
from loadtests.target.calibration import calibrate
from loadtests.target.probe import probe
from loadtests.target.reference_relay import ReferenceRelay
from loadtests.workload.traffic import Workload
from relaymark import child_module

WORKERS_S_MAX: Final = 60.0
"""For the worker processes to start and report."""
STOP_S_MAX: Final = 10.0
REFRESH_S: Final = 0.5
RATE_SECONDS: Final = 5
MASTER_NICENESS: Final = 10
"""The master only adds up: a worker on the same core goes first."""
_SCENARIOS: Final = Path(loadtests.__file__).parent / "scenarios"


def run(plan: Plan, thresholds: list[Threshold], on_result: Callable[[Result, Path], None] | None = None) -> int:
    """Run a plan that `check` has found good, and report; return the exit code.

    `on_result` gets the result and the folder that it is in.
    """
    console = Console(stderr=True, quiet=plan.quiet)
    try:
        with ExitStack() as stack:
            session = _Session(plan, thresholds, console, stack)
            result = session.run()
    except Refused as refused:
        for problem in refused.problems:
            sys.stderr.write(f"relaymark run: {problem}\n")
        return refused.code
    if on_result is not None:
        on_result(result, session.folder)
    return result.exit_code


class _Session:
    """One run, from the start of the relay to the files of the result."""

    def __init__(self, plan: Plan, thresholds: list[Threshold], console: Console, stack: ExitStack) -> None:
        self._plan = plan
        self._thresholds = thresholds
        self._console = console
        self._stack = stack
        self._relay: ReferenceRelay | None = None
        self._children: list[subprocess.Popen[bytes]] = []
        self._locust_arguments: list[str] = []
        self._interrupted = Event()
        cores = sorted(os.sched_getaffinity(0))
        self._relay_cores = {cores[0]} if len(cores) > 1 and plan.target == REFERENCE else None
        self._load_cores = cores[1:] if self._relay_cores else cores
        self._machine = machine()  # before this process binds itself to some of the cores
        self._workers = plan.workers or len(self._load_cores)
        out = Path(plan.out)
        self._made = [folder for folder in (out, *out.parents) if not folder.exists()]
        self.folder = self._make_folder()

    def _make_folder(self) -> Path:
        try:
            return results.create_run_directory(Path(self._plan.out), self._plan.settings.scenario, time_ns())
        except results.ResultsError as error:
            raise Refused(EXIT_CONFIGURATION, [f"--out: {error}."]) from None

    def run(self) -> Result:
        handler = logging.FileHandler(self.folder / "harness.log")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
        logging.getLogger().setLevel(logging.INFO)
        self._stack.callback(handler.close)
        try:
            self._let_ctrl_c_refuse()
            address = self._open_target()
            self._go_on()
            return self._measure(address)
        except Refused:
            self._remove_folder()
            raise
        except KeyboardInterrupt:
            self._remove_folder()
            raise Refused(EXIT_INTERRUPTED, ["interrupted before the load began."]) from None

    def _remove_folder(self) -> None:
        """Leave nothing of a run that did not begin, nor the folders made for it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for folder in self._made:
            with suppress(OSError):
                folder.rmdir()

    # -- the target ----------------------------------------------------------------------------------

    def _open_target(self) -> Address:
        plan = self._plan
        try:
            if plan.target == REFERENCE:
                store = f"sqlite:{self.folder / 'relay.sqlite'}" if plan.store == "sqlite" else plan.store
                self._relay = ReferenceRelay(
                    self.folder,
                    store=store,
                    transport=plan.transport,
                    tls=plan.tls,
                    allow_suite_0=plan.settings.suite == "none",
                    cores=self._relay_cores,
                )
                # The stack ends it whatever happens from here on.
                self._stack.callback(self._relay.stop)
                address = self._relay.start()
            else:
                address = parse_url(plan.target)
            self._go_on()
            probe(address, self._context(address))
        except TargetError as error:
            raise Refused(EXIT_TARGET, [str(error)]) from None
        return address

    def _context(self, address: Address) -> ssl.SSLContext | None:
        if not address.tls:
            return None
        ca = self._plan.settings.ca
        return client_context(Path(ca) if ca else None, own=self._relay is not None)

    # -- the load ------------------------------------------------------------------------------------

    def _measure(self, address: Address) -> Result:
        plan = self._plan
        if self._relay_cores:
            os.sched_setaffinity(0, self._load_cores)
        calibration = calibrate(address, self._context(address))
        self._go_on()
        os.nice(MASTER_NICENESS)
        environment = self._environment(address)
        master = environment.relaymark
        master.quits = master.reports = False
        conductor: Conductor = master.conductor
        conductor.relay = self._relay
        conductor.target = f"{REFERENCE}@{plan.transport}" if self._relay is not None else address.url
        conductor.thresholds = self._thresholds
        conductor.calibration = calibration
        conductor.machine = self._machine
        conductor.options = {"tls": address.tls, "store": plan.store if self._relay else None}
        if plan.command:
            conductor.command = list(plan.command)
        self._start_workers(environment)
        self._console.print(self._describe(address), soft_wrap=True, highlight=False)
        served = self._serve_metrics(conductor)
        page = self._open_page(environment, conductor)
        self._let_ctrl_c_end(conductor)
        self._go_on()
        environment.runner.start(plan.settings.participants, spawn_rate=plan.settings.participants)
        if self._interrupted.is_set():  # perhaps before there was anything to stop
            conductor.stop(interrupted=True)
        self._follow(environment, conductor)
        result = conductor.result
        if result is None:
            raise RuntimeError("the run ended without a result")
        assert conductor.gathering is not None
        self._report(result, conductor.gathering)
        self._linger(served is not None or page is not None)
        environment.runner.quit()
        return result

    def _describe(self, address: Address) -> str:
        settings = self._plan.settings
        rate = Workload(
            settings.scenario,
            seed=settings.seed,
            participants=settings.participants,
            rate=settings.rate,
            duration_s=settings.duration_s,
        ).rate
        cores = f"relay on core {min(self._relay_cores)}, " if self._relay_cores else ""
        return (
            f"{settings.scenario}: {settings.participants} participants, {rate:.3g} chat messages a second, "
            f"{settings.duration_s:g} s, suite {settings.suite}, seed {settings.seed}, {address.url}; {cores}"
            f"{self._workers} worker{'s' if self._workers > 1 else ''} on core {', '.join(map(str, self._load_cores))}"
        )

    def _environment(self, address: Address) -> Any:
        """Return Locust's environment with a master, as its own command would set it up."""
        settings = self._plan.settings
        file = scenario_file(settings.scenario)
        user_classes, _ = load_locustfile(str(file))
        arguments = ["-f", str(file), "--headless", "--host", address.url, "--seed", str(settings.seed)]
        arguments += ["--suite", settings.suite, "--drain", str(settings.drain_s)]
        if settings.rate is not None:
            arguments += ["--rate", str(settings.rate)]
        if settings.ca is not None:
            arguments += ["--tls-ca", settings.ca]
        options = get_parser().parse_args(arguments)
        self._locust_arguments = arguments
        options.num_users = settings.participants
        options.clock_shift_ms = ",".join(map(str, settings.clock_shift_ms))
        options.relaymark_run = settings.run
        options.relaymark_own_certificate = self._relay is not None and address.tls
        environment = Environment(
            user_classes=list(user_classes.values()), events=events, host=address.url, parsed_options=options
        )
        runner = environment.create_master_runner("127.0.0.1", 0)
        options.run_time = settings.duration_s
        events.init.fire(environment=environment, runner=runner, web_ui=None)  # type: ignore[no-untyped-call]  # Locust's
        return environment

    def _start_workers(self, environment: Any) -> None:
        self._stack.callback(self._stop_workers)
        port = environment.runner.server.port
        file = scenario_file(self._plan.settings.scenario)
        command = child_module("locust", "-f", str(file), "--worker", "--master-host", "127.0.0.1")
        command += ["--master-port", str(port)]
        for number in range(self._workers):
            with (self.folder / f"worker-{number + 1}.log").open("wb") as log:
                child = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            self._children.append(child)
            if self._relay_cores:
                os.sched_setaffinity(child.pid, {self._load_cores[number % len(self._load_cores)]})
        end = time.monotonic() + WORKERS_S_MAX
        while environment.runner.worker_count < self._workers:
            self._go_on()
            dead = [child for child in self._children if child.poll() is not None]
            if dead or time.monotonic() > end:
                words = self._last_words(self._children.index(dead[0]) if dead else 0)
                raise Refused(EXIT_CONFIGURATION, [f"A worker did not start. {words}"])
            gevent.sleep(0.05)

    def _last_words(self, number: int) -> str:
        lines = (self.folder / f"worker-{number + 1}.log").read_text(errors="replace").split("\n")
        return f"Its log ends: {' | '.join([line.strip() for line in lines if line.strip()][-3:])}"

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

    # -- while it runs -------------------------------------------------------------------------------

    def _follow(self, environment: Any, conductor: Conductor) -> None:
        """Show progress until the run is over."""
        duration_ns = int(self._plan.settings.duration_s * 1e9)
        with Progress(self._console, scenario=self._plan.settings.scenario, duration_ns=duration_ns) as progress:
            while not conductor.done.wait(REFRESH_S):
                if conductor.gathering is not None and not self._plan.quiet:
                    progress.update(live_of(conductor.gathering, conductor.phase))
        if environment.process_exit_code == EXIT_CONFIGURATION:
            raise Refused(EXIT_CONFIGURATION, [f"The settings were refused: see {self.folder / 'harness.log'}."])

    def _let_ctrl_c_refuse(self) -> None:
        """From now on Ctrl-C ends the preparations at their next step: an exception may strike where it is lost."""
        self._on_signals(lambda _number, _frame: self._interrupted.set())

    def _go_on(self) -> None:
        """Raise KeyboardInterrupt if there was a Ctrl-C."""
        if self._interrupted.is_set():
            raise KeyboardInterrupt

    def _let_ctrl_c_end(self, conductor: Conductor) -> None:
        """From now on Ctrl-C ends the run in order: an exception could strike anywhere, in the midst of adding up."""

        def on_interrupt(_number: int, _frame: Any) -> None:
            self._interrupted.set()
            conductor.stop(interrupted=True)

        self._on_signals(on_interrupt)

    def _on_signals(self, handler: Callable[[int, Any], None]) -> None:
        # A CI system ends what takes too long by SIGTERM, and by default that would leave the relay and the workers.
        for number in (signal.SIGINT, signal.SIGTERM):
            self._stack.callback(signal.signal, number, signal.signal(number, handler))

    def _serve_metrics(self, conductor: Conductor) -> Any:
        plan = self._plan
        if plan.metrics is None:
            return None
        host, port = exporter.parse_address(plan.metrics)
        collector = exporter.LoadtestCollector(
            lambda: snapshot_of(conductor.gathering, conductor.phase),
            scenario=plan.settings.scenario,
            target=conductor.target,
            run=plan.settings.run,
        )
        try:
            server = exporter.serve(collector, host, port, lambda: metrics_of(conductor.relay))
        except OSError as error:
            raise Refused(EXIT_CONFIGURATION, [f"--metrics {plan.metrics}: {error.strerror}."]) from None
        self._stack.callback(server.stop)
        shown = f"[{host}]" if ":" in host else host
        self._console.print(f"metrics: http://{shown}:{server.server_port}/metrics", markup=False, highlight=False)
        return server

    def _open_page(self, environment: Any, conductor: Conductor) -> Any:
        if not self._plan.ui:
            return None
        # Locust's page parses the arguments of the process at every visit, and must find its own.
        ours = sys.argv[1:]
        self._stack.callback(lambda: sys.argv.__setitem__(slice(1, None), ours))
        sys.argv[1:] = self._locust_arguments
        page = environment.create_web_ui(UI_HOST, UI_PORT)
        locust_tab.install(environment, conductor.so_far)
        self._stack.callback(page.stop)
        self._console.print(f"Locust's page: http://{UI_HOST}:{UI_PORT}", highlight=False)
        return page

    def _report(self, result: Result, gathering: Gathering) -> None:
        try:
            path = results.write(self.folder, result, gathering.recorder.intervals())
            files.write([result], self.folder / files.NAME)
        except results.ResultsError as error:
            raise Refused(EXIT_CONFIGURATION, [f"{error}."]) from None
        if self._plan.json:
            sys.stdout.write(path.read_text())
            sys.stdout.write("\n")
        else:
            render_final(result, Console(), self.folder)

    def _linger(self, useful: bool) -> None:
        if self._plan.linger_s and useful:
            self._console.print(f"lingering for {self._plan.linger_s:g} s; Ctrl-C ends it")
            self._interrupted.wait(self._plan.linger_s)


def scenario_file(scenario: str) -> Path:
    """Return the Locust file of a scenario."""
    return _SCENARIOS / f"{scenario.replace('-', '_')}.py"


def live_of(gathering: Gathering, phase: str) -> Live:
    """Return what the progress display shows of a run."""
    due, sent, delivered = gathering.recent_rates(RATE_SECONDS)
    return Live(
        elapsed_ns=monotonic_ns() - gathering.load_from_ns if gathering.load_from_ns else 0,
        phase=phase,
        connections=gathering.total("attached"),
        due_per_s=due,
        sent_per_s=sent,
        delivered_per_s=delivered,
        latency=_latency(gathering.recorder.totals),
    )


def _latency(totals: dict[str, Histogram]) -> dict[str, Histogram]:
    found = {}
    for kind in KIND_NAMES:
        histogram = totals.get(series_name("deliver", kind=kind, basis="intended"))
        if histogram is not None and histogram.count:
            found[kind] = histogram
    return found


def snapshot_of(gathering: Gathering | None, phase: str) -> exporter.Snapshot:
    """Return what a scrape of the harness shows of a run."""
    if gathering is None:
        return exporter.Snapshot(series={}, kinds={}, running=False)
    began_ns, ended_ns = gathering.load_from_ns, gathering.load_to_ns
    return exporter.Snapshot(
        series=gathering.recorder.totals,
        kinds=gathering.kinds_so_far(),
        running=phase == "load",
        connections=gathering.total("attached"),
        workers=len(gathering.lines),
        worker_cpu_max=max((line.status.get("cpu", 0.0) for line in gathering.lines.values()), default=0.0),
        clock_error_ns=gathering.clock_error_ns,
        started_unix_ns=gathering.started_unix_ns if began_ns else None,
        ended_unix_ns=gathering.started_unix_ns + ended_ns - began_ns if ended_ns else None,
        events=[(event.text, gathering.started_unix_ns + event.at_ns) for event in gathering.events],
    )


def metrics_of(relay: ReferenceRelay | None) -> str | None:
    """Return where the relay serves its metrics, None unless it runs."""
    return None if relay is None or relay.exit_code() is not None else relay.metrics or None
