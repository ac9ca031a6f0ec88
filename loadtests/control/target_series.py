"""Chosen metrics of the target's own, read from its page about once a second while the load goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import monotonic_ns
from typing import Any, Final

import gevent

from loadtests.results.schema import SeriesColumns

EVERY_S: Final = 1.0
_S_NS: Final = 1_000_000_000
_COUNTER: Final = "_total"


class TargetSeries:
    """Columns by name. A counter (its name ends with _total) becomes its rise a second; anything else is kept as it is."""

    def __init__(self, names: Sequence[str], read: Callable[[], Mapping[str, float]]) -> None:
        """`read` returns what the page says now, and may take its time: it is called in a greenlet of its own."""
        self.columns = {name: SeriesColumns() for name in names}
        self._read = read
        self._before: dict[str, tuple[int, float]] = {}
        self._greenlet: Any = None

    def start(self, load_from_ns: int) -> None:
        if self.columns:
            self._greenlet = gevent.spawn(self._sample_for_ever, load_from_ns)

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill(block=False)
            self._greenlet = None

    def _sample_for_ever(self, load_from_ns: int) -> None:
        while True:
            found = self._read()
            self.add(monotonic_ns() - load_from_ns, found)
            gevent.sleep(EVERY_S)

    def add(self, at_ns: int, found: Mapping[str, float]) -> None:
        """Take what the page said `at_ns` after the start of the load."""
        for name, columns in self.columns.items():
            if name not in found:
                continue
            value = found[name]
            if name.endswith(_COUNTER):
                before = self._before.get(name)
                self._before[name] = (at_ns, value)
                if before is None:
                    continue
                # A counter that falls was set to 0 by a restart.
                value = max(value - before[1], 0.0) * _S_NS / max(at_ns - before[0], 1)
            columns.second.append(at_ns // _S_NS)
            columns.value.append(round(value, 4))

    def missing(self) -> list[str]:
        """Return the names that the page never had."""
        return [name for name, columns in self.columns.items() if not columns.second and name not in self._before]
