"""The reference relay as a process that is measured.

It is found by the line that it prints when it serves, is ready when its metrics listener says so, and tells its own
counters there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from loadtests.address import CERTIFICATE, CERTIFICATE_KEY, Address, parse_url
from loadtests.target import metrics_page
from loadtests.target.process import ProcessUsage, TargetProcess
from relaymark import child

_SERVING: Final = re.compile(r"^relaymark: serving (wss?://\S+) metrics http://(\S+)/metrics$", re.MULTILINE)


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
        go_on: Callable[[], None] = lambda: None,
    ) -> None:
        """The log goes to relay.log in `folder`; it stays on `cores`; `go_on` may raise while it is awaited."""
        self.metrics = ""
        """HOST:PORT of its listener for metrics, once it serves."""
        command = child("serve", "--listen", "127.0.0.1:0", "--echo")
        command += ["--store", store, "--transport", transport, "--metrics", "127.0.0.1:0"]
        if tls:
            command += ["--tls-cert", str(CERTIFICATE), "--tls-key", str(CERTIFICATE_KEY)]
        if allow_suite_0:
            command.append("--allow-suite-0")
        self._process = TargetProcess(command, log=folder / "relay.log", name="The relay", cores=cores, go_on=go_on)

    def start(self) -> Address:
        """Start it and wait until it is ready. Raises TargetError, and leaves nothing running."""
        try:
            self._process.start()
            self._process.await_that(lambda: _SERVING.search(self._process.logged()) is not None, "did not serve")
            found = _SERVING.search(self._process.logged())
            assert found is not None
            self.metrics = found[2]
            self._process.await_page(f"http://{self.metrics}/readyz")
        except BaseException:
            self.stop()
            raise
        return parse_url(found[1])

    @property
    def log(self) -> Path:
        return self._process.log

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_code(self) -> int | None:
        """Return how it ended, None while it runs."""
        return self._process.exit_code()

    def usage(self) -> ProcessUsage | None:
        return self._process.usage()

    def statistics(self) -> dict[str, float]:
        """Return the relay's own counters and gauges by the names of its metrics, labels summed; empty if it is gone."""
        return metrics_page.read(f"http://{self.metrics}/metrics")

    def kill(self) -> None:
        """End it as a crash does; `start` starts it again, with what is in its store."""
        self._process.kill()

    def stop(self) -> int | None:
        """Stop it and return its exit code: negative if a signal ended it."""
        return self._process.stop()
