"""A reader that stops for a while beside one that reads: is it cut off, kept everything for, or does it lose in silence?

Kernel buffers hide some megabytes of it, so the records that are published meanwhile are many times that.
"""

from __future__ import annotations

import time
from typing import Final

from loadtests.probing.exchange import Exchange, Trouble
from loadtests.probing.findings import ProbeAnswer, of
from loadtests.probing.line import Line, ProbeRecord
from loadtests.probing.publishing import Publishing
from loadtests.settings import Settings
from loadtests.target.target import Promises

STALL_S: Final = 10.0
BYTES_PER_S: Final = 3_000_000.0
"""Over ten seconds more than the 16 MB that uWebSockets keeps for a reader, behind what the kernel keeps."""
SIZES: Final = (1_024, 4_096)
"""Small ones where the relay takes enough of them: some count records, not bytes, in what they keep for a reader."""
_HIDDEN_BYTES: Final = 6_000_000
"""What the kernel's buffers of both ends can hold; usually some four million."""
_SAMPLE: Final = 128
MARKERS: Final = 20
"""Published once the reader is back and has had time: they show whether its connection still gets anything."""
_SILENCE_S: Final = 3.0
"""TCP itself may say nothing for a while after a long stall: it asks again, ever more rarely, whether there is room."""
_CATCH_UP_S_MAX: Final = 12.0


def stalled_reader(settings: Settings, promises: Promises, stall_s: float = STALL_S) -> ProbeAnswer:
    """Let a reader stop reading while others go on, then read again, and come back if it was cut off."""
    with Exchange(settings) as exchange:
        stalled, beside = exchange.reader(2)
        line, _ = exchange.publisher()
        publishing = Publishing(exchange, [line], beside)
        size = _size(publishing)
        exchange.until(lambda: len(stalled.came) >= len(publishing.sent))
        # From here on: what is published while it does not read.
        publishing.sent.clear()
        line.acknowledged.clear()
        stalled.came.clear()
        beside.came.clear()
        stalled.pause()
        watch = _HangUp(stalled)
        due = publishing.send_for(stall_s, rate=BYTES_PER_S / size, size=size, each_turn=watch.look)
        bulk = list(publishing.sent)
        stalled.resume()
        settled = _catch_up(exchange, stalled, len(bulk))
        publishing.send(MARKERS)
        exchange.until(lambda: len(beside.came) >= len(bulk) + MARKERS, _CATCH_UP_S_MAX)
        settled = _catch_up(exchange, stalled, len(bulk) + MARKERS) and settled
        outcome = _Outcome(bulk, stalled, beside)
        back = _come_back(exchange, stalled, beside, outcome) if stalled.ended else None
    return _finding(promises, outcome, back, due, watch, settled)


def _size(publishing: Publishing) -> int:
    """Return the size of records by which most bytes pass in a second, the first that is enough."""
    passed: dict[int, float] = {}
    for size in SIZES:
        began_s = time.monotonic()
        publishing.send(_SAMPLE, size=size)
        passed[size] = _SAMPLE * size / (time.monotonic() - began_s)
        if passed[size] >= BYTES_PER_S:
            return size
    return max(passed, key=lambda size: passed[size])


def _catch_up(exchange: Exchange, line: Line, count: int) -> bool:
    """Serve until a line has so many copies, is over, or gets nothing more; return whether that is in time."""
    end_s = time.monotonic() + _CATCH_UP_S_MAX
    heard, heard_s = line.heard, time.monotonic()
    while line.ended is None and len(line.came) < count and (now_s := time.monotonic()) - heard_s < _SILENCE_S:
        if now_s > end_s:
            return False
        exchange.turn()
        if line.heard != heard:
            heard, heard_s = line.heard, time.monotonic()
    return True


