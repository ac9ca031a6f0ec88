"""The ids that a publisher used last: what makes a repeated PUBLISH idempotent. Sans-IO."""

from __future__ import annotations

from typing import Generic, TypeVar

from relay.limits import PUBLISH_WINDOW

Waiter = TypeVar("Waiter")


class Window(Generic[Waiter]):
    """At least PUBLISH_WINDOW ids of one publisher in one stream, in the order in which they were taken.

    `seqs` are the numbers of the first of them; the others are on their way to the store, one batch at most.

    Publishers count their ids up, as a rule, so one comparison with `highest`, which no id was ever above, tells that an
    id is new. Only for one that does not an index of the ids held is made.
    """

    __slots__ = ("_known", "highest", "ids", "retries", "seqs", "users")

    def __init__(self) -> None:
        self.users = 0  # connections of this publisher
        self.highest = -1
        self.ids: list[int] = []
        self.seqs: list[int] = []
        self._known: dict[int, int] | None = None
        self.retries: dict[int, list[Waiter]] = {}  # who else waits for the number of an id

    def seq_of(self, id_: int) -> int | None:
        """Return the number that an id has, 0 if that is not given yet, None if the id is new."""
        return None if id_ > self.highest else self._index().get(id_)

    @property
    def weight(self) -> int:
        """Its share of LEFT_IDS_MAX: the ids held, and the window itself."""
        return len(self.ids) + 8

    def _index(self) -> dict[int, int]:
        if self._known is None:
            self._known = dict.fromkeys(self.ids, 0)
            self._known.update(zip(self.ids, self.seqs, strict=False))
        return self._known

    def take(self, ids: list[int]) -> bool:
        """Take ids for the store; False, and none is taken, if one of them is known or there twice."""
        first, last = ids[0], ids[-1]
        count = len(ids)
        # Not counted up by one? The range must not be as long as a client says.
        if count > 1 and (last - first != count - 1 or ids != list(range(first, last + 1))):
            if len(set(ids)) != count:
                return False
            first, last = min(ids), max(ids)
        if first <= self.highest and not self._index().keys().isdisjoint(ids):
            return False
        self.ids += ids
        if last > self.highest:
            self.highest = last
        if self._known is not None:
            self._known.update(dict.fromkeys(ids, 0))
        if len(self.ids) > 2 * PUBLISH_WINDOW:
            self._forget_old()
        return True

    def number(self, first: int, count: int) -> None:
        """The store has the next `count` of what was taken, numbered from `first` on."""
        seqs = range(first, first + count)
        if self._known is not None:
            start = len(self.seqs)
            self._known.update(zip(self.ids[start : start + count], seqs, strict=True))
        self.seqs += seqs

    def restore(self, id_: int, seq: int) -> None:
        """Take up an id that the store remembers, the next one with a number."""
        self.ids.append(id_)
        self.seqs.append(seq)
        self.highest = max(self.highest, id_)
        self._known = None

    def _forget_old(self) -> None:
        """Keep PUBLISH_WINDOW ids. Seldom, and then many at once: `take` is on the way of every record."""
        # One without a number may still be refused, and taken back.
        count = min(len(self.ids) - PUBLISH_WINDOW, len(self.seqs))
        del self.ids[:count], self.seqs[:count]
        self._known = None

    def clear(self) -> None:
        """Forget everything: the stream was erased, and nothing of it is on its way."""
        self.highest = -1
        self.ids.clear()
        self.seqs.clear()
        self._known = None

    def take_back(self) -> None:
        """Forget what the store refused: all that has no number."""
        del self.ids[len(self.seqs) :]
        self._known = None
