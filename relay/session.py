"""One client's state machine: bytes or messages in, pushes to its outbox out. Sans-IO.

    state      what may come                         goes on to
    --------   -----------------------------------   ------------------------------------------------
    GREETING   HELLO                                 OPEN
    OPEN       every record but HELLO                -
    CLOSING    nothing counts; we sent a close       ENDED when the client answers, or time is up
    ENDED      nothing; the transport lets go

A Peer knows the WebSocket side (ping, close, keep-alive); a Session adds the records, an Echo returns messages.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

from relay import framing, wire
from relay.capability import Right
from relay.errors import Code, ProtocolError, Refused, close_code
from relay.fanout import Attachment
from relay.hub import Hub
from relay.limits import (
    CLOSE_S_MAX,
    COMMIT_BATCH_BYTES_MAX,
    CONTROL_PER_S_MAX,
    DURABLE_PER_S_MAX,
    EPHEMERAL_PER_S_MAX,
    EPHEMERAL_SLOT_MAX,
    HANDSHAKE_S_MAX,
    KEEPALIVE_S,
    LAGGING_S_MAX,
    MESSAGE_BYTES_MAX,
    PUBLISH_WINDOW,
    RATE_BURST_S,
    RECORDS_PER_MESSAGE_MAX,
    SEALED_BYTES_MAX,
    SEALED_SIZES,
    SEND_STALL_S_MAX,
    STREAMS_PER_CONNECTION_MAX,
)
from relay.outbox import Outbox, frame_of

NS_PER_S: Final = 1_000_000_000
SEALED_VERSION: Final = 1


class State(IntEnum):
    GREETING = 0
    OPEN = 1
    CLOSING = 2
    ENDED = 3


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Records a second that one connection may send, by class."""

    durable_per_s: int = DURABLE_PER_S_MAX
    ephemeral_per_s: int = EPHEMERAL_PER_S_MAX
    control_per_s: int = CONTROL_PER_S_MAX


