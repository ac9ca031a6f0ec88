"""Opens a target for a run: starts it or finds it, and hands over what can be observed of it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import psutil

from loadtests.address import CERTIFICATE, Address, TargetError, parse_url
from loadtests.target import metrics_page
from loadtests.target.process import ProcessUsage, TargetProcess, usage_of
from loadtests.target.reference_relay import ReferenceRelay
from loadtests.target.target import Command, Program, ReferenceVariant, Target, version_of
from relaymark import child_program


class StartedRelay:
    """A relay that was started here, as a run observes it."""

    def __init__(self, process: TargetProcess, target: Target, address: Address) -> None:
        self._process = process
        self._address = address
        self._ready = target.ready.replace("{port}", str(address.port))
        self.metrics = target.metrics.replace("{port}", str(address.port))

    def start(self) -> Address:
        """Start it and wait until it is ready. Raises TargetError."""
        self._process.start()
        self._process.await_port(self._address.host, self._address.port)
        if self._ready:
            self._process.await_page(self._ready)
        return self._address

    def kill(self) -> None:
        """End it as a crash does; `start` starts it again, in the same folder."""
        self._process.kill()

    def stop(self) -> int | None:
        """Stop it and return its exit code: negative if a signal ended it."""
        return self._process.stop()

    def exit_code(self) -> int | None:
        return self._process.exit_code()

    def usage(self) -> ProcessUsage | None:
        return self._process.usage()

    def statistics(self) -> dict[str, float]:
        return metrics_page.read(self.metrics) if self.metrics else {}


class RunningRelay:
    """A relay that ran before, as far as it can be observed: by its process's id, by its page of metrics."""

    def __init__(self, pid: int | None, metrics: str) -> None:
        """Raises TargetError if there is no such process."""
        self._metrics = metrics
        try:
            self._process = None if pid is None else psutil.Process(pid)
        except psutil.Error:
            raise TargetError(f"There is no process {pid} to be observed here: leave --target-pid out.") from None

    def exit_code(self) -> int | None:
        return 0 if self._process is not None and not self._process.is_running() else None

    def usage(self) -> ProcessUsage | None:
        return None if self._process is None else usage_of(self._process)

    def statistics(self) -> dict[str, float]:
        return metrics_page.read(self._metrics) if self._metrics else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTarget:
    """A target that listens. `own_certificate`: it serves the harness's; `metrics`: HOST:PORT of its page, if any."""

    address: Address
    relay: ReferenceRelay | StartedRelay | RunningRelay | None
    own_certificate: bool
    version: str
    metrics: str = ""
    pid: int | None = None
    """Id of the process that was started here, or is to be observed; what it started belongs to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Starting:
    """How a relay is started: see `opened`."""

    tls: bool
    allow_suite_0: bool
    cores: set[int] | None
    go_on: Callable[[], None]


@contextlib.contextmanager
def opened(
    target: Target,
    folder: Path,
    *,
    tls: bool = False,
    allow_suite_0: bool = False,
    cores: set[int] | None = None,
    go_on: Callable[[], None] = lambda: None,
) -> Iterator[OpenTarget]:
    """Give the target, started if it is one that we start, until the block ends; its log is relay.log in `folder`.

    It is started with TLS by the harness's certificate, or without, and stays on `cores`; `go_on` is called while it is
    awaited, and may raise to give up. Raises TargetError, and leaves nothing running.
    """
    how = Starting(tls=tls, allow_suite_0=allow_suite_0, cores=cores, go_on=go_on)
    if isinstance(target.program, ReferenceVariant):
        with _reference(target.program, folder, how) as found:
            yield found
    elif target.program is not None:
        with _started(target, target.program, folder, how) as found:
            yield found
    else:
        relay = RunningRelay(target.pid, target.metrics) if target.pid or target.metrics else None
        metrics = urlsplit(target.metrics).netloc
        yield OpenTarget(
            address=parse_url(target.url),
            relay=relay,
            own_certificate=False,
            version="",
            metrics=metrics,
            pid=target.pid,
        )


@contextlib.contextmanager
def _reference(variant: ReferenceVariant, folder: Path, how: Starting) -> Iterator[OpenTarget]:
    store = f"sqlite:{folder / 'relay.sqlite'}" if variant.store == "sqlite" else variant.store
    relay = ReferenceRelay(
        folder,
        store=store,
        transport=variant.transport,
        tls=how.tls,
        allow_suite_0=how.allow_suite_0,
        cores=how.cores,
        go_on=how.go_on,
    )
    try:
        address = relay.start()
        yield OpenTarget(
            address=address,
            relay=relay,
            own_certificate=how.tls,
            version=version("relaymark"),
            metrics=relay.metrics,
            pid=relay.pid,
        )
    finally:
        relay.stop()


@contextlib.contextmanager
def _started(target: Target, program: Program, folder: Path, how: Starting) -> Iterator[OpenTarget]:
    binary = program.find()
    if binary is None:
        raise TargetError(f"{target.name} is not installed here: {program.HOW_TO_GET}.")
    if how.tls and isinstance(program, Command) and not program.encrypts:
        raise TargetError(f"{target.name} cannot serve TLS: its command says nowhere {{cert}} and {{key}}.")
    port = free_port()
    with TemporaryDirectory(prefix="relaymark-", ignore_cleanup_errors=True) as directory:
        # Some give up root for a user who must still be able to read this.
        Path(directory).chmod(0o755)
        process = TargetProcess(
            child_program(program.command(binary, Path(directory), port, CERTIFICATE if how.tls else None)),
            log=folder / "relay.log",
            name=target.name,
            environment=program.environment(Path(directory), port),
            cores=how.cores,
            go_on=how.go_on,
        )
        address = Address(host="127.0.0.1", port=port, tls=how.tls, websocket=target.websocket, path=target.path)
        relay = StartedRelay(process, target, address)
        try:
            relay.start()
            yield OpenTarget(
                address=address,
                relay=relay,
                own_certificate=how.tls,
                version=version_of(program),
                metrics=urlsplit(relay.metrics).netloc,
                pid=process.pid,
            )
        finally:
            relay.stop()


def free_port() -> int:
    """Return a port of loopback that nobody listens at now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def default_cores(target: Target) -> tuple[set[int] | None, list[int]]:
    """Return the cores of a target that is started here, and those of the load: the first to it if there are several."""
    cores = sorted(os.sched_getaffinity(0))
    return ({cores[0]}, cores[1:]) if len(cores) > 1 and target.started else (None, cores)
