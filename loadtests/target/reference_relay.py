"""Starts, health-checks, observes and stops the relays that are measured.

A relay is always a process of its own. It is found by the line that it prints when it serves; it is ready when its
metrics listener says so; it is stopped by SIGTERM and, after a deadline, killed by its process id.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import psutil
from prometheus_client.parser import text_string_to_metric_families

from loadtests.address import CERTIFICATE, CERTIFICATE_KEY, PROBE_S_MAX, Address, TargetError, parse_url
from relaymark import child

PROMISES: Final = {
    "durability": "as the store: memory loses all at a restart, sqlite commits before it acknowledges",
    "order": "numbered per stream, without a gap",
    "resume": "from any number that is still held",
}
START_S_MAX: Final = 20.0
STOP_S_MAX: Final = 12.0
"""A little more than the relay's own deadline for draining."""
POLL_S: Final = 0.02
_SERVING: Final = re.compile(r"^relaymark: serving (wss?://\S+) metrics http://(\S+)/metrics$", re.MULTILINE)
_LAST_LINES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessUsage:
    """What a process has used so far: CPU time of all its threads, and its resident memory now."""

    at_ns: int
    cpu_ns: int
    rss_bytes: int


def usage_of(process: psutil.Process) -> ProcessUsage | None:
    """Return the usage of `process`, None when it is gone."""
    try:
        with process.oneshot():
            times = process.cpu_times()
            rss_bytes = process.memory_info().rss
    except psutil.Error:
        return None
    return ProcessUsage(at_ns=time.monotonic_ns(), cpu_ns=int((times.user + times.system) * 1e9), rss_bytes=rss_bytes)


class ReferenceRelay:
    """`relaymark serve` as a child process, on a free port of loopback."""

    def __init__(
        self,
        folder: Path,
        *,
        store: str = "memory",
        transport: str = "pump",
        tls: bool = False,
        allow_suite_0: bool = False,
        cores: set[int] | None = None,
    ) -> None:
        """The log goes to relay.log in `folder`; `cores`: the process stays on these."""
        self.log = folder / "relay.log"
        self.metrics = ""
        self.command = child("serve", "--listen", "127.0.0.1:0", "--echo")
        self.command += ["--store", store, "--transport", transport, "--metrics", "127.0.0.1:0"]
        if tls:
            self.command += ["--tls-cert", str(CERTIFICATE), "--tls-key", str(CERTIFICATE_KEY)]
        if allow_suite_0:
            self.command.append("--allow-suite-0")
        self._tls = tls
        self._cores = cores
        self._process: subprocess.Popen[bytes] | None = None
        self._observed: psutil.Process | None = None

    def start(self) -> Address:
        """Start it and wait until it is ready. Raises TargetError, and leaves nothing running."""
        with self.log.open("wb") as log:
            self._process = self._spawn(log)
        try:
            if self._cores:
                os.sched_setaffinity(self._process.pid, self._cores)
            self._observed = psutil.Process(self._process.pid)
            address = self._wait_until_serving()
            self._wait_until_ready()
        except (psutil.Error, OSError):
            self.stop()
            raise TargetError(f"The relay ended while it started. {self._last_words()}") from None
        except BaseException:
            self.stop()
            raise
        return address

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        try:
            # A group of its own: Ctrl-C is for the harness, which then stops the relay in order.
            return subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        except OSError as error:
            raise TargetError(f"The relay could not be started: {error.strerror}.") from None

    def _wait_until_serving(self) -> Address:
        deadline = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline:
            found = _SERVING.search(self._logged())
            if found:
                self.metrics = found[2]
                return parse_url(found[1])
            if self.exit_code() is not None:
                raise TargetError(f"The relay ended with code {self.exit_code()}. {self._last_words()}")
            time.sleep(POLL_S)
        raise TargetError(f"The relay did not serve within {START_S_MAX:.0f} s. {self._last_words()}")

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_S_MAX
        while True:
            try:
                with urllib.request.urlopen(f"http://{self.metrics}/readyz", timeout=PROBE_S_MAX) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                if time.monotonic() > deadline or self.exit_code() is not None:
                    raise TargetError(f"The relay is not ready. {self._last_words()}") from None
            time.sleep(POLL_S)

    def exit_code(self) -> int | None:
        """Return how it ended, None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def usage(self) -> ProcessUsage | None:
        return None if self._observed is None or self.exit_code() is not None else usage_of(self._observed)

    def statistics(self) -> dict[str, float]:
        """Return the relay's own counters and gauges by the names of its metrics, labels summed; empty if it is gone."""
        try:
            with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=PROBE_S_MAX) as answer:
                text = answer.read().decode()
        except OSError:
            return {}
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            if family.type in ("counter", "gauge"):
                for sample in family.samples:
                    if not sample.name.endswith("_created"):
                        found[sample.name] = found.get(sample.name, 0.0) + sample.value
        return found

    def stop(self) -> int | None:
        """Stop it and return its exit code: negative if a signal ended it."""
        process = self._process
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)  # a stopped process does not see the first
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return process.returncode

    def _logged(self) -> str:
        return self.log.read_text(errors="replace")

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._logged().splitlines() if line.strip()]
        return f"Its log ends: {' | '.join(lines[-_LAST_LINES:])}" if lines else "Its log is empty."