class _HangUp:
    """When the relay hung up on a line that is not read, as far as that shows."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._began_s = self._looked_s = time.monotonic()
        self.after_s: float | None = None

    def look(self) -> None:
        now_s = time.monotonic()
        if self.after_s is None and now_s - self._looked_s > 0.1:
            self._looked_s = now_s
            if self._line.hung_up():
                self.after_s = now_s - self._began_s


class _Outcome:
    """What the reader that stopped has, of what was published meanwhile, once it has read what there was."""

    def __init__(self, bulk: list[ProbeRecord], stalled: Line, beside: Line) -> None:
        ids = {record.id for record in bulk}
        self.bulk = bulk
        self.size = len(bulk[0].sealed) if bulk else 0
        self.got = {one.record.id for one in stalled.came}
        self.later = len(self.got - ids)
        self.ended = stalled.ended
        self.missing = [record for record in bulk if record.id not in self.got]
        self.beside_missing = len(ids - {one.record.id for one in beside.came})
        self.prefix = next((place for place, record in enumerate(bulk) if record.id not in self.got), len(bulk))
        self.behind_hole = self.later + len(bulk) - self.prefix - len(self.missing)
        """What came behind the first that is missing."""
        seqs = {one.record.id: one.seq for one in beside.came}
        self.told = sum(_told(stalled, seqs.get(record.id)) for record in self.missing)

    @property
    def stuck(self) -> bool:
        """Nothing came any more, on a connection that lives."""
        return self.ended is None and bool(self.missing) and not self.later

    @property
    def silent(self) -> int:
        """How many were left out without a word: only what came later shows it."""
        return 0 if self.ended is not None or self.stuck else len(self.missing) - self.told


def _told(line: Line, seq: int | None) -> bool:
    return seq is not None and any(gap.first <= seq <= gap.last for gap in line.gaps)


def _come_back(exchange: Exchange, stalled: Line, beside: Line, outcome: _Outcome) -> dict[str, int] | None:
    """Come back after the last number that it had, where the relay resumes; count what came of what was missing."""
    last = max((one.seq for one in stalled.came if one.seq is not None), default=None)
    if not exchange.features.resumes or stalled.subscribed is None or last is None:
        return None
    try:
        line = exchange.back(stalled, after=last, epoch=stalled.subscribed.epoch)
    except Trouble:
        return None
    _catch_up(exchange, line, len(outcome.missing) + MARKERS)
    seqs = {one.record.id: one.seq for one in beside.came}
    got = {one.record.id for one in line.came}
    replayed = sum(record.id in got for record in outcome.missing)
    told = sum(
        record.id not in got and any(_told(one, seqs.get(record.id)) for one in (stalled, line))
        for record in outcome.missing
    )
    return {"replayed": replayed, "told_when_back": told, "untold": len(outcome.missing) - replayed - told}


def _finding(
    promises: Promises, outcome: _Outcome, back: dict[str, int] | None, due: int, watch: _HangUp, settled: bool
) -> ProbeAnswer:
    bulk, missing = outcome.bulk, len(outcome.missing)
    counts = {
        "due": due,
        "published": len(bulk),
        "record_bytes": outcome.size,
        "got": len(bulk) - missing,
        "prefix": outcome.prefix,
        "missing": missing,
        "told": outcome.told,
        "lost_in_silence": outcome.silent,
        "lost_from_byte": outcome.prefix * outcome.size if missing else 0,
        "later_ones_got": outcome.later,
        "cut_off": int(outcome.ended is not None),
        "missing_beside": outcome.beside_missing,
    } | (back or {})
    words = [f"{len(bulk):,} records of {outcome.size:,} B while it did not read ({due:,} were due)"]
    if not settled:
        words.append("it was still being served when the probe stopped waiting")
    words += _fate(outcome, back, watch)
    if not missing and len(bulk) * outcome.size < _HIDDEN_BYTES:
        words.append("that is so little that the kernel's buffers may have held it all")
    if outcome.beside_missing:
        words.append(f"the reader beside it missed {outcome.beside_missing:,}")
    if len(bulk) < 0.9 * due:
        words.append("fewer than were due: the publisher was held up, by the relay or by this machine")
    return ProbeAnswer(
        question="a reader that stops",
        said=_SAID[promises.tells_gaps],
        seen="; ".join(words) + ".",
        counts=counts,
        broken=_broken(promises, outcome, back),
        failed=missing > 0 and (outcome.stuck or not settled),
    )


def _fate(outcome: _Outcome, back: dict[str, int] | None, watch: _HangUp) -> list[str]:
    """Return what became of the reader and of its records."""
    place_bytes = outcome.prefix * outcome.size
    if outcome.ended:
        when = "" if watch.after_s is None else f" after {watch.after_s:.1f} s"
        hole = f", and {outcome.behind_hole:,} from behind a hole" if outcome.behind_hole else ""
        words = [
            (
                f"it was cut off{when} ({outcome.ended.rstrip('.')}) with {outcome.prefix:,} of them, the first"
                f" {place_bytes / 1e6:.1f} MB{hole}"
            )
        ]
        if back is not None:
            words.append(
                f"when it came back {back['replayed']:,} were replayed, {back['told_when_back']:,} were told to be gone,"
                f" {back['untold']:,} were missing in silence"
            )
        return words
    if outcome.stuck:
        return [f"its connection lived, but nothing came any more behind the first {outcome.prefix:,}"]
    if not outcome.missing:
        return ["everything was kept for it, and its connection lived"]
    return [
        (
            f"its connection lived, it got {outcome.prefix:,} and from byte {place_bytes:,} on missed"
            f" {len(outcome.missing):,}: {outcome.told:,} were told to be gone, {outcome.silent:,} were lost in silence"
        )
    ]


def _broken(promises: Promises, outcome: _Outcome, back: dict[str, int] | None) -> tuple[str, ...]:
    total = len(outcome.bulk)
    broken = []
    if promises.tells_gaps and outcome.silent:
        broken.append(f"{of(outcome.silent, total)} were lost in silence on a connection that lived")
    if promises.resumes and back is not None and back["untold"]:
        broken.append(f"{of(back['untold'], total)} were neither replayed nor told to be gone")
    if outcome.beside_missing:
        broken.append(f"{of(outcome.beside_missing, total)} never came to a reader that read all the time")
    return tuple(broken)


_SAID: Final = {True: "who cannot be given everything is told or cut off", False: "not told"}
