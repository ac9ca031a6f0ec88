"""What who comes back gets: after a cut of its line, after a restart of the relay, after its sudden death."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Final, Protocol

from loadtests.address import Address, TargetError
from loadtests.probing.exchange import ANSWER_S_MAX, Exchange, Trouble
from loadtests.probing.findings import ProbeAnswer, not_asked, of
from loadtests.probing.line import Line
from loadtests.probing.publishing import Publishing
from loadtests.settings import Settings
from loadtests.target.target import Promises

BEFORE: Final = 20
AWAY: Final = 100
LOAD_S: Final = 1.0
RATE: Final = 2_000.0
SIZE: Final = 256
"""So that what is published in LOAD_S is well below what a memory store keeps of a stream."""
_BACK_S_MAX: Final = 10.0


class Restartable(Protocol):
    """A relay that was started here."""

    def stop(self) -> int | None: ...

    def kill(self) -> None: ...

    def start(self) -> Address: ...


def cut(settings: Settings, promises: Promises) -> ProbeAnswer:
    """Cut a reader's line, publish meanwhile, and let it come back."""
    with Exchange(settings) as exchange:
        features = exchange.features
        (reader, beside) = exchange.reader(2)
        line, _ = exchange.publisher()
        publishing = Publishing(exchange, [line], beside)
        publishing.send(BEFORE)
        exchange.until(lambda: len(reader.came) >= BEFORE)
        had = {one.record.id for one in reader.came}
        last = max((one.seq for one in reader.came if one.seq is not None), default=None)
        reader.cut()
        publishing.send(AWAY)
        epoch = reader.subscribed.epoch if reader.subscribed else None
        back = exchange.back(reader, after=last, epoch=epoch) if features.resumes else exchange.back(reader)
        publishing.send(BEFORE)
        exchange.until(lambda: len(back.came) >= AWAY + BEFORE, 1.0 if features.resumes else 0.2)
        exchange.hear_out(back, 0.5, ANSWER_S_MAX)
    away = {record.id for record in publishing.sent[BEFORE : BEFORE + AWAY]}
    got = [one.record.id for one in back.came]
    replayed = len(away & set(got))
    told = sum(gap.last - gap.first + 1 for gap in back.gaps)
    missing = AWAY - replayed
    repeated = sum(id_ in had for id_ in got) + len(got) - len(set(got))
    disorder = sum(second < first for first, second in pairwise(got))
    counts = {"away": AWAY, "replayed": replayed, "told": told, "missing": missing, "repeated": repeated}
    counts["out_of_order"] = disorder
    if not features.resumes:
        return ProbeAnswer(
            question="resume after a cut",
            said=promises.resume,
            seen=f"its dialect cannot ask for it; of {AWAY} records while away {replayed} came by themselves.",
            counts=counts,
        )
    words = f"of {AWAY} records while away {replayed} were replayed and {told} told to be gone"
    words += f"; {repeated} came twice, {disorder} out of order"
    broken = []
    if promises.resumes and missing:
        broken.append(f"{of(missing, AWAY)} records of the time away did not come")
    if promises.ordered != "none" and disorder:
        broken.append(f"{disorder} records came out of order after the return")
    return ProbeAnswer(
        question="resume after a cut", said=promises.resume, seen=words + ".", counts=counts, broken=tuple(broken)
    )


def restart(settings: Settings, promises: Promises, relay: Restartable | None, *, kill: bool) -> ProbeAnswer:
    """End the relay under load, start it again, and tell what is left of what it had acknowledged."""
    name = "kill -9 under load" if kill else "restart under load"
    said = promises.durability
    if relay is None:
        return not_asked(name, said, "only a relay that is started here is ended.")
    with Exchange(settings) as exchange:
        if not (exchange.features.resumes and exchange.features.acknowledges):
            return not_asked(name, said, "its dialect cannot ask for what was published before.")
        (reader,) = exchange.reader()
        line, _ = exchange.publisher()
        publishing = Publishing(exchange, [line], reader)
        epoch = reader.subscribed.epoch if reader.subscribed else None
        publishing.send_for(LOAD_S, rate=RATE, size=SIZE, each_turn=lambda: None)
        # Some are still under way here: the end comes in the middle of the load.
        line.publish(*(exchange.record() for _ in range(16)))
        _end(exchange, relay, kill)
        exchange.until(lambda: line.ended is not None)  # what it sent before its end counts
        exchange.moved(relay.start().url)
        back = _returned(exchange, reader, epoch)
        exchange.hear_out(back, 0.5, _BACK_S_MAX)
        numbers = _number_again(exchange, line, reader)
    return _left(name, promises, kill, line, back, epoch, numbers)


def _end(exchange: Exchange, relay: Restartable, kill: bool) -> None:
    """End the relay while we go on listening: it may wait until its clients have gone."""
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(relay.kill if kill else relay.stop)
        while not ended.done():
            exchange.turn()
        ended.result()


def _returned(exchange: Exchange, reader: Line, epoch: int | None) -> Line:
    """Return the reader's new connection, resumed from the very beginning; a relay may take a moment to serve."""
    end_s = time.monotonic() + _BACK_S_MAX
    while True:
        try:
            return exchange.back(reader, after=0, epoch=epoch)
        except (Trouble, TargetError):
            if time.monotonic() > end_s:
                raise
            time.sleep(0.1)


def _number_again(exchange: Exchange, line: Line, reader: Line) -> int | None:
    """Return the number that the first record after the restart gets."""
    new = exchange.back(line)
    record = exchange.record()
    new.publish(record)
    exchange.until(lambda: record.id in new.acknowledged or new.ended is not None)
    return new.acknowledged[record.id][0] if record.id in new.acknowledged else None


def _left(
    name: str, promises: Promises, kill: bool, line: Line, back: Line, epoch: int | None, number: int | None
) -> ProbeAnswer:
    seqs = {id_: seq for id_, (seq, _) in line.acknowledged.items()}
    got = {one.record.id: one.seq for one in back.came}
    acknowledged, left = len(seqs), sum(id_ in got for id_ in seqs)
    renumbered = sum(id_ in got and got[id_] != seq for id_, seq in seqs.items())
    told = sum(
        id_ not in got and seq is not None and any(gap.first <= seq <= gap.last for gap in back.gaps)
        for id_, seq in seqs.items()
    )
    forgot = back.subscribed is not None and back.subscribed.epoch != epoch
    silent = 0 if forgot else acknowledged - left - told
    highest = max((seq for seq in seqs.values() if seq is not None), default=0)
    again = int(number is not None and not forgot and number <= highest)
    counts = {
        "acknowledged": acknowledged,
        "left": left,
        "told": told,
        "lost_in_silence": silent,
        "renumbered": renumbered,
        "new_epoch": int(forgot),
        "number_given_again": again,
    }
    words = [f"{of(left, acknowledged)} acknowledged records were left"]
    if left < acknowledged:
        words.append("a new epoch tells it" if forgot else f"{told:,} told to be gone, {silent:,} lost in silence")
    if renumbered:
        words.append(f"{renumbered:,} had other numbers")
    if again:
        words.append("a number that a lost record had was given again in the same epoch")
    broken = []
    if promises.survives == "kill" or (promises.survives == "restart" and not kill):
        if left < acknowledged:
            broken.append(f"{of(acknowledged - left, acknowledged)} acknowledged records were gone")
    elif promises.tells_gaps and silent:
        broken.append(f"{of(silent, acknowledged)} acknowledged records were gone without a word")
    return ProbeAnswer(
        question=name, said=promises.durability, seen="; ".join(words) + ".", counts=counts, broken=tuple(broken)
    )
