"""Kills, power cuts and flipped bits for the SQLite store.

    python tests/relay/torture_store.py [--kills 100] [--cuts 25] [--flips 200] [--seed N]

After each the store is opened again. It must come up; what was acknowledged must be there, byte for byte, after kills and
cuts; what is served must be what was stored; and no number may be given twice in an epoch. Prints what was seen, and the
seed; exit code 1 if something was not so.
"""

# ruff: noqa: T201 - a program, which prints

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from power import files_after_a_cut, recording

from relay.errors import ConfigurationError, StoreUnavailable
from relay.store import Batch, Record, SqliteStore, StreamState, run_of

STREAMS = 6
NAME = "relay.db"
PLENTY = 1 << 30
SECRET = bytes(32)


class Wrong(AssertionError):
    """A promise was broken."""


def key_of(index: int) -> bytes:
    return bytes([65 + index]) * 32


def frame_of(index: int, seq: int) -> bytes:
    """Return the frame that this record of this stream has, whenever it is made."""
    return random.Random(f"{index} {seq}").randbytes(280 + 40 * (seq % 7))


def made(index: int, first: int, count: int) -> list[Record]:
    return [
        Record(seq, 1_000, index.to_bytes(16, "big"), seq, frame_of(index, seq)) for seq in range(first, first + count)
    ]


@dataclass
class Ledger:
    """What was acknowledged: the epoch and the head of each stream."""

    epochs: dict[int, int] = field(default_factory=dict)
    heads: dict[int, int] = field(default_factory=dict)


def opened(store: SqliteStore, index: int, epoch: int = 7) -> StreamState:
    return store.open(key_of(index), new_epoch=epoch, recent_max=256)


def publish(store: SqliteStore, chance: random.Random, ledger: Ledger) -> None:
    """Commit a batch for some streams, and note it when it is acknowledged."""
    batch = Batch()
    heads = {}
    for index in chance.sample(range(STREAMS), chance.randint(1, 3)):
        state = opened(store, index)
        records = made(index, state.head + 1, chance.randint(1, 4))
        batch.runs.append((state.number, run_of(records)))
        batch.acks.append((state.number, b"m" * 16, state.head))
        heads[index] = records[-1].seq
    committed = store.commit(batch)
    if committed.full or committed.damaged:
        raise Wrong(f"not taken: {committed}")
    ledger.heads |= heads


def served(store: SqliteStore, index: int, state: StreamState) -> int:
    """Read a whole stream as a client would; return how many of its records came. What comes must be what was stored."""
    count = after = 0
    while found := store.read(state.number, after, 4_000):
        for record in found:
            if record != made(index, record.seq, 1)[0]:
                raise Wrong(f"record {record.seq} was served altered")
            if record.seq <= after:
                raise Wrong("a record came twice")
            after = record.seq
            count += 1
    return count


def check_whole(path: Path, ledger: Ledger) -> None:
    """Nothing acknowledged is lost, and no epoch has changed."""
    store = SqliteStore(path, secret_if_new=SECRET)
    try:
        for index, head in ledger.heads.items():
            state = opened(store, index, 99)
            if state.epoch != ledger.epochs.setdefault(index, state.epoch):
                raise Wrong("an epoch changed though nothing was lost")
            if state.head < head or served(store, index, state) != state.head:
                raise Wrong(f"acknowledged up to {head}, held up to {state.head}")
            ledger.heads[index] = state.head
        if store.statistics().damaged:
            raise Wrong("damage was seen where there is none")
    finally:
        store.close()


# -- kill -9 -----------------------------------------------------------------------------------------


def write_until_killed(path: Path, seed: int) -> None:
    chance = random.Random(seed)
    store = SqliteStore(path, secret_if_new=SECRET, wal_bytes_max=100_000)
    while True:
        ledger = Ledger()
        publish(store, chance, ledger)
        print(json.dumps(ledger.heads), flush=True)


