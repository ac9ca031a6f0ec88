"""The traffic model: who is in which stream, and what each participant sends and when. Pure; nothing here does anything.

Every choice is a function of (seed, scenario, participant or stream), so that splitting a run over workers changes nothing.
The scenarios' numbers are in loadtests/workload/catalogue.py. Participants are laid out in one line:

    room 0: performer, viewers ... | room 1: performer, viewers ... | ...        or, without rooms,  pair | pair | ...

A room's viewers: the first share of them has a private chat too (every third with the performer, the rest in pairs), the
last share of the largest room's joins late, as the flash crowd. Streams are numbered in the same way: the rooms, each
with its performer's inbox after it if receipts flow, then the private chats.

What follows from what comes (receipts) cannot be in a plan made before; there the plan has a rule.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush, merge
from operator import attrgetter
from random import Random
from struct import Struct as Layout
from typing import Final, NamedTuple

from loadtests.sealing.records import Kind
from loadtests.workload import catalogue
from loadtests.workload.arrivals import NS, RATE_MIN, Bursts, Diurnal, Poisson, arrivals, generator, zipf_sizes
from loadtests.workload.catalogue import SCENARIOS, Scenario
from relay.capability import Right

CANARY: Final = b"relaymark-canary"
"""Fills every body: it must never turn up in a relay's memory, log or disk."""
MEMBER: Final = Right.SUBSCRIBE | Right.PUBLISH
_RECEIPT: Final = Layout(">III")
_MASK: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """A stream. `purpose`: room, inbox (of a room's performer) or private; `members`: those who receive."""

    index: int
    purpose: str
    members: int
    owner: int


class Membership(NamedTuple):
    """What a participant does with a stream. `peer`: the other member of a private chat."""

    stream: int
    rights: int
    peer: int | None


class Cut(NamedTuple):
    """The connection breaks at `at_ns` of the load, and is attempted again `away_ns` later."""

    at_ns: int
    away_ns: int


class ReceiptRule(NamedTuple):
    """Messages of `authors` in a stream are answered to `to_stream` with receipts; see Workload.think_ns for when."""

    to_stream: int
    delivered: bool
    read: bool
    authors: frozenset[int]


class Action(NamedTuple):
    """One record to be sent `offset_ns` after the start of the load. `voucher`: serial number of a tip's voucher."""

    offset_ns: int
    kind: Kind
    stream: int
    durable: bool
    body_bytes: int
    slot: int = 0
    voucher: int | None = None
    amount_cents: int = 0


class Room(NamedTuple):
    stream: int
    inbox: int | None
    performer: int
    viewers: range
    flash: range
    """The last of the viewers, who come late; empty but in the largest room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantPlan:
    """One participant's part. `connect_ns` 0: there before the load starts; otherwise so long after its start."""

    participant: int
    role: str
    """performer, viewer or partner (in private chats alone)."""
    memberships: tuple[Membership, ...]
    connect_ns: int
    cuts: tuple[Cut, ...]
    read_bytes_per_s: int | None
    receipts: dict[int, ReceiptRule]
    workload: Workload

    def actions(self) -> Iterator[Action]:
        """Yield what is sent, by time, lazily; a fresh iterator of the same actions at each call."""
        return self.workload.actions(self)


