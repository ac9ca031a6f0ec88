"""Latency of private chats with and without a big room beside them on the same server.

Private chats: pairs, each with an open-loop Poisson schedule, seen by this process. The room's subscribers belong to a
process of their own, of the idle scheduling class, that drains them in bulk on a timer: both share the load's core,
and the room's drain must not stand in the way of a private chat's arrival, or the figure would be the load's own
queueing. Three phases a round, on one server: without the room, with it, without it again; the first and the third
compared with each other tell what the figure's noise is.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Final, TypeAlias

from benchmarks.fast_load.clients import ClientSide, Role
from benchmarks.fast_load.connections import Opened, connections
from benchmarks.fast_load.counting import READ_BYTES_MAX, CountingError
from benchmarks.fast_load.private_chats import ARRIVE_S_MAX, PAIRS, Latency, private_chats, schedule
from benchmarks.rig.processes import Cores, Server
from benchmarks.rig.usage import Meter

ROOM_SUBSCRIBERS: Final = 5_000
ROOM_PER_S: Final = 20.0
_ROOM_STREAM: Final = PAIRS
WARMUP_S: Final = 0.5
DRAIN_EVERY_S: Final = 0.005
"""Well before the kernel's delayed acknowledgement (40 ms): see DELAYED_ACKS_MAX."""
DELAYED_ACKS_MAX: Final = 0.05
"""The share of the room's deliveries that may be acknowledged by a timer. On one machine that timer runs on the server's core,
thousands at a time, 1 to 2 ms at a stretch: with more of them the p99 is that of the load's kernel, not the relay's."""
_EVENTS_AT_ONCE: Final = 64
"""A larger poll keeps the kernel busy for long enough to delay the private chats' process."""
_PR_SET_TIMERSLACK: Final = 29


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomLoad:
    """What the room's process did while the second phase ran."""

    published: int
    acknowledged: int
    delivered: int
    subscribers: int
    per_s: float
    lag_max_ns: int
    delayed_acks: int
    """TCP acknowledgements sent by a timer meanwhile, on this machine."""

    @property
    def late_share(self) -> float:
        """Delayed acknowledgements by delivery."""
        return self.delayed_acks / self.delivered


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """One round."""

    before: Latency
    beside: Latency
    after: Latency
    room: RoomLoad
    others_cpu: float
    """What other processes took of the server's core: with much of it, every p99 is theirs, and the ratio near 1."""

    @property
    def ratio(self) -> float:
        """The p99 beside the room, over the mean of the two without it."""
        return self.beside.p99_ns * 2 / (self.before.p99_ns + self.after.p99_ns)

    @property
    def noise(self) -> float:
        """The same measurement against itself: after over before."""
        return self.after.p99_ns / self.before.p99_ns


_Order: TypeAlias = tuple[float, float]  # seconds, and publishes a second
_Ours: TypeAlias = "Connection[_Order, str | RoomLoad]"
_Theirs: TypeAlias = "Connection[str | RoomLoad, _Order]"


def measure_beside(
    client: ClientSide, server: Server, cores: Cores, *, seconds: float, subscribers: int, seed: int
) -> Beside:
    """Run one round of three phases of `seconds` each. Raises CountingError if anything was lost."""
    _no_timer_slack()
    meter = Meter(cores, server.pid)
    with private_chats(client, server) as chats:
        chats.run(schedule(seed, WARMUP_S))
        before = chats.run(schedule(seed + 1, seconds))
        with _room(client, server, subscribers) as room:
            room.send((seconds + 2 * WARMUP_S, ROOM_PER_S))
            chats.run(schedule(seed, WARMUP_S))
            beside = chats.run(schedule(seed + 1, seconds))
            load = _answer(room)
        chats.run(schedule(seed, WARMUP_S))
        after = chats.run(schedule(seed + 1, seconds))
    return Beside(before=before, beside=beside, after=after, room=load, others_cpu=meter.read().others)


