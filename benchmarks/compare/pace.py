"""How long deliveries take at a fixed offered load: open loop, from the intended send, every record opened and entered.

Publishes go out by a seeded Poisson schedule, whatever the relay does. A record is sealed when it is sent; its stamp
carries when that was due and when it was. Whatever is ready is first read, each read with its time, and only then parsed
and opened, so that opening one record does not make the next one late. Sockets, clock and ledger are in one process:
there is no clock error, and what the load itself adds is the same for every relay.
"""

from __future__ import annotations

import select
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Final

import numpy as np
from msgspec import Struct

from benchmarks.compare.links import Link, LoadError, MakeDialect, attach_of, joined
from benchmarks.compare.workload import SUBSCRIBERS, keyring, schedule
from benchmarks.rig.processes import Cores, Server
from benchmarks.rig.usage import Meter, no_collections
from loadtests.accounting.ledger import Account, Ledger
from loadtests.accounting.settlement import Totals
from loadtests.dialects.base import Delivered, Published, Unsubscribed
from loadtests.driver.timerfd import TimerFd
from loadtests.measuring.histogram import Histogram
from loadtests.sealing.envelope import Opener, OpenError, Suite
from loadtests.sealing.records import Kind
from relay.capability import Right

_BODY: Final = b"relaymark compares sealed work. " * 3
WARMUP_SHARE: Final = 0.2
"""The first part of the schedule is sent and accounted for, but not timed: caches and connections are cold."""
LEAD_NS: Final = 20_000_000
DRAIN_S_MAX: Final = 10.0
QUIET_S: Final = 2.0


class Pace(Struct, frozen=True, kw_only=True):
    """One measurement. `deliver` from the intended send, `deliver_sent` from the actual one; `lag`: how late sends were.

    Processor shares are of one core, over the load; `cpu_ns_per_delivery` is the relay's.
    """

    deliver: Histogram
    deliver_sent: Histogram
    ack: Histogram
    lag: Histogram
    totals: Totals
    due: int
    sent: int
    acknowledged: int
    sealed_bytes: int
    elapsed_ns: int
    cpu_ns_per_delivery: float
    server_ns: int
    server_cpu: float
    load_cpu: float
    others_cpu: float


def pace(server: Server, make: MakeDialect, cores: Cores, *, seed: int, publishes_per_s: float, seconds: float) -> Pace:
    """Offer the load for so long. Raises LoadError."""
    keys = keyring(seed, "pace")
    members = [
        attach_of(keys, stream, right)
        for right in (Right.SUBSCRIBE, Right.PUBLISH)
        for stream, subscribers in enumerate(SUBSCRIBERS)
        for _ in range(subscribers if right is Right.SUBSCRIBE else 1)
    ]
    due = schedule(seed, publishes_per_s, seconds * (1 + WARMUP_SHARE))
    with joined(server, make, members) as links, no_collections():
        subscribers, publishers = links[: -len(SUBSCRIBERS)], links[-len(SUBSCRIBERS) :]
        ledger = Ledger()
        run = _Run(ledger, subscribers, publishers, seed)
        with closing(run):
            warm = next((at for at, (offset_ns, _) in enumerate(due) if offset_ns >= seconds * WARMUP_SHARE * 1e9), 0)
            timed_from_ns = due[warm][0] if due else 0
            start_ns = time.monotonic_ns() + LEAD_NS
            run.offer(due[:warm], start_ns)
            meter, before_delivered = Meter(cores, server.pid), run.delivered
            run.timed_from_ns = start_ns + timed_from_ns
            run.offer(due[warm:], start_ns)
            run.drain()
            usage = meter.read()
            delivered = run.delivered - before_delivered
            run.finish()
    log = ledger.sent_log()
    if not delivered:
        raise LoadError("nothing was delivered")
    return Pace(
        deliver=_histogram(run.deliver),
        deliver_sent=_histogram(run.deliver_sent),
        ack=_histogram(run.ack),
        lag=_histogram(run.lag),
        totals=ledger.settle(log.finals()).totals(log),
        due=len(due),
        sent=run.sent,
        acknowledged=run.acknowledged,
        sealed_bytes=run.sealed_bytes,
        elapsed_ns=usage.elapsed_ns,
        cpu_ns_per_delivery=usage.server_ns / delivered,
        server_ns=usage.server_ns,
        server_cpu=usage.server,
        load_cpu=usage.load,
        others_cpu=usage.others,
    )


def _histogram(values: array[int]) -> Histogram:
    histogram = Histogram()
    histogram.record_many(np.frombuffer(values, np.int64))
    return histogram