class Workload:
    """A scenario for so many participants. ValueError, one sentence, for what cannot be.

    `rate`: chat messages a second of all participants together; None: `default_rate` for them. Typing, receipts, tips
    and media follow from it.
    """

    def __init__(
        self, scenario: str, *, seed: int, participants: int, rate: float | None = None, duration_s: float
    ) -> None:
        if scenario not in SCENARIOS:
            raise ValueError(f"no scenario {scenario!r}; there are {', '.join(SCENARIOS)}")
        self.scenario: Scenario = SCENARIOS[scenario]
        if participants < self.scenario.participants_min:
            raise ValueError(f"{scenario} needs at least {self.scenario.participants_min} participants")
        if rate is not None and not rate >= 0:
            raise ValueError("the rate must not be negative")
        if not duration_s > 0:
            raise ValueError("the duration must be above 0 s")
        self.name = scenario
        self.seed = seed
        self.participants = participants
        self.duration_ns = int(duration_s * NS)
        self.media_from_ns = int(self.scenario.media_from * self.duration_ns)
        """0 where there are files from the start, or none."""
        self.streams: list[StreamPlan] = []
        """By index."""
        self.rooms = self._rooms()
        """Largest first. Where there are rooms, everybody is in one."""
        self._performers = [room.performer for room in self.rooms]
        self._private: dict[int, list[tuple[int, int]]] = {}  # participant -> (stream, peer)
        self._pair_up()
        self._privates = sum(stream.purpose == "private" for stream in self.streams)
        self._tips: dict[int, dict[int, list[Action]]] = {}  # room -> tipper -> tips
        self._think = generator(seed, scenario, "think").getrandbits(64)
        self.load_per_message = self._load_per_message()
        """Deliveries, and five for each publish, that one chat message makes with all that follows from it."""
        self.default_rate = self._default_rate()
        self.rate = self.default_rate if rate is None else rate

    # -- who is where ------------------------------------------------------------------------------

    def _rooms(self) -> list[Room]:
        scenario = self.scenario
        if not scenario.participants_per_room:
            return []
        count = 1 if scenario.one_room else max(1, self.participants // scenario.participants_per_room)
        rooms: list[Room] = []
        at = 0
        for size in zipf_sizes(self.participants, catalogue.ZIPF_EXPONENT, rooms=count, least=2):
            stream = self._stream("room", size, at)
            inbox = self._stream("inbox", 1, at) if scenario.room_receipts else None
            viewers = range(at + 1, at + size)
            late = 0 if rooms else int(scenario.flash_share * len(viewers))
            rooms.append(Room(stream, inbox, at, viewers, viewers[len(viewers) - late :]))
            at += size
        return rooms

    def _stream(self, purpose: str, members: int, owner: int) -> int:
        self.streams.append(StreamPlan(len(self.streams), purpose, members, owner))
        return self.streams[-1].index

    def _pair_up(self) -> None:
        if not self.rooms:
            alone = range(self.participants)
            for first, second in zip(alone[::2], alone[1::2], strict=False):
                self._chat(first, second)
            if len(alone) % 2:
                self._chat(0, alone[-1])
        for room in self.rooms:
            there = len(room.viewers) - len(room.flash)
            chatting = room.viewers[: min(there, int(self.scenario.private_of_viewers * len(room.viewers)))]
            paired = [viewer for rank, viewer in enumerate(chatting) if rank % 3]
            for viewer in chatting[::3]:
                self._chat(room.performer, viewer)
            for first, second in zip(paired[::2], paired[1::2], strict=False):
                self._chat(first, second)

    def _chat(self, first: int, second: int) -> None:
        stream = self._stream("private", 2, first)
        self._private.setdefault(first, []).append((stream, second))
        self._private.setdefault(second, []).append((stream, first))

    def room_of(self, participant: int) -> Room | None:
        """Return the room that a participant is in."""
        at = bisect_right(self._performers, participant) - 1
        return self.rooms[at] if at >= 0 else None

    def participant(self, index: int) -> ParticipantPlan:
        """Return the plan of participant `index`, from 0."""
        if not 0 <= index < self.participants:
            raise IndexError(index)
        room, scenario = self.room_of(index), self.scenario
        private = self._private.get(index, [])
        memberships = [Membership(stream, MEMBER, peer) for stream, peer in private]
        receipts: dict[int, ReceiptRule] = {}
        if scenario.private_signals:
            receipts = {stream: ReceiptRule(stream, True, True, frozenset((peer,))) for stream, peer in private}
        connect_ns, slow = 0, None
        if room is not None:
            memberships.append(Membership(room.stream, MEMBER, None))
            if index == room.performer:
                if room.inbox is not None:
                    memberships.append(Membership(room.inbox, Right.SUBSCRIBE, None))
            else:
                if room.inbox is not None and self._chosen(scenario.room_receipts, "receipts", index):
                    memberships.append(Membership(room.inbox, Right.PUBLISH, None))
                    receipts[room.stream] = ReceiptRule(room.inbox, True, True, frozenset((room.performer,)))
                if index in room.flash:
                    within_ns = catalogue.FLASH_WITHIN_S * NS
                    connect_ns = int(
                        scenario.flash_at * self.duration_ns + self._of("flash", index).random() * within_ns
                    )
                slow = self._read_bytes_per_s(room, index)
        cuts: tuple[Cut, ...] = ()
        if self._chosen(scenario.cut_share, "cut", index):
            away_ns = int(self._of("away", index).random() * catalogue.CUT_AWAY_NS_MAX)
            cuts = (Cut(int(scenario.cut_at * self.duration_ns), away_ns),)
        return ParticipantPlan(
            participant=index,
            role="partner" if room is None else "performer" if index == room.performer else "viewer",
            memberships=tuple(memberships),
            connect_ns=connect_ns,
            cuts=cuts,
            read_bytes_per_s=slow,
            receipts=receipts,
            workload=self,
        )

    def _read_bytes_per_s(self, room: Room, viewer: int) -> int | None:
        # One at least, so that a small scenario about slow readers has one.
        share, first = self.scenario.slow_share, self.rooms[0]
        one = share > 0 and viewer == first.viewers[-1 - len(first.flash)]
        if not (one or self._chosen(share, "slow", viewer)):
            return None
        record_bytes = (self.scenario.chat_bytes or 0) + 300
        return max(catalogue.SLOW_BYTES_PER_S_MIN, int(self._room_rate(room) * record_bytes / 2))

    def _of(self, *parts: int | str) -> Random:
        return generator(self.seed, self.name, *parts)

    def _chosen(self, share: float, purpose: str, participant: int) -> bool:
        return share >= 1 or (share > 0 and self._of(purpose, participant).random() < share)

    # -- how much ----------------------------------------------------------------------------------

    def _room_rate(self, room: Room) -> float:
        """Return a room's chat messages a second."""
        return self.rate * self._room_weight(room)

    def _room_weight(self, room: Room) -> float:
        size = 1 + len(room.viewers)
        return self.scenario.room_share * size / self.participants

    def _private_share(self) -> float:
        if not self._privates:
            return 0.0
        return 1.0 - self.scenario.room_share if self.rooms else 1.0

    def _default_rate(self) -> float:
        """Return a rate for these participants: a message each in ten seconds, within what two cores carry."""
        return min(
            catalogue.RATE_PER_PARTICIPANT * self.participants,
            catalogue.DELIVERIES_PER_S_DEFAULT / self.load_per_message,
        )

    def _load_per_message(self) -> float:
        scenario = self.scenario
        lead_ns = (catalogue.TYPING_LEAD_NS_MIN + catalogue.TYPING_LEAD_NS_MAX) / 2
        typing_states = lead_ns / scenario.typing_every_ns + 0.5
        load = 0.0
        for room in self.rooms:
            size = 1 + len(room.viewers)
            typing = scenario.room_typing * typing_states
            receipts = scenario.performer_share * scenario.room_receipts * size * 2
            records = 1 + typing + scenario.tips_share
            load += self._room_weight(room) * (records * (size + 5) + receipts * 6)
        return load + self._private_share() * (6 if scenario.private_signals else 1) * 7

    # -- what is sent when -------------------------------------------------------------------------

    def actions(self, plan: ParticipantPlan) -> Iterator[Action]:
        """Yield the participant's actions by time."""
        scenario, index = self.scenario, plan.participant
        parts = []
        room = self.room_of(index)
        if room is not None:
            performing = index == room.performer
            share = scenario.performer_share if performing else (1 - scenario.performer_share) / len(room.viewers)
            types = self._chosen(scenario.room_typing, "types", index) or (performing and scenario.room_typing > 0)
            parts.append(self._chatter(index, room.stream, self._room_rate(room) * share, types=types))
            if performing and scenario.media_share and not self._private_share():
                parts.append(self._media(index, room.stream, self._room_rate(room) * scenario.media_share))
            parts.append(iter(self._tips_of(room).get(index, ())))
        for stream, _ in self._private.get(index, ()):
            rate = self.rate * self._private_share() / (2 * self._privates)
            parts.append(self._chatter(index, stream, rate, types=scenario.private_signals))
            if scenario.media_share:
                parts.append(self._media(index, stream, rate * scenario.media_share))
        for action in merge(*parts, key=attrgetter("offset_ns")):
            if action.offset_ns >= self.duration_ns:
                return
            if action.offset_ns >= plan.connect_ns:
                yield action

    def _times(self, rate: float, participant: int, purpose: str) -> Iterator[int]:
        if rate < RATE_MIN:
            return iter(())
        swing = self.scenario.diurnal_swing
        process = Diurnal(rate, self.duration_ns / NS, swing) if swing else Poisson(rate)
        return arrivals(
            process,
            seed=self.seed,
            scenario=self.name,
            participant=participant,
            duration_ns=self.duration_ns,
            purpose=purpose,
        )

    def _chatter(self, participant: int, stream: int, rate: float, *, types: bool) -> Iterator[Action]:
        """Yield messages, and before each the typing: from 1 to 4 s ahead until it is sent."""
        random = self._of("chat", participant, stream)
        pending: list[Action] = []
        for offset_ns in self._times(rate, participant, f"chat {stream}"):
            size = self.scenario.chat_bytes or min(
                1 + int(random.expovariate(1 / catalogue.BODY_BYTES_MEAN)), catalogue.BODY_BYTES_MAX
            )
            heappush(pending, Action(offset_ns, Kind.MESSAGE, stream, True, size))
            if types:
                at_ns = offset_ns - random.randint(catalogue.TYPING_LEAD_NS_MIN, catalogue.TYPING_LEAD_NS_MAX)
                while at_ns < offset_ns:
                    if at_ns >= 0:
                        heappush(pending, Action(at_ns, Kind.TYPING, stream, False, 0))
                    at_ns += self.scenario.typing_every_ns
            # Nothing that is still to be drawn can come before this message's own lead.
            while pending and pending[0].offset_ns <= offset_ns - catalogue.TYPING_LEAD_NS_MAX:
                yield heappop(pending)
        while pending:
            yield heappop(pending)

    def _media(self, participant: int, stream: int, rate: float) -> Iterator[Action]:
        """Yield files in chunks; a file begins after the one before it, as one upload at a time."""
        random = self._of("media", participant, stream)
        free_ns = 0
        for offset_ns in self._times(rate, participant, f"media {stream}"):
            if offset_ns < self.media_from_ns:
                continue
            start_ns = max(offset_ns, free_ns)
            chunks = random.randint(1, catalogue.MEDIA_CHUNKS_MAX)
            for chunk in range(chunks):
                at_ns = start_ns + chunk * catalogue.MEDIA_CHUNK_INTERVAL_NS
                yield Action(at_ns, Kind.MEDIA, stream, True, catalogue.MEDIA_CHUNK_BYTES)
            free_ns = start_ns + chunks * catalogue.MEDIA_CHUNK_INTERVAL_NS

    def _tips_of(self, room: Room) -> dict[int, list[Action]]:
        """Return a room's tips by viewer. One tip brings others of other viewers, so they are drawn for the room at once."""
        known = self._tips.get(room.stream)
        if known is None:
            known = self._tips[room.stream] = {}
            for viewer, action in self._draw_tips(room):
                known.setdefault(viewer, []).append(action)
            for actions in known.values():
                actions.sort(key=attrgetter("offset_ns"))
        return known

    def _draw_tips(self, room: Room) -> Iterator[tuple[int, Action]]:
        rate = self._room_rate(room) * self.scenario.tips_share
        if rate < RATE_MIN:
            return
        process = Bursts(rate, catalogue.TIP_BRANCHING, catalogue.TIP_DECAY_S)
        times = arrivals(
            process,
            seed=self.seed,
            scenario=self.name,
            participant=room.performer,
            duration_ns=self.duration_ns,
            purpose="tips",
        )
        random = self._of("tippers", room.stream)
        there = room.viewers[: max(1, len(room.viewers) - len(room.flash))]
        for count, offset_ns in enumerate(times):
            viewer = there[random.randrange(len(there))]
            amount_cents = 100 * (1 + int(random.expovariate(1 / 5)))
            tip = Action(offset_ns, Kind.TIP, room.stream, True, 0, 0, (room.stream << 32) + count, amount_cents)
            yield viewer, tip
            if random.random() < catalogue.DOUBLE_SPEND_SHARE:
                again_ns = offset_ns + random.randint(200_000_000, 2_000_000_000)
                if again_ns < self.duration_ns:
                    yield viewer, tip._replace(offset_ns=again_ns)

    def double_spends(self, stream: int) -> int:
        """Return how many tips in a room are planned with a voucher that was spent before."""
        tips = [
            tip.voucher
            for room in self.rooms
            if room.stream == stream
            for own in self._tips_of(room).values()
            for tip in own
        ]
        return len(tips) - len(set(tips))

    # -- what follows from what comes --------------------------------------------------------------

    def think_ns(self, recipient: int, author: int, counter: int, kind: int) -> int:
        """Return how long after a message came its receipt of `kind` is due: the same for the same message and seed."""
        low, high = catalogue.DELIVERED_NS if kind == Kind.RECEIPT_DELIVERED else catalogue.READ_NS
        # SplitMix64's last step: a hash that is good enough for a delay, and cheap enough for every message.
        mixed = (self._think ^ (recipient << 40) ^ (author << 20) ^ (counter << 4) ^ kind) & _MASK
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return low + ((mixed ^ (mixed >> 31)) % (high - low))

    @staticmethod
    def body_of(action: Action) -> bytes:
        """Return what fills an action's body. That of a tip is its voucher, which whoever has the keys issues."""
        return (CANARY * (action.body_bytes // len(CANARY) + 1))[: action.body_bytes]

    @staticmethod
    def receipt_body(stream: int, author: int, counter: int) -> bytes:
        """Return the body of a receipt: which message it is for."""
        return _RECEIPT.pack(stream, author, counter)

    @staticmethod
    def read_receipt(body: bytes) -> tuple[int, int, int]:
        """Return stream, author and counter of the message that a receipt is for."""
        stream, author, counter = _RECEIPT.unpack(body)
        return stream, author, counter
