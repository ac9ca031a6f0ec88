"""Erasures: all that are asked for while the store is at some become its next call. Sans-IO.

Until its stream is gone from the disk nothing more of it is committed. A call does a bounded piece of the work. A store
that blocks is called once a second, also where it finished nothing because a program from outside reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from relay.errors import Code, Refused
from relay.store import Store
from relay.stream import Client, Stream, Submit

Finished: TypeAlias = Callable[[Stream, int, Client, bool], None]


class Erasures:
    """The streams that are being erased. `finished(stream, epoch, asker, is gone)` is called for each in the end."""

    def __init__(self, store: Store, write: Submit, finished: Finished) -> None:
        self._store = store
        self._write = write
        self._finished = finished
        self.waiting: dict[int, tuple[Stream, int, Client]] = {}
        self._under_way = False
        self._resting = False

    def add(self, stream: Stream, epoch: int, asker: Client) -> None:
        """Have a stream erased, which then begins `epoch`. Raises Refused: it is at it."""
        if stream.erasing:
            raise Refused(Code.STORE)
        stream.erasing = True
        self.waiting[stream.number] = (stream, epoch, asker)

    @property
    def has_more(self) -> bool:
        """Whether the store can be called at once: it is not at it, and was not and finished nothing."""
        return bool(self.waiting) and not self._under_way and not self._resting

    def turn(self) -> None:
        """Call the store, if there is something for it to do."""
        if self.has_more:
            self._under_way = True
            erasures = [(number, epoch) for number, (_, epoch, _) in self.waiting.items()]
            self._write(partial(self._store.erase, erasures), partial(self._done, erasures))

    def tick(self) -> None:
        """Once a second: call again."""
        self._resting = False

    def _done(
        self, asked: list[tuple[int, int]], finished: list[tuple[int, bool | None]] | None, error: Exception | None
    ) -> None:
        self._under_way = False
        if finished is None:
            finished = [(number, False) for number, _ in asked]
        # A call ends with the purge of a log, which everybody's records wait for: one a second is enough.
        self._resting = not finished or not self._store.instant
        for number, is_gone in finished:
            if is_gone is None:
                self._resting = False
                continue
            stream, epoch, asker = self.waiting.pop(number)
            stream.erasing = False
            self._finished(stream, epoch, asker, is_gone)