class Peer:
    """The WebSocket side of a connection: messages out of bytes, pings, the close handshake, time limits.

    `close_code` is what we closed with. `ended` says that nothing counts any more; at `overdue` the transport must let go,
    even if something waits to be sent. `heard_ns` and `progress_ns` are set by the transport: when bytes last came, and
    when some were last taken.
    """

    __slots__ = (
        "_reader",
        "attachments",
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
        self.box = Outbox(hub.counters, self)
        self.attachments: dict[int, Attachment] = {}
        self.state = State.GREETING
        self._reader = framing.FrameReader()
        self.close_code = 0
        self.opened_ns = self.heard_ns = self.progress_ns = hub.now_ns
        self.closing_since_ns = 0
        self.behind_since_ns = 0
        self.due_slot = 0
        self.pinged_ns = 0
        self.overdue = False

    @property
    def ended(self) -> bool:
        return self.state >= State.CLOSING

    def receive_data(self, data: bytes) -> None:
        """Take bytes of the network."""
        try:
            self.receive_messages(self._reader.feed(data))
        except framing.FramingError as fault:
            self.receive(fault.events)
            self.close(fault.close_code, fault.reason)
            self._end()
        except Exception as error:
            self._fault(error)

    def receive(self, messages: list[framing.Event]) -> None:
        """Take messages and control frames in order. A fault of our own ends this connection, and no other."""
        try:
            self.receive_messages(messages)
        except Exception as error:
            self._fault(error)

    def _fault(self, error: Exception) -> None:
        self.hub.report(error)
        self.fail(Code.INTERNAL)

    def receive_messages(self, messages: list[framing.Event]) -> None:
        """Take messages and control frames in order."""
        for message in messages:
            if isinstance(message, bytes):
                if self.state < State.CLOSING:
                    self.receive_message(message)
            else:
                self._receive_other(message)

    def receive_message(self, message: bytes) -> None:
        """Take a binary message."""
        raise AssertionError("a Peer is a Session or an Echo")

    def receive_text(self, text: str) -> None:
        """Take a text message."""
        self.fail(Code.TEXT)

    def _receive_other(self, event: framing.Event) -> None:
        if isinstance(event, framing.Ping):
            if self.state < State.CLOSING:
                self.hub.push(self.box, framing.encode(framing.PONG, event.payload))
        elif isinstance(event, str):
            if self.state < State.CLOSING:
                self.receive_text(event)
        elif isinstance(event, framing.Close):
            if self.state < State.CLOSING:  # Answer with the same code; 1000 if it gave none.
                self.close(event.code or 1000)
            self._end()

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame. The transport lets go when the client answers, or after CLOSE_S_MAX."""
        if self.state >= State.CLOSING:
            return
        self.close_code = code
        self.hub.push(self.box, framing.close_frame(code, reason))
        self.box.end()
        self.state = State.CLOSING
        self.closing_since_ns = self.hub.now_ns
        self.leave()

    def _end(self) -> None:
        self.state = State.ENDED
        self.hub.ended.append(self)

    def leave(self) -> None:
        """Let go of everything in the hub; also when the connection broke."""

    def lost(self) -> None:
        """The connection is gone, in whatever way. No reference cycle stays behind."""
        self.state = State.ENDED
        self.leave()
        self.box.peer = self.box.owner = None

    def go_away(self, retry_ms: int) -> None:
        """Tell the client that the relay goes down, if its protocol has a word for it."""

    def drain(self) -> None:
        """Close because the relay goes down."""
        self.close(close_code(Code.DRAINING), "draining")

    def fail(self, code: Code, record: int = 0, about: int = 0) -> None:
        """Tell the client why, and close."""
        if self.state < State.CLOSING:
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
        if self.state >= State.CLOSING:
            if now - self.closing_since_ns >= CLOSE_S_MAX * NS_PER_S:
                self.overdue = True
                self._end()
            return CLOSE_S_MAX
        if self.state == State.GREETING and now - self.opened_ns >= HANDSHAKE_S_MAX * NS_PER_S:
            self.fail(Code.HANDSHAKE)
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
        # From a client that does not take its answers nothing is read; it is stalled, or not, but not silent.
        silent_s = 0.0 if box.choked else (now - self.heard_ns) / NS_PER_S
        if silent_s >= 2 * KEEPALIVE_S:
            self.fail(Code.KEEPALIVE)
            return CLOSE_S_MAX
        if silent_s >= KEEPALIVE_S and self.pinged_ns <= self.heard_ns:
            self.pinged_ns = now
            self.hub.push(box, framing.encode(framing.PING, b""))
        if box.standing is not None or box.lagging or self.state == State.GREETING:
            return 1.0
        return KEEPALIVE_S - silent_s if silent_s < KEEPALIVE_S else 2 * KEEPALIVE_S - silent_s


class Session(Peer):
    """A client of the relay protocol. `challenge` is 32 random bytes, this connection's own."""

    __slots__ = ("_control", "_durable", "_ephemeral", "_rates", "_refilled_ns", "challenge", "exporting", "unacked")

    def __init__(self, hub: Hub, challenge: bytes, rates: Rates) -> None:
        super().__init__(hub)
        self.challenge = challenge
        self.exporting = False
        self.unacked = 0
        self._rates = rates
        self._refilled_ns = hub.now_ns
        self._durable = rates.durable_per_s * RATE_BURST_S
        self._ephemeral = rates.ephemeral_per_s * RATE_BURST_S
        self._control = rates.control_per_s * RATE_BURST_S

    def receive_messages(self, messages: list[framing.Event]) -> None:
        """Take what one read brought.

        The hot path: durable records that nothing is wrong with. Whatever is not, or not surely, such a record goes the
        long way through `_receive_record`, which checks one thing after the other and names what is wrong.
        """
        decode = wire.decode_one_client
        publish_class = wire.Publish
        hub = self.hub
        suites = hub.suites
        budget = 0
        if self.state == State.OPEN and hub.waiting_bytes < COMMIT_BATCH_BYTES_MAX:
            budget = PUBLISH_WINDOW - self.unacked
            if self._durable < budget:
                budget = int(self._durable)
        taken = taken_bytes = counted = 0
        number = size = -1
        ids: list[int] = []
        payloads: list[bytes] = []
        for message in messages:
            if message.__class__ is bytes:
                try:
                    record = decode(message)
                except msgspec.DecodeError:
                    record = None
                if (
                    record.__class__ is publish_class
                    and taken < budget
                    and not record.class_
                    and record.commitment is None
                    and len(sealed := record.sealed) > 1
                    and sealed[0] == SEALED_VERSION
                    and suites[sealed[1]]
                ):
                    if record.number == number and len(sealed) == size:
                        ids.append(record.id)
                        payloads.append(sealed)
                        taken += 1
                        continue
                    attachment = self.attachments.get(record.number)
                    if attachment is not None and attachment.may_publish and len(sealed) in SEALED_SIZES:
                        taken_bytes += (taken - counted) * size
                        counted = taken
                        number = record.number
                        size = len(sealed)
                        _, _, _, ids, payloads = hub.gather(attachment, record)
                        taken += 1
                        continue
            if taken:
                self._settle(taken, taken_bytes + (taken - counted) * size)
            taken = taken_bytes = counted = budget = 0
            if message.__class__ is not bytes:
                self._receive_other(message)
            elif self.state < State.CLOSING:
                self._receive_slowly(message)
        if taken:
            self._settle(taken, taken_bytes + (taken - counted) * size)

    def _settle(self, taken: int, taken_bytes: int) -> None:
        """Account for records that went the hot path."""
        self.unacked += taken
        self._durable -= taken
        self.hub.waiting_bytes += taken_bytes

    def receive_message(self, message: bytes) -> None:
        """Take a message: one or more records."""
        self.receive_messages([message])

    def _receive_slowly(self, message: bytes) -> None:
        try:
            records = wire.decode_client(message)
        except ProtocolError as error:
            self.fail(error.code)
            return
        for record in records:
            if self.state < State.CLOSING:
                self._receive_record(record)

    def _receive_record(self, record: wire.ClientRecord) -> None:
        if isinstance(record, wire.Hello) is (self.state == State.OPEN):
            self.fail(Code.UNEXPECTED)
            return
        kind: int = record.__struct_config__.tag  # type: ignore[assignment]
        about = 0
        try:
            match record:
                case wire.Publish():
                    about = record.id
                    self._publish(record)
                    return
                case wire.Hello():
                    self._hello(record)
                    return
                case wire.Subscribe():
                    about = record.request
                    self._take_control()
                    self._subscribe(record)
                case wire.Time():
                    self._take_control()
                    stamp_ns = self.hub.now_ns
                    self.hub.push(self.box, frame_of(wire.Timed(record.sent_ns, stamp_ns, stamp_ns)))
                case _:
                    about = record.number
                    self._take_control()
                    self._about_stream(record)
        except Refused as refusal:
            self.refuse(refusal.code, kind, about)

    def _hello(self, record: wire.Hello) -> None:
        if record.version != wire.VERSION:
            self.fail(Code.VERSION, 1)
            return
        self.state = State.OPEN
        limits = wire.Limits(
            SEALED_BYTES_MAX,
            MESSAGE_BYTES_MAX,
            RECORDS_PER_MESSAGE_MAX,
            STREAMS_PER_CONNECTION_MAX,
            PUBLISH_WINDOW,
            self._rates.durable_per_s,
            self._rates.ephemeral_per_s,
            int(KEEPALIVE_S * 1000),
        )
        self.hub.push(self.box, frame_of(wire.Welcome(wire.VERSION, self.challenge, self.hub.now_ns, limits)))

    def _subscribe(self, record: wire.Subscribe) -> None:
        capability = self.hub.verifier.check(
            record.capability,
            use=record.use,
            proof=record.proof,
            challenge=self.challenge,
            now_s=self.hub.now_ns // NS_PER_S,
        )
        self.hub.subscribe(self, capability, record)

    def _publish(self, record: wire.Publish) -> None:
        attachment = self.attachments.get(record.number)
        if attachment is None:
            raise Refused(Code.NOT_SUBSCRIBED)
        if not attachment.may_publish:
            raise Refused(Code.RIGHT)
        sealed = record.sealed
        if len(sealed) not in SEALED_SIZES:
            raise Refused(Code.SEALED_SIZE)
        if sealed[0] != SEALED_VERSION or not self.hub.suites[sealed[1]]:
            raise Refused(Code.SEALED_FORM)
        if record.class_ == wire.DURABLE:
            self._durable -= 1
            if self._durable < 0 and not self._refill("_durable", self._rates.durable_per_s):
                raise Refused(Code.RATE)
            if self.unacked >= PUBLISH_WINDOW:
                raise Refused(Code.WINDOW)
            self.hub.publish(attachment, record)
            return
        if record.class_ != wire.EPHEMERAL or record.id > EPHEMERAL_SLOT_MAX:
            raise Refused(Code.ID)
        if record.commitment is not None:
            raise Refused(Code.COMMITMENT)
        self._ephemeral -= 1
        if self._ephemeral < 0 and not self._refill("_ephemeral", self._rates.ephemeral_per_s):
            raise Refused(Code.RATE)
        self.hub.publish_state(attachment, record.id, sealed)

    def _about_stream(self, record: wire.Unsubscribe | wire.Ack | wire.Erase | wire.Export) -> None:
        attachment = self.attachments.get(record.number)
        if attachment is None:
            raise Refused(Code.NOT_SUBSCRIBED)
        match record:
            case wire.Unsubscribe():
                self.hub.unsubscribe(attachment)
            case wire.Ack():
                self._need(attachment, Right.SUBSCRIBE)
                self.hub.acknowledge(attachment, record.upto)
            case wire.Erase():
                self._need(attachment, Right.ERASE)
                self.hub.erase(attachment)
            case wire.Export():
                self._need(attachment, Right.EXPORT)
                self.hub.export(attachment, record.after)

    @staticmethod
    def _need(attachment: Attachment, right: Right) -> None:
        if not attachment.use & right:
            raise Refused(Code.RIGHT)

    def _take_control(self) -> None:
        self._control -= 1
        if self._control < 0 and not self._refill("_control", self._rates.control_per_s):
            raise Refused(Code.RATE)

    def _refill(self, spent: str, per_s: int) -> bool:
        """Give all budgets what the time since the last refill is worth; return whether `spent` had one to spend.

        Called only when a budget is used up, so that a record that is within its rate costs one subtraction.
        """
        setattr(self, spent, getattr(self, spent) + 1)  # What is refused costs nothing, or too fast would mean never.
        elapsed_s = (self.hub.now_ns - self._refilled_ns) / NS_PER_S
        self._refilled_ns = self.hub.now_ns
        rates = self._rates
        for name, rate in (
            ("_durable", rates.durable_per_s),
            ("_ephemeral", rates.ephemeral_per_s),
            ("_control", rates.control_per_s),
        ):
            budget = getattr(self, name) + elapsed_s * rate
            setattr(self, name, min(budget, rate * RATE_BURST_S))
        if getattr(self, spent) < 1:
            return False
        setattr(self, spent, getattr(self, spent) - 1)
        return True

    def refuse(self, code: Code, record: int, about: int) -> None:
        """Answer ERROR; the connection goes on."""
        if self.state < State.CLOSING:
            self._count(code)
            self.hub.push(self.box, frame_of(wire.Error(code, record, about)))

    def leave(self) -> None:
        for attachment in list(self.attachments.values()):
            self.hub.detach(attachment)

    def go_away(self, retry_ms: int) -> None:
        """Tell the client that the relay goes down."""
        if self.state < State.CLOSING:
            self.hub.push(self.box, frame_of(wire.GoAway(retry_ms)))


class Echo(Peer):
    """Returns every message unchanged: `/echo`."""

    __slots__ = ()

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self.state = State.OPEN

    def receive_message(self, message: bytes) -> None:
        self.hub.push(self.box, framing.encode(framing.BINARY, message))

    def receive_text(self, text: str) -> None:
        self.hub.push(self.box, framing.encode(framing.TEXT, text.encode()))


__all__ = ["Echo", "Peer", "Rates", "Session", "State"]
