"""Runs a fresh server of a target for one measurement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.rig.processes import Cores, Server, ServerError
from loadtests.address import TargetError
from loadtests.target.opening import opened
from loadtests.target.target import Target


@contextmanager
def serving(target: Target, cores: Cores) -> Iterator[Server]:
    """Run a fresh server on its core, with files that are gone afterwards. Raises ServerError."""
    assert target.started, "the fast load fills servers of its own only"
    with TemporaryDirectory(prefix="relaymark-") as folder:
        try:
            with opened(target, Path(folder), cores={cores.server}) as found:
                assert found.pid is not None, "it was started"
                assert found.relay is not None, "it was started"
                yield Server(pid=found.pid, host=found.address.host, port=found.address.port)
                if (code := found.relay.exit_code()) is not None:
                    raise ServerError(f"{target.name} ended by itself: {code}")
        except TargetError as error:
            raise ServerError(str(error)) from None
