"""Faults of a real relay: kill -9 under load, a full disk, and the search for plaintext where none may be."""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nacl.secret import SecretBox
from processes import Closed, Member, RelayProcess, relay_process
from scripted import ALL, PUBLISH, SUBSCRIBE, capability_of, sealed_of, stream_key

from relay import wire
from relay.errors import Code

pytestmark = pytest.mark.process

KILLS = 20
WINDOW = 64


class Ledger:
    """What members were told of one stream: it must stay true for ever."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.epoch: int | None = None
        self.acknowledged: dict[int, int] = {}  # id -> number
        self.seen: dict[int, wire.Message] = {}  # number -> the record as it was delivered
        self.sent: dict[int, bytes] = {}
        self.next_id = 1

    def attached(self, subscribed: wire.Subscribed) -> None:
        assert self.epoch in (None, subscribed.epoch), "nothing was forgotten, so the epoch stays"
        self.epoch = subscribed.epoch
        assert subscribed.head >= max((*self.acknowledged.values(), *self.seen), default=0)

    def acknowledge(self, id_: int, seq: int) -> None:
        assert self.acknowledged.setdefault(id_, seq) == seq, "an id has one number"

    def see(self, message: wire.Message) -> None:
        assert self.seen.setdefault(message.seq, message) == message, "a number stands for one record, byte for byte"

    def unacknowledged(self) -> list[int]:
        return [id_ for id_ in self.sent if id_ not in self.acknowledged]


def publish_until_killed(port: int, ledger: Ledger, ready: threading.Barrier, problems: list[BaseException]) -> None:
    """First repeat what got no answer, then publish more, and note all that comes, until the relay is gone."""
    try:
        with Member(port) as author:
            subscribed = author.subscribe(ledger.index, SUBSCRIBE | PUBLISH)
            ledger.attached(subscribed)
            ready.wait()

            def publish(id_: int) -> None:
                author.send(wire.Publish(subscribed.number, wire.DURABLE, id_, bytes(32), ledger.sent[id_]))

            repeated = ledger.unacknowledged()
            waiting = len(repeated)
            try:
                for id_ in repeated:
                    publish(id_)
                while True:
                    while waiting < WINDOW:
                        id_ = ledger.next_id
                        ledger.next_id += 1  # before the sending, which may fail: an id never stands for two records
                        ledger.sent[id_] = sealed_of(id_, random.choice((256, 256, 4096)))
                        publish(id_)
                        waiting += 1
                    record = author.receive()
                    if isinstance(record, wire.Published):
                        for id_, seq in zip(record.acks[::2], record.acks[1::2], strict=True):
                            ledger.acknowledge(id_, seq)
                            waiting -= 1
                    else:
                        assert isinstance(record, wire.Message), record
                        ledger.see(record)
            except (Closed, OSError):
                return
    except BaseException as error:
        problems.append(error)


def check_everything(port: int, ledger: Ledger) -> None:
    """Read the whole stream: it has every record that was acknowledged or seen, once, under its number."""
    with Member(port) as reader:
        subscribed = reader.subscribe(ledger.index, SUBSCRIBE, member=2, after=0)
        ledger.attached(subscribed)
        assert subscribed.recovered
        found = reader.messages(subscribed.head)
    assert [message.seq for message in found] == list(range(1, subscribed.head + 1))
    for message in found:
        ledger.see(message)
    by_number = {message.seq: message.sealed for message in found}
    for id_, seq in ledger.acknowledged.items():
        assert by_number[seq] == ledger.sent[id_], f"id {id_} has number {seq}, but another content"
    assert len(set(by_number.values())) == len(by_number), "no record is there twice, however often it was repeated"
    assert set(by_number.values()) <= set(ledger.sent.values())


def test_kill_9_under_durable_load_twenty_times_in_a_row(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    moments = random.Random(seed)
    ledgers = [Ledger(index) for index in (1, 2, 3)]
    options = ("--store", f"sqlite:{tmp_path / 'relay.db'}")
    acknowledged = 0
    for _ in range(KILLS):
        relay = RelayProcess(*options)
        problems: list[BaseException] = []
        ready = threading.Barrier(len(ledgers) + 1)
        threads = [
            threading.Thread(target=publish_until_killed, args=(relay.port, ledger, ready, problems))
            for ledger in ledgers
        ]
        for thread in threads:
            thread.start()
        ready.wait(20)
        time.sleep(moments.uniform(0.0, 0.15))
        relay.kill()
        for thread in threads:
            thread.join(20)
        relay.close()
        assert not problems, f"seed {seed}: {problems!r}"
        acknowledged = sum(len(ledger.acknowledged) for ledger in ledgers)
    assert acknowledged > KILLS, "there was a load"
    with relay_process(*options) as relay:
        for ledger in ledgers:
            check_everything(relay.port, ledger)


# -- no space ----------------------------------------------------------------------------------------


class Disk:
    """A place for the store with little space, which can be made more."""

    def __init__(self, folder: Path, before: Callable[[], None] | None, more: Callable[[RelayProcess], None]) -> None:
        self.folder = folder
        self.before = before
        self.more = more


@pytest.fixture(params=["file size limit", "small file system"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    if request.param == "file size limit":
        small = 400_000

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (small, resource.RLIM_INFINITY))

        def lift(relay: RelayProcess) -> None:
            resource.prlimit(relay.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

        yield Disk(tmp_path, limit, lift)
        return
    mount = shutil.which("mount")
    small_folder = tmp_path / "small"
    small_folder.mkdir()
    command = [str(mount), "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(small_folder)]
    if mount is None or os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small file system; the file size limit was tested")

    def grow(_: RelayProcess) -> None:
        subprocess.run([str(mount), "-o", "remount,size=64m", str(small_folder)], check=True)

    try:
        yield Disk(small_folder, None, grow)
    finally:
        subprocess.run(["umount", str(small_folder)], check=True)


def test_a_full_disk_is_told_and_service_goes_on_when_there_is_space(disk: Disk) -> None:
    options = ("--store", f"sqlite:{disk.folder / 'relay.db'}")
    acknowledged: dict[int, int] = {}

    def publish(author: Member, number: int, id_: int) -> int | None:
        """Return the number that the record got, None if the store refused it."""
        author.send(wire.Publish(number, wire.DURABLE, id_, None, sealed_of(id_, 4096)))
        answer = author.receive()
        if isinstance(answer, wire.Error):
            assert answer in (wire.Error(Code.STORE, 4, id_), wire.Error(Code.FULL, 4, id_))
            return None
        assert isinstance(answer, wire.Published)
        assert answer.acks[0] == id_
        return answer.acks[1]

    with relay_process(*options, before=disk.before) as relay, Member(relay.port) as author:
        number = author.subscribe(1, PUBLISH).number
        id_, refusals = 1, 0
        while refusals < 5:  # After a refusal the store may find space that it had used for itself.
            seq = publish(author, number, id_)
            if seq is None:
                refusals += 1
            else:
                acknowledged[id_] = seq
                id_, refusals = id_ + 1, 0
            assert id_ < 1000, "the disk is not small"
        refused = id_
        assert len(acknowledged) > 10
        with Member(relay.port) as reader:
            head = reader.subscribe(1, SUBSCRIBE, member=2, after=0).head
            assert head == len(acknowledged), "what was refused has no number"
            assert [message.seq for message in reader.messages(head)] == list(acknowledged.values())
            reader.send(wire.Time(1))
            reader.expect(wire.Timed)
        assert relay.metrics()["relay_commit_failures_total"] + relay.metrics()["relay_store_full_runs_total"] >= 5
        disk.more(relay)
        for id_ in range(refused, refused + 200):
            seq = publish(author, number, id_)
            assert seq == len(acknowledged) + 1
            acknowledged[id_] = seq
        assert "Traceback" not in relay.log()
    with relay_process(*options) as relay, Member(relay.port) as reader:
        head = reader.subscribe(1, SUBSCRIBE, member=2, after=0).head
        messages = reader.messages(head)
        assert [(m.seq, m.sealed) for m in messages] == [(seq, sealed_of(i, 4096)) for i, seq in acknowledged.items()]


# -- the store under a running relay -----------------------------------------------------------------


def test_a_removed_database_is_told_and_nothing_more_is_acknowledged(tmp_path: Path) -> None:
    with relay_process("--store", f"sqlite:{tmp_path / 'relay.db'}") as relay, Member(relay.port) as author:
        number = author.subscribe(1, PUBLISH).number
        assert relay.page("/readyz") == "ready\n"
        (tmp_path / "relay.db").unlink()
        answer: object = None
        for id_ in range(10_000):  # for a second at most it is not noticed
            author.send(wire.Publish(number, wire.DURABLE, id_, None, sealed_of(id_)))
            answer = author.receive()
            if isinstance(answer, wire.Error):
                break
        assert isinstance(answer, wire.Error)
        assert answer.code == Code.STORE
        assert relay.metrics()["relay_ready"] == 0
        with pytest.raises(urllib.error.HTTPError, match="503"):
            relay.page("/readyz")
        assert "a file of the store was removed, moved or replaced" in relay.log()


def test_a_damaged_record_is_a_gap_and_the_end_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    with relay_process("--store", f"sqlite:{path}") as relay, Member(relay.port) as author:
        number = author.subscribe(1, PUBLISH).number
        for id_ in range(1, 6):
            author.send(wire.Publish(number, wire.DURABLE, id_, None, sealed_of(id_)))
            assert author.receive() == wire.Published([id_, id_])
    content = path.read_bytes()
    at = content.index(sealed_of(3)[:10]) + 100
    path.write_bytes(content[: at + 30] + bytes((content[at + 30] ^ 1,)) + content[at + 31 :])
    with (
        relay_process("--store", f"sqlite:{path}") as relay,
        Member(relay.port) as reader,
        Member(relay.port) as other,
    ):
        subscribed = reader.subscribe(1, ALL, member=2, after=0)
        assert [message.seq for message in reader.messages(2)] == [1, 2]
        assert reader.expect(wire.Gap) == wire.Gap(subscribed.number, 3, 3)
        assert [message.seq for message in reader.messages(2)] == [4, 5]
        seqs: list[int] = []
        more = True
        while more:
            reader.send(wire.Export(subscribed.number, seqs[-1] if seqs else 0))
            page = reader.next(wire.Exported)
            seqs += [record.seq for record in page.records]
            more = page.more
        assert seqs == [1, 2, 4, 5]
        assert other.subscribe(2, SUBSCRIBE, member=2).head == 0
        assert relay.metrics()["relay_store_damaged_rows_total"] == 1


# -- plaintext ---------------------------------------------------------------------------------------

CANARY = b"canary-5c1d77e0b2"


def test_a_canary_in_every_plaintext_is_found_nowhere(tmp_path: Path) -> None:
    box = SecretBox(b"k" * 32)
    path = tmp_path / "relay.db"

    def sealed() -> bytes:
        plaintext = CANARY * 20
        return b"\x01\x01" + box.encrypt(plaintext[: 256 - 2 - 40])

    capabilities = [capability_of(1, member) for member in (1, 2)]
    with relay_process("--store", f"sqlite:{path}", "--echo") as relay:
        with Member(relay.port) as author, Member(relay.port) as reader:
            number = author.subscribe(1, ALL).number
            reader.subscribe(1, SUBSCRIBE, member=2)
            for id_ in range(200):
                author.send(wire.Publish(number, 0, id_, bytes(32), sealed()))
                author.send(wire.Publish(number, 1, id_, None, sealed()))
            opened = [box.decrypt(message.sealed[2:]) for message in reader.messages(200)]
            assert all(CANARY in plaintext for plaintext in opened), "the load did hold it"
            author.send(wire.Export(number, 0))
            assert len(author.next(wire.Exported).records) == 200
        # Those who send plaintext by mistake are refused, and it is not kept either.
        with Member(relay.port) as careless:
            number = careless.subscribe(1, PUBLISH).number
            careless.send(wire.Publish(number, 0, 1, None, CANARY * 20))
            assert careless.expect(wire.Error).code == Code.SEALED_SIZE
            careless.send(wire.Publish(number, 0, 1, None, (CANARY * 20)[:256]))
            assert careless.expect(wire.Error).code == Code.SEALED_FORM
            careless.give(CANARY, 1)
            assert careless.closed() == 4014
        told = relay.page("/metrics").encode()
        places = {name.name: name.read_bytes() for name in tmp_path.iterdir()}
        assert f"{path.name}-wal" in places
        assert any(b"\x01\x01" in data for data in places.values())
        relay.terminate()
        assert relay.end() == 0
        logged = relay.log().encode()
    places |= {f"after {name.name}": name.read_bytes() for name in tmp_path.iterdir()}
    for place, data in (*places.items(), ("metrics", told), ("log", logged)):
        for form in (CANARY, CANARY[::-1], CANARY.hex().encode(), CANARY.upper()):
            assert form not in data, place
    stream = bytes(stream_key(1).verify_key)
    for place, data in (("metrics", told), ("log", logged)):
        for secret in (stream, stream.hex().encode(), b"127.0.0.1", *(c.hex().encode() for c in capabilities)):
            assert secret not in data, place