def _no_timer_slack() -> None:
    """Ask for timers that are not put off by 50 us to be bundled. Source: PR_SET_TIMERSLACK(2const)."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(1))


@contextmanager
def _room(client: ClientSide, server: Server, subscribers: int) -> Iterator[_Ours]:
    """Start the room's process; its connections are open when this yields, and closed with it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_room_process, args=(theirs, type(client), server, subscribers), daemon=True)
    process.start()
    theirs.close()
    try:
        opened = ours.recv() if ours.poll(120.0) else "did not connect in time"
        if opened != "connected":
            raise CountingError(f"the room: {opened}")
        yield ours
    except EOFError:
        raise CountingError("the room's process ended") from None
    finally:
        ours.close()
        process.terminate()
        process.join(5.0)
        if process.is_alive():
            process.kill()
            process.join()


def _answer(room: _Ours) -> RoomLoad:
    answer = room.recv() if room.poll(60.0) else "did not end in time"
    if not isinstance(answer, RoomLoad):
        raise CountingError(f"the room: {answer}")
    return answer


def _room_process(parent: _Theirs, client: type[ClientSide], server: Server, subscribers: int) -> None:
    try:
        talk = client()
        members = [(_ROOM_STREAM, Role.SUBSCRIBE)] * subscribers + [(_ROOM_STREAM, Role.PUBLISH)]
        with connections(talk, server, members) as opened:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            parent.send("connected")
            seconds, per_s = parent.recv()
            parent.send(_run_room(talk, opened, seconds, per_s))
            parent.poll(60.0)  # the connections stay open until we are ended
    except (CountingError, OSError, EOFError) as error:
        parent.send(f"{type(error).__name__}: {error}")


def _run_room(client: ClientSide, opened: list[Opened], seconds: float, per_s: float) -> RoomLoad:
    *subscribers, publisher = opened
    acks = client.acknowledgements(_ROOM_STREAM, publisher.joined, publisher.socket.send)
    frames = client.frames(_ROOM_STREAM, publisher.joined)
    buffer = bytearray(READ_BYTES_MAX)
    feeds = {
        one.socket.fileno(): (one.socket, client.deliveries(_ROOM_STREAM, one.joined, one.socket.send).feed)
        for one in subscribers
    }
    feeds[publisher.socket.fileno()] = (publisher.socket, acks.feed)
    with select.epoll() as epoll:
        for descriptor in feeds:
            epoll.register(descriptor, select.EPOLLIN)
        start, delayed_acks = time.monotonic(), _delayed_acks()
        planned = int(seconds * per_s)
        published = received = lag_max_ns = 0
        due_all = planned * (len(subscribers) + 1)
        give_up = start + seconds + ARRIVE_S_MAX
        while received < due_all and time.monotonic() < give_up:
            time.sleep(DRAIN_EVERY_S)
            while events := epoll.poll(0, _EVENTS_AT_ONCE):
                for descriptor, _ in events:
                    one, feed = feeds[descriptor]
                    length = one.recv_into(buffer)
                    if not length:
                        raise CountingError("the server closed a member of the room")
                    received += feed(buffer, length)
                if published < planned and time.monotonic() - start >= published / per_s:
                    break
            if published < planned and (late_s := time.monotonic() - start - published / per_s) >= 0:
                publisher.socket.send(frames[published % len(frames)])
                published += 1
                lag_max_ns = max(lag_max_ns, int(late_s * 1e9))
                last = time.monotonic()
    if received != due_all:
        raise CountingError(f"{due_all - received} of {due_all} records and acknowledgements did not arrive")
    return RoomLoad(
        published=published,
        acknowledged=acks.total,
        delivered=received - acks.total,
        subscribers=len(subscribers),
        per_s=(published - 1) / (last - start),
        lag_max_ns=lag_max_ns,
        delayed_acks=_delayed_acks() - delayed_acks,
    )


def _delayed_acks() -> int:
    """Return how many TCP acknowledgements a timer has sent so far. Source: TcpExtDelayedACKs of /proc/net/netstat."""
    names, values = Path("/proc/net/netstat").read_text().splitlines()[:2]
    return int(values.split()[names.split().index("DelayedACKs")])


def median_ratio(rounds: list[Beside]) -> float:
    """Return the median over the rounds of the p99's ratio."""
    return median(one.ratio for one in rounds)