class _Run:
    """The connections of one measurement, and what came of it."""

    def __init__(self, ledger: Ledger, subscribers: Sequence[Link], publishers: Sequence[Link], seed: int) -> None:
        keys = keyring(seed, "pace")
        self._ledger = ledger
        self._links = {link.socket.fileno(): link for link in (*subscribers, *publishers)}
        self._publishers = publishers
        self._accounts: dict[int, Account] = {}
        for recipient, link in enumerate(subscribers, start=len(publishers)):
            assert link.joined is not None
            account = ledger.account(recipient, link.stream, echo=False)
            account.joined(link.joined.epoch, link.joined.head, None, from_start=True)
            self._accounts[link.socket.fileno()] = account
        streams = range(len(SUBSCRIBERS))
        self._sealers = [keys.sealer(Suite.SENDER_KEY, stream, stream) for stream in streams]
        self._openers = [keys.opener(Suite.SENDER_KEY, stream, len(streams)) for stream in streams]
        self._sent_ns: dict[int, int] = {}  # id -> actual send, until it is acknowledged
        self._id = 0
        self.sent = self.acknowledged = self.delivered = self.sealed_bytes = 0
        self._expected = 0
        self._due: Iterator[tuple[int, int]] = iter(())
        self._next: tuple[int, int] | None = None
        self._left = 0
        self.timed_from_ns = 2**62
        """Intended sends from then on are timed."""
        self.deliver, self.deliver_sent, self.ack, self.lag = array("q"), array("q"), array("q"), array("q")
        self._timer = TimerFd()
        self._epoll = select.epoll()
        self._epoll.register(self._timer.fd, select.EPOLLIN)
        for descriptor in self._links:
            self._epoll.register(descriptor, select.EPOLLIN)

    def close(self) -> None:
        self._epoll.close()
        self._timer.close()

    def offer(self, due: Sequence[tuple[int, int]], start_ns: int) -> None:
        """Publish each (offset in ns, stream) at its time after `start_ns`."""
        self._due = iter([(start_ns + offset_ns, stream) for offset_ns, stream in due])
        self._next = next(self._due, None)
        while self._next is not None:
            self._timer.arm(self._next[0])
            self._wait(1.0)

    def _publish_due(self) -> None:
        while self._next is not None and self._next[0] <= (now_ns := time.monotonic_ns()):
            intended_ns, stream = self._next
            self._next = next(self._due, None)
            self._publish(stream, intended_ns, now_ns)

    def drain(self) -> None:
        """Wait until everything has come, or nothing comes any more."""
        changed = time.monotonic()
        deadline = changed + DRAIN_S_MAX
        while (now := time.monotonic()) < min(deadline, changed + QUIET_S):
            if self.delivered >= self._expected and not self._sent_ns:
                break
            before = self.delivered + self.acknowledged
            self._wait(0.05)
            if self.delivered + self.acknowledged != before:
                changed = now
        self._ledger.drained()

    def finish(self) -> None:
        """Leave the streams, so that relays with numbers tell how many there were, and close the accounts."""
        members = [(descriptor, self._links[descriptor]) for descriptor in self._accounts]
        for _, link in members:
            link.send(link.dialect.unsubscribe(link.stream))
        deadline = time.monotonic() + DRAIN_S_MAX
        while self._left < len(members) and time.monotonic() < deadline:
            self._wait(0.05)
        for account in self._accounts.values():
            if not account.closed:
                account.finished(None)

    def _publish(self, stream: int, intended_ns: int, now_ns: int) -> None:
        counter = self._ledger.sent(stream, stream, Kind.MESSAGE)
        sealed = self._sealers[stream].seal(Kind.MESSAGE, counter, intended_ns, now_ns, _BODY)
        self._id += 1
        link = self._publishers[stream]
        link.send(link.dialect.publish(stream, self._id, sealed))
        self._sent_ns[self._id] = now_ns
        self.sent += 1
        self.sealed_bytes += len(sealed)
        self._expected += SUBSCRIBERS[stream]
        if intended_ns >= self.timed_from_ns:
            self.lag.append(now_ns - intended_ns)

    def _wait(self, seconds: float) -> None:
        """Read everything that is ready, then make sense of it."""
        read: list[tuple[int, Link, bytes, int]] = []
        clock, links = time.monotonic_ns, self._links
        for descriptor, _ in self._epoll.poll(seconds, len(links) + 1):
            link = links.get(descriptor)
            if link is None:
                self._timer.expirations()
            else:
                read.append((descriptor, link, link.read(), clock()))
        self._publish_due()
        for descriptor, link, data, now_ns in read:
            self._take(descriptor, link, data, now_ns)
            # Opening the records of a large room is not to make the next send late.
            self._publish_due()

    def _take(self, descriptor: int, link: Link, data: bytes, now_ns: int) -> None:
        account, opener = self._accounts.get(descriptor), self._openers[link.stream]
        for event in link.dialect.receive(data):
            if type(event) is tuple:
                if account is None:
                    raise LoadError("the relay sent a record to a publisher, which subscribes to nothing")
                self._delivered(event, account, opener, now_ns)  # type: ignore[arg-type]  # the only plain tuple
            elif isinstance(event, Published):
                sent_ns = self._sent_ns.pop(event.id, None)
                if sent_ns is None:
                    raise LoadError(f"the relay acknowledged {event.id}, which was not under way")
                self.acknowledged += 1
                self.ack.append(now_ns - sent_ns)
            elif isinstance(event, Unsubscribed) and account is not None:
                account.finished(event.head)
                self._left += 1
            else:
                link.other(event)
        if link.waiting:
            link.send(b"")

    def _delivered(self, event: Delivered, account: Account, opener: Opener, now_ns: int) -> None:
        try:
            stamp = opener.stamp(event[3])
        except OpenError as error:
            raise LoadError(f"a record cannot be opened: {error}") from None
        if account.record(event[1], stamp, now_ns):
            self.delivered += 1
            if stamp.intended_ns >= self.timed_from_ns:
                self.deliver.append(now_ns - stamp.intended_ns)
                self.deliver_sent.append(now_ns - stamp.sent_ns)
