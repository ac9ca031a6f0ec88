"""What the relay uses over a run: CPU, memory and its own counters, sampled about once a second."""

from __future__ import annotations

from typing import Final

from loadtests.control.facts import ObservedRelay
from loadtests.results import schema
from loadtests.target.process import ProcessUsage

_S_NS: Final = 1_000_000_000


class RelayUsage:
    """Samples of one relay's process; of none, if it cannot be observed.

    The memory of an idle relay is that of `note_idle`, before anybody connects; CPU counts from `load_begins` on.
    """

    def __init__(self, relay: ObservedRelay | None) -> None:
        self.relay = relay
        self.columns = schema.Usage(name="relay", role="relay")
        self.statistics: dict[str, float] = {}
        self._first: ProcessUsage | None = None
        self._last: ProcessUsage | None = None
        self._memory_bytes_idle = self._memory_bytes_max = 0

    def _sample(self) -> ProcessUsage | None:
        usage = self.relay.usage() if self.relay is not None else None
        if usage is not None:
            self._memory_bytes_max = max(self._memory_bytes_max, usage.rss_bytes)
        return usage

    def note_idle(self) -> None:
        usage = self._sample()
        if usage is not None:
            self._memory_bytes_idle = usage.rss_bytes

    def while_joining(self) -> None:
        """Note the memory of a relay to which people connect."""
        self._sample()

    def load_begins(self) -> None:
        self._first = self._sample()

    def while_loaded(self, load_from_ns: int, connections: int) -> None:
        """Add a line to the columns, whose seconds count from `load_from_ns`."""
        usage = self._sample()
        if usage is None or self._first is None:
            return
        then = self._last or self._first
        self.columns.second.append((usage.at_ns - load_from_ns) // _S_NS)
        self.columns.cpu.append(round((usage.cpu_ns - then.cpu_ns) / max(usage.at_ns - then.at_ns, 1), 4))
        self.columns.memory_bytes.append(usage.rss_bytes)
        self.columns.connections.append(connections)
        self._last = usage

    def load_ends(self, load_from_ns: int, connections: int) -> None:
        self.while_loaded(load_from_ns, connections)
        if self.relay is not None:
            self.statistics = self.relay.statistics()

    @property
    def mean_cpu(self) -> float | None:
        """Over the load, of one core."""
        if self._first is None or self._last is None:
            return None
        return (self._last.cpu_ns - self._first.cpu_ns) / max(self._last.at_ns - self._first.at_ns, 1)

    def figures(self, deliveries: int) -> schema.RelayFigures | None:
        """Return what it used for so many deliveries, None if it could not be observed."""
        if self._first is None or self._last is None:
            return None
        return schema.RelayFigures(
            cpu_ns=self._last.cpu_ns - self._first.cpu_ns,
            memory_bytes_idle=self._memory_bytes_idle,
            memory_bytes_max=self._memory_bytes_max,
            connections=max(self.columns.connections, default=0),
            deliveries=deliveries,
            statistics=self.statistics,
        )