def kill(directory: Path, chance: random.Random, ledger: Ledger) -> None:
    """Let a process write, kill it, and look at what it left."""
    path = directory / NAME
    command = [sys.executable, __file__, "--write", str(path), "--seed", str(chance.getrandbits(32))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = process.stdout.readline()
        time.sleep(chance.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        for line in [told, *process.stdout]:
            if line.endswith("\n"):
                ledger.heads |= {int(index): head for index, head in json.loads(line).items()}
    check_whole(path, ledger)


# -- power cuts --------------------------------------------------------------------------------------


def cut(directory: Path, chance: random.Random, cuts: int, commits: int = 60) -> int | None:
    """Cut the power at random moments of one life of a store; None where writes cannot be noted."""
    path = directory / NAME
    ledgers = []
    with recording() as recorder:
        if recorder is None:
            return None
        store = SqliteStore(path, secret_if_new=SECRET, wal_bytes_max=20_000)
        ledger = Ledger()
        begin = len(recorder.events)
        for _ in range(commits):
            publish(store, chance, ledger)
            ledgers.append((len(recorder.events), Ledger(dict(ledger.epochs), dict(ledger.heads))))
        events = list(recorder.events)
        store.close()
    for number in range(cuts):
        moment = chance.randint(begin, len(events))
        place = directory / f"cut{number}"
        place.mkdir()
        for name, content in files_after_a_cut(events[:moment], chance).items():
            if name in (NAME, f"{NAME}-wal"):
                (place / name).touch(0o600)
                (place / name).write_bytes(content)
        acknowledged = [ledger for at, ledger in ledgers if at <= moment]
        check_cut(place / NAME, acknowledged[-1] if acknowledged else Ledger())
    return cuts


def check_cut(path: Path, ledger: Ledger) -> None:
    # The file is another than the one that was cut, and is taken for a copy: its epochs are new, as they should be.
    store = SqliteStore(path, secret_if_new=SECRET)
    try:
        if any("damaged" in notice for notice in store.notices()):
            raise Wrong("a log that was cut short was taken for a damaged one")
        for index in range(STREAMS):
            state = opened(store, index, 99)
            if state.head < ledger.heads.get(index, 0) or served(store, index, state) != state.head:
                raise Wrong(f"acknowledged up to {ledger.heads.get(index)}, held up to {state.head}")
        publish(store, random.Random(1), Ledger())
        if store.statistics().damaged:
            raise Wrong("damage was seen where there is none")
    finally:
        store.close()


# -- flipped bits ------------------------------------------------------------------------------------


def aged(directory: Path, chance: random.Random) -> Ledger:
    """Make the files of a store that was killed: most of it in the database, some in the log."""
    path = directory / NAME
    ledger = Ledger()
    store = SqliteStore(path, secret_if_new=SECRET, wal_bytes_max=60_000)
    for _ in range(120):
        publish(store, chance, ledger)
    ledger.epochs = {index: opened(store, index).epoch for index in range(STREAMS)}
    for name in (NAME, f"{NAME}-wal"):
        (directory / f"{name}.killed").write_bytes((directory / name).read_bytes())
    store.close()
    return ledger


def flip(directory: Path, chance: random.Random, ledger: Ledger) -> str:
    """Flip one bit of the files of a killed store, open it, read and write all streams. Returns what became of it."""
    path = directory / NAME
    contents = {}
    for name in (NAME, f"{NAME}-wal"):
        contents[name] = bytearray((directory / f"{name}.killed").read_bytes())
    place = chance.randrange(8 * sum(map(len, contents.values())))
    for name, content in contents.items():
        if 0 <= place < 8 * len(content):
            content[place // 8] ^= 1 << place % 8
        place -= 8 * len(content)
        (directory / name).touch(0o600)
        (directory / name).write_bytes(content)
    (directory / f"{NAME}-shm").unlink(missing_ok=True)
    try:
        store = SqliteStore(path, secret_if_new=SECRET)
    except ConfigurationError as error:
        return f"refused: {str(error).replace(str(path), 'it')}"
    try:
        seen = set()
        for index in range(STREAMS):
            try:
                seen.add(use(store, index, ledger))
            except StoreUnavailable:
                seen.add("a stream is out of service")
        damaged = store.statistics().damaged
        if seen == {"whole"} and damaged:
            return "noticed, nothing lost"
        return next((one for one in OUTCOMES if one in seen), "whole")
    finally:
        store.close()


OUTCOMES = ("a stream is out of service", "new epoch", "gap")


def use(store: SqliteStore, index: int, ledger: Ledger) -> str:
    state = opened(store, index, 99)
    count = served(store, index, state)
    renewed = state.epoch != ledger.epochs[index]
    if not renewed and state.head < ledger.heads[index]:
        raise Wrong(f"numbers up to {ledger.heads[index]} were given, and those after {state.head} are given again")
    committed = store.commit(Batch(runs=[(state.number, run_of(made(index, state.head + 1, 1)))]))
    if committed.damaged:
        return "a stream is out of service"
    if not committed.full and [r.seq for r in store.read(state.number, state.head, 1)] != [state.head + 1]:
        raise Wrong("what was committed cannot be read")
    return "new epoch" if renewed else "gap" if count < state.head else "whole"


# -- all of it ---------------------------------------------------------------------------------------


def torture(directory: Path, seed: int, *, kills: int, cuts: int, flips: int) -> dict[str, object]:
    """Do all of it; raises Wrong."""
    chance = random.Random(seed)
    for name in ("kills", "cuts", "flips"):
        (directory / name).mkdir()
    ledger = Ledger()
    for _ in range(kills):
        kill(directory / "kills", chance, ledger)
    was_cut = cut(directory / "cuts", chance, cuts) if cuts else 0
    outcomes: Counter[str] = Counter()
    if flips:
        ledger_of_flips = aged(directory / "flips", chance)
        for _ in range(flips):
            outcomes[flip(directory / "flips", chance, ledger_of_flips)] += 1
    return {
        "kills": kills,
        "acknowledged": sum(ledger.heads.values()),
        "cuts": "cannot be noted with this SQLite" if was_cut is None else was_cut,
        "flips": dict(outcomes),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("kills", 100), ("cuts", 25), ("flips", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write_until_killed(options.write, options.seed)
    with tempfile.TemporaryDirectory(prefix="relaymark-torture-") as directory:
        try:
            seen = torture(Path(directory), options.seed, kills=options.kills, cuts=options.cuts, flips=options.flips)
        except Wrong as wrong:
            print(f"wrong, with --seed {options.seed}: {wrong}", file=sys.stderr)
            return 1
    print(json.dumps({"seed": options.seed, **seen}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
