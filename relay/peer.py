"""The WebSocket side of a connection: bytes or messages in, pushes to its outbox out. Sans-IO.

    state      what may come                         goes on to
    --------   -----------------------------------   ------------------------------------------------
    GREETING   HELLO                                 OPEN
    OPEN       every record but HELLO                -
    CLOSING    nothing counts; we sent a close       ENDED when the client answers, or time is up
    ENDED      nothing; the transport lets go

A Peer knows ping, close and keep-alive; a Session adds the records, an Echo returns messages.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Final, TypeAlias

from relay import framing, wire
from relay.errors import Code, close_code
from relay.hub import Hub
from relay.limits import (
    CLOSE_S_MAX,
    HANDSHAKE_S_MAX,
    INCOMPLETE_S_MAX,
    KEEPALIVE_S,
    LAGGING_S_MAX,
    SEND_STALL_S_MAX,
    SHARE_WORK,
    SMALL_FRAMES_PER_SHARE,
    WORK_FRAME,
    WORK_REQUEST,
)
from relay.outbox import Outbox, frame_of
from relay.stream import Attachment

NS_PER_S: Final = 1_000_000_000

Input: TypeAlias = framing.Event | framing.FramingError | list[wire.ClientRecord]
"""What a connection brought: an event, the fault that ends it, or records of a message that were put off."""


class Stage(IntEnum):
    GREETING = 0
    OPEN = 1
    CLOSING = 2
    ENDED = 3


class Peer:
    """The WebSocket side of a connection: messages out of bytes, pings, the close handshake, time limits.

    `close_code` is what we closed with. `ended` says that nothing counts any more; at `overdue` the transport must let
    go, even if something waits to be sent. `behind`: something that it sent waits for its share of work, so nothing more
    may be read. `heard_ns` and `progress_ns` are set by the transport: when bytes last came, and when some were last taken.
    """

    __slots__ = (
        "_control",
        "_held",
        "_held_bytes",
        "_held_since_ns",
        "_reader",
        "_resting",
        "_share",
        "_waiting",
        "attachments",
        "behind",
        "behind_since_ns",
        "box",
        "close_code",
        "closing_since_ns",
        "due_slot",
        "heard_ns",
        "hub",
        "opened_ns",
        "overdue",
        "pinged_ns",
        "progress_ns",
        "state",
    )

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.box = Outbox(hub.counters)
        self.attachments: dict[int, Attachment] = {}
        self.state = Stage.GREETING
        self._reader = framing.FrameReader()
        self._held: framing.Partial | None = None
        self._held_bytes = 0
        self._held_since_ns = 0
        self._control = math.inf  # work that its rate still allows
        self._share = SHARE_WORK  # of this turn
        self._resting = False  # since its rate, or that of all signatures, is used up
        self._waiting: list[Input] | None = None
        self.behind = False
        self.close_code = 0
        self.opened_ns = self.heard_ns = self.progress_ns = hub.now_ns
        self.closing_since_ns = 0
        self.behind_since_ns = 0
        self.due_slot = 0
        self.pinged_ns = 0
        self.overdue = False

    @property
    def ended(self) -> bool:
        return self.state >= Stage.CLOSING

    def receive_data(self, data: bytes) -> None:
        """Take bytes of the network."""
        if self.behind:
            self._reader.hold(data)
            return
        events: list[Input]
        try:
            events = self._reader.feed(data, SMALL_FRAMES_PER_SHARE)  # type: ignore[assignment] # a list of some of them
        except framing.FramingError as fault:
            events = [*fault.events, fault]
        self.receive(events)

    def _hold(self) -> None:
        """Have what is held of a message counted; from its beginning on it has INCOMPLETE_S_MAX to become whole."""
        partial = self._reader.partial
        if partial is None or self.state >= Stage.CLOSING:
            self._let_go()
            return
        is_new = partial is not self._held
        if is_new:
            self._held = partial
            self._held_since_ns = self.hub.now_ns
        more_bytes = len(partial.data) - self._held_bytes
        self._held_bytes = len(partial.data)
        self.hub.budget.hold(self, more_bytes, is_new=is_new)

    def _let_go(self) -> None:
        self.hub.budget.let_go(self, self._held_bytes)
        self._held = None
        self._held_bytes = 0

    def receive(self, messages: list[Input]) -> None:
        """Take messages and control frames in order, as many as are worth a share; the rest waits for the next one.

        A fault of our own ends this connection, and no other.
        """
        if self._control < SHARE_WORK:
            self._refill()
            self._share = min(SHARE_WORK, int(self._control))
            self._resting = self._share <= 0
        else:
            self._share = SHARE_WORK
        reader = self._reader
        try:
            if reader.fragments:
                self._spend(reader.fragments * WORK_FRAME)
                reader.fragments = 0
            self.receive_messages(messages)
        except Exception as error:
            self._fault(error)
        if reader.partial is not None or self._held is not None:
            self._hold()
        if self._waiting is not None or reader.waiting:
            self.behind = True
            if self._resting:
                self.hub.budget.rest(self, self.hub.now_ns)
            else:
                self.hub.budget.put_off(self)

    def go_on(self) -> None:
        """Take another share of what waits."""
        if self.state == Stage.ENDED:
            return
        if self.box.choked:
            self.hub.budget.rest(self, self.hub.now_ns)
            return
        self.behind = False
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            self.receive_data(b"")
        else:
            self.receive(waiting)
        if not self.behind:
            self.hub.budget.caught_up.append(self)

    def _spend(self, work: int) -> None:
        """Charge what this connection had the relay do."""
        self._control -= work
        self._share -= work
        self.hub.budget.left -= work

    def _refill(self) -> None:
        """Give the budgets what the time since is worth."""

    def _put_off(self, messages: list[Input]) -> None:
        """Let messages wait for the next share, behind what waits already."""
        self._waiting = messages if self._waiting is None else self._waiting + messages

    def _fault(self, error: Exception) -> None:
        self.hub.report(error)
        self.fail(Code.INTERNAL)

    def receive_messages(self, messages: list[Input]) -> None:
        """Take messages and control frames in order."""
        left = iter(messages)
        for message in left:
            if self._share <= 0:
                self._put_off([message, *left])
                return
            if isinstance(message, bytes):
                self._spend(WORK_REQUEST)
                if self.state < Stage.CLOSING:
                    self.receive_message(message)
            else:
                self._receive_other(message)

    def receive_message(self, message: bytes) -> None:
        """Take a binary message."""
        raise AssertionError("a Peer is a Session or an Echo")

    def receive_text(self, text: str) -> None:
        """Take a text message."""
        self.fail(Code.TEXT)

    def _receive_other(self, event: Input) -> None:
        self._spend(WORK_FRAME)
        if isinstance(event, framing.Ping):
            if self.state < Stage.CLOSING:
                self.hub.push(self.box, framing.encode(framing.PONG, event.payload))
        elif isinstance(event, framing.FramingError):
            self.close(event.close_code, event.reason)
            self._end()
        elif isinstance(event, str):
            if self.state < Stage.CLOSING:
                self.receive_text(event)
        elif isinstance(event, framing.Close):
            if self.state < Stage.CLOSING:  # Answer with the same code; 1000 if it gave none.
                self.close(event.code or 1000)
            self._end()

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame. The transport lets go when the client answers, or after CLOSE_S_MAX."""
        if self.state >= Stage.CLOSING:
            return
        self.close_code = code
        self.hub.push(self.box, framing.close_frame(code, reason))
        self.box.end()
        self.state = Stage.CLOSING
        self.closing_since_ns = self.hub.now_ns
        self._let_go()
        self.leave()

    def _end(self) -> None:
        self.state = Stage.ENDED
        self.hub.ended.append(self)

    def leave(self) -> None:
        """Let go of everything in the hub; also when the connection broke."""

    def lost(self) -> None:
        """Let go of everything: the connection is gone, in whatever way. No reference cycle stays behind."""
        self.state = Stage.ENDED
        self._let_go()
        self.leave()
        self.box.owner = None

    def go_away(self, retry_ms: int) -> None:
        """Tell the client that the relay goes down, if its protocol has a word for it."""

    def drain(self) -> None:
        """Close because the relay goes down."""
        self.close(close_code(Code.DRAINING), "draining")

    def fail(self, code: Code, record: int = 0, about: int = 0) -> None:
        """Tell the client why, and close."""
        if self.state < Stage.CLOSING:
            self.hub.push(self.box, frame_of(wire.Error(code, record, about)))
            self._count(code)
            self.close(close_code(code), code.name.lower())

    def _count(self, code: Code) -> None:
        refused = self.hub.counters.refused
        refused[code.name] = refused.get(code.name, 0) + 1

    def tick(self) -> float:
        """Look at the time limits; return the seconds until they are worth another look."""
        now = self.hub.now_ns
        box = self.box
        if self.state >= Stage.CLOSING:
            if now - self.closing_since_ns >= CLOSE_S_MAX * NS_PER_S:
                self.overdue = True
                self._end()
            return CLOSE_S_MAX
        if self.state == Stage.GREETING and now - self.opened_ns >= HANDSHAKE_S_MAX * NS_PER_S:
            self.fail(Code.HANDSHAKE)
            return CLOSE_S_MAX
        if self._held is not None and now - self._held_since_ns >= INCOMPLETE_S_MAX * NS_PER_S:
            self.fail(Code.INCOMPLETE)
            return CLOSE_S_MAX
        if box.lagging:
            self.behind_since_ns = self.behind_since_ns or now
        else:
            self.behind_since_ns = 0
        stalled = box.standing is not None and now - self.progress_ns >= SEND_STALL_S_MAX * NS_PER_S
        if stalled or (self.behind_since_ns and now - self.behind_since_ns >= LAGGING_S_MAX * NS_PER_S):
            self.hub.counters.slow_closed += 1
            self.fail(Code.SLOW)
            return CLOSE_S_MAX
        # Nothing is read from a client that does not take its answers, or asks for too much; but it is not silent. Nor is
        # one that takes bytes: its PONG may wait behind megabytes, on its own side of the link.
        silent_s = 0.0 if box.choked or self.behind else (now - max(self.heard_ns, self.progress_ns)) / NS_PER_S
        if silent_s >= 2 * KEEPALIVE_S:
            self.fail(Code.KEEPALIVE)
            return CLOSE_S_MAX
        if silent_s >= KEEPALIVE_S and self.pinged_ns <= self.heard_ns:
            self.pinged_ns = now
            self.hub.push(box, framing.encode(framing.PING, b""))
        if box.standing is not None or box.lagging or self.state == Stage.GREETING:
            return 1.0
        return KEEPALIVE_S - silent_s if silent_s < KEEPALIVE_S else 2 * KEEPALIVE_S - silent_s


class Echo(Peer):
    """Returns every message unchanged: `/echo`."""

    __slots__ = ()

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self.state = Stage.OPEN

    def receive_message(self, message: bytes) -> None:
        self.hub.push(self.box, framing.encode(framing.BINARY, message))

    def receive_text(self, text: str) -> None:
        self.hub.push(self.box, framing.encode(framing.TEXT, text.encode()))
