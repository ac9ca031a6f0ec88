"""The reference relay's dialect: relay/PROTOCOL.md from the client's side. Golden: tests/golden/dialect_reference.json.

| state     | comes                | goes to  | yields                                    |
|-----------|----------------------|----------|-------------------------------------------|
| upgrading | 101                  | greeting | Reply(HELLO)                              |
| upgrading | anything else        | over     | Failed                                    |
| greeting  | WELCOME              | open     | Ready                                     |
| greeting  | another record       | over     | Failed                                    |
| open      | WELCOME, EXPORTED    | over     | Failed: nobody asked                      |
| open      | any other record     | open     | its event                                 |
| any       | ping                 | the same | Reply(pong)                               |
| any       | close                | over     | Reply(close) unless we began it; Closed   |
| any       | broken frame, record | over     | Reply(close), Failed                      |
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import ClassVar, Final

import msgspec

from loadtests.dialects.base import (
    Attach,
    Closed,
    Erased,
    Event,
    Failed,
    Features,
    Gap,
    GoingAway,
    Place,
    Published,
    Ready,
    Refused,
    Reply,
    State,
    Subscribed,
    Timed,
    Unsubscribed,
)
from loadtests.dialects.frames import (
    CLOSE,
    PING,
    PONG,
    Control,
    Fault,
    FrameReader,
    Handshake,
    HandshakeError,
    client_frame,
    close_frame,
)
from loadtests.dialects.websocket import handshake
from relay import wire
from relay.errors import ProtocolError

_LAST: Final = (Closed, Failed)
_WHAT: Final = {2: "subscribe", 3: "unsubscribe", 4: "publish", 5: "ack", 6: "erase", 7: "export"}


class Reference:
    """One connection to a reference relay. `host` is what stands in the Host field; `random_bits` masks frames."""

    __slots__ = (
        "_challenge",
        "_closing",
        "_handshake",
        "_numbers",
        "_over",
        "_random_bits",
        "_reader",
        "_request",
        "_requests",
        "_streams",
        "limits",
    )

    features: ClassVar[Features] = Features(
        numbers=True, acknowledges=True, resumes=True, ephemeral=True, times=True, echoes=True, idempotent=True
    )

    def __init__(self, place: Place, *, random_bits: Callable[[int], int] = random.getrandbits) -> None:
        self._handshake: Handshake | None = handshake(place, place.path or "/", wire.SUBPROTOCOL, random_bits)
        self._reader = FrameReader()
        self._random_bits = random_bits
        self._challenge: bytes | None = None
        self._request = 0
        self._requests: dict[int, int] = {}  # request -> stream
        self._streams: dict[int, int] = {}  # the relay's number -> stream
        self._numbers: dict[int, int] = {}  # stream -> the relay's number
        self._closing = False
        self._over = False
        self.limits: wire.Limits | None = None
        """What the relay told in WELCOME; None before Ready."""

    # -- sending -----------------------------------------------------------------------------------

    def opening(self) -> bytes:
        assert self._handshake is not None, "one object a connection"
        return self._handshake.request

    def subscribe(self, attach: Attach, *, after: int | None = None, epoch: int | None = None) -> bytes:
        if self._challenge is None:
            raise LookupError("subscribe before Ready")
        self._request += 1
        self._requests[self._request] = attach.stream
        proof = attach.prove(self._challenge) if attach.prove else None
        return self._send(
            wire.Subscribe(
                request=self._request,
                capability=attach.capability,
                use=attach.use,
                proof=proof,
                epoch=epoch,
                after=after,
            )
        )

    def unsubscribe(self, stream: int) -> bytes:
        return self._send(wire.Unsubscribe(self._numbers[stream]))

    def publish(self, stream: int, id: int, sealed: bytes, *, durable: bool = True, slot: int = 0) -> bytes:  # noqa: A002
        number = self._numbers[stream]
        if durable:
            return self._send(wire.Publish(number, wire.DURABLE, id, None, sealed))
        return self._send(wire.Publish(number, wire.EPHEMERAL, slot, None, sealed))

    def ack(self, stream: int, upto: int) -> bytes:
        return self._send(wire.Ack(self._numbers[stream], upto))

    def time(self, sent_ns: int) -> bytes:
        return self._send(wire.Time(sent_ns))

    def close(self, code: int = 1000) -> bytes:
        self._closing = True
        return close_frame(code, self._random_bits(32))

    def _send(self, record: wire.ClientRecord) -> bytes:
        return client_frame(wire.encode(record), self._random_bits(32))

    # -- receiving ---------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        if self._over:
            return events
        if self._handshake is not None:
            try:
                rest = self._handshake.feed(data)
            except HandshakeError as error:
                self._over = True
                return [Failed(str(error))]
            if rest is None:
                return events
            self._handshake = None
            events.append(Reply(self._send(wire.Hello(wire.VERSION))))
            data = rest
        decode, message, streams = wire.decode_one_relay, wire.Message, self._streams
        for item in self._reader.feed(data):
            if isinstance(item, bytes):
                # Decoding straight into the struct is quicker than looking at the bytes in Python first.
                try:
                    record = decode(item)
                    if type(record) is message:
                        events.append((streams[record.number], record.seq, record.at_ns, record.sealed))
                        continue
                except (msgspec.DecodeError, KeyError):
                    pass  # several records in a message, or a fault: the thorough way tells
                self._message(item, events)
            else:
                self._control(item, events)
            if events and type(events[-1]) in _LAST:
                self._over = True
                break
        return events

    def _message(self, payload: bytes, events: list[Event]) -> None:
        try:
            records = wire.decode_relay(payload)
        except ProtocolError as error:
            self._fail(events, 1002, f"the relay sent what is no record of the protocol: {error}")
            return
        for record in records:
            try:
                self._record(record, events)
            except KeyError:
                self._fail(events, 1002, f"the relay sent a {type(record).__name__} for what was not asked for")
            if events and type(events[-1]) is Failed:
                return

    def _record(self, record: wire.RelayRecord, events: list[Event]) -> None:
        """Append what one record means. Raises KeyError for a number or a request that we do not have."""
        match record:
            case wire.Welcome() if self._challenge is None and record.version == wire.VERSION:
                self._challenge = record.challenge
                self.limits = record.limits
                events.append(Ready(record.now_ns))
            case wire.Error() if self._challenge is None:
                self._fail(events, 1002, f"the relay refused the greeting with code {record.code}")
            case _ if self._challenge is None:
                self._fail(events, 1002, f"{type(record).__name__} instead of a WELCOME of version {wire.VERSION}")
            case wire.Message():
                events.append((self._streams[record.number], record.seq, record.at_ns, record.sealed))
            case wire.Ephemeral():
                stream = self._streams[record.number]
                events.append(State(stream, record.handle, record.slot, record.sealed))
            case wire.Published():
                if len(record.acks) % 2:
                    self._fail(events, 1002, "PUBLISHED with an id but no number")
                    return
                pairs = iter(record.acks)
                events.extend(map(Published, pairs, pairs))
            case wire.Subscribed():
                stream = self._requests.pop(record.request)
                self._streams[record.number] = stream
                self._numbers[stream] = record.number
                events.append(Subscribed(stream, record.epoch, record.head, record.recovered))
            case wire.Unsubscribed():
                stream = self._streams.pop(record.number)
                del self._numbers[stream]
                events.append(Unsubscribed(stream, record.head))
            case wire.Gap():
                events.append(Gap(self._streams[record.number], record.first, record.last))
            case wire.Erased():
                events.append(Erased(self._streams[record.number], record.epoch))
            case wire.Error():
                events.append(self._refused(record))
            case wire.GoAway():
                events.append(GoingAway(record.retry_ms))
            case wire.Timed():
                events.append(Timed(record.sent_ns, record.received_ns, record.replied_ns))
            case _:
                self._fail(events, 1002, f"the relay sent a {type(record).__name__} that nobody asked for")

    def _refused(self, error: wire.Error) -> Refused:
        what = _WHAT.get(error.record, "other")
        if what == "subscribe":
            return Refused(error.code, what, self._requests.pop(error.about))
        if what in ("publish", "other"):
            return Refused(error.code, what, error.about)
        # The number may be one that is no longer ours, or was never: then the number itself has to do.
        return Refused(error.code, what, self._streams.get(error.about, error.about))

    def _control(self, item: Control | Fault, events: list[Event]) -> None:
        if isinstance(item, Fault):
            self._fail(events, item.code, f"the relay broke WebSocket: {item.text}")
        elif item.opcode == PING:
            events.append(Reply(client_frame(item.payload, self._random_bits(32), PONG)))
        elif item.opcode == CLOSE:
            code, reason = item.close()
            if not self._closing:
                events.append(Reply(close_frame(code, self._random_bits(32))))
            events.append(Closed(code, reason))

    def _fail(self, events: list[Event], code: int, text: str) -> None:
        if not self._closing:
            events.append(Reply(close_frame(code, self._random_bits(32))))
        events.append(Failed(text))
