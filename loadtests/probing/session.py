"""All questions to one target, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from msgspec.structs import replace

from loadtests.address import Address, TargetError
from loadtests.probing import acknowledging, largest, ordering, returning, stalling
from loadtests.probing.exchange import Trouble
from loadtests.probing.findings import ProbeAnswer
from loadtests.probing.returning import Restartable
from loadtests.settings import Settings
from loadtests.target.target import Promises

QUESTIONS: Final = (
    "acknowledgement",
    "order",
    "states beside records",
    "retry of what was acknowledged",
    "a reader that stops",
    "resume after a cut",
    "largest record",
    "restart under load",
    "kill -9 under load",
)


class ProbeSession:
    """What is asked of one target. `relay`: None if we did not start it."""

    def __init__(self, settings: Settings, promises: Promises, relay: Restartable | None, *, stall_s: float) -> None:
        self._settings = settings
        self._promises = promises
        self._relay = None if relay is None else _Moving(relay, self)
        self._stall_s = stall_s

    def findings(self) -> Iterator[tuple[str, Callable[[], ProbeAnswer]]]:
        """Yield the name of each question, and what asks it. The last ones leave another relay than there was."""
        asked: dict[str, Callable[[Settings, Promises], ProbeAnswer]] = dict(
            zip(
                QUESTIONS,
                (
                    acknowledging.acknowledgement,
                    ordering.order,
                    ordering.states,
                    acknowledging.retry,
                    partial(stalling.stalled_reader, stall_s=self._stall_s),
                    returning.cut,
                    largest.largest,
                    partial(returning.restart, relay=self._relay, kill=False),
                    partial(returning.restart, relay=self._relay, kill=True),
                ),
                strict=True,
            )
        )
        for name, question in asked.items():
            yield name, partial(self._ask, name, question)

    def _ask(self, name: str, question: Callable[[Settings, Promises], ProbeAnswer]) -> ProbeAnswer:
        try:
            return question(self._settings, self._promises)
        except (Trouble, TargetError) as error:
            return ProbeAnswer(question=name, said="-", seen=f"came to no end: {error}", failed=True)

    def moved(self, url: str) -> None:
        """Ask what is still to be asked at another address."""
        self._settings = replace(self._settings, url=url)


class _Moving:
    """A relay that may listen elsewhere once it was started again."""

    def __init__(self, relay: Restartable, session: ProbeSession) -> None:
        self.stop = relay.stop
        self.kill = relay.kill
        self._relay = relay
        self._session = session

    def start(self) -> Address:
        address = self._relay.start()
        self._session.moved(address.url)
        return address
