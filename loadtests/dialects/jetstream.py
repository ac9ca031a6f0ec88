"""NATS JetStream over WebSocket: a JetStream stream for each stream, so that its sequence numbers have no gaps.

| request                       | answer                                                                            |
|-------------------------------|-----------------------------------------------------------------------------------|
| $JS.API.STREAM.CREATE.TOPIC   | epoch (when it was created), head and first record kept, new or not: `_opened`     |
| $JS.API.CONSUMER.CREATE.TOPIC | a push consumer from a number on, without acknowledgements: Subscribed            |
| HPUB TOPIC, with Nats-Msg-Id  | a PubAck with the number: Published, Refused. A retry within two minutes is known |
| $JS.API.STREAM.INFO.TOPIC     | the head when leaving: Unsubscribed once everything up to it has come             |
| PUB TOPIC.SLOT, core NATS     | none: states are not stored, and have no number                                   |

A delivery's reply subject tells its place: `$JS.ACK.TOPIC.CONSUMER.DELIVERED.NUMBER.CONSUMER_NUMBER.NANOSECONDS.PENDING`.
Numbers that are left out though the consumer's own go on are gone from the stream: a Gap.
Source: docs.nats.io, reference/nats_api_reference, and nats-architecture-and-design, ADR-8 and ADR-31 of its authors.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime
from hashlib import blake2b
from typing import ClassVar, Final

import msgspec

from loadtests.dialects.base import (
    Attach,
    Event,
    Features,
    Gap,
    Place,
    Published,
    Ready,
    Refused,
    Reply,
    State,
    Subscribed,
    Unsubscribed,
)
from loadtests.dialects.nats_text import NatsReader
from loadtests.dialects.resuming import Start, start_of
from loadtests.dialects.websocket import WebSocket

_CONNECT: Final = (
    b'CONNECT {"verbose":false,"pedantic":false,"echo":true,"headers":true,"no_responders":true,'
    b'"protocol":0,"lang":"python"}\r\n'
)
_ID_BYTES: Final = 8
_OTHER_CONFIGURATION: Final = 10_058
"""The stream is there, as somebody else made it."""


class _Error(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _StreamState(msgspec.Struct):
    first_seq: int = 0
    last_seq: int = 0


class _Answer(msgspec.Struct):
    """What is read of a PubAck, and of the answers about a stream and to a consumer's creation."""

    error: _Error | None = None
    seq: int = 0
    created: str = ""
    state: _StreamState = msgspec.field(default_factory=_StreamState)


class _Joined:
    """A stream that is subscribed, or being left."""

    __slots__ = (
        "after",
        "asked_epoch",
        "attach",
        "began",
        "consumer_seq",
        "end",
        "epoch",
        "head",
        "last",
        "start",
        "topic",
    )

    def __init__(self, attach: Attach, after: int | None, asked_epoch: int | None) -> None:
        self.attach = attach
        self.topic = attach.topic.encode()
        self.after = after
        self.asked_epoch = asked_epoch
        self.epoch = self.head = self.last = self.consumer_seq = 0
        self.start: Start | None = None
        self.began = False
        self.end: int | None = None  # once it leaves: what it is still owed


class JetStream:
    """One connection to nats-server with JetStream. It creates streams in files, as the server does by itself."""

    __slots__ = ("_inbox", "_reader", "_ready", "_streams", "_topics", "_under_way", "_websocket")

    features: ClassVar[Features] = Features(
        numbers=True, acknowledges=True, resumes=True, ephemeral=True, times=False, echoes=True, idempotent=True
    )
    _decode: ClassVar = msgspec.json.Decoder(_Answer).decode

    def __init__(self, place: Place, *, random_bits: Callable[[int], int] = random.getrandbits) -> None:
        self._websocket = WebSocket(place, "/", None, random_bits, pieces=True)
        self._reader = NatsReader()
        self._ready = False
        self._inbox = b"_INBOX.%016x" % random_bits(64)
        self._topics: dict[int, bytes] = {}  # of what is subscribed
        self._streams: dict[int, _Joined] = {}  # of that and of what is being left
        self._under_way: set[int] = set()  # ids of publishes

    def opening(self) -> bytes:
        return self._websocket.opening()

    def subscribe(self, attach: Attach, *, after: int | None = None, epoch: int | None = None) -> bytes:
        if not self._ready:
            raise LookupError("subscribe before Ready")
        joined = self._streams[attach.stream] = _Joined(attach, after, epoch)
        topic = self._topics[attach.stream] = joined.topic
        about = {"name": attach.topic, "subjects": [attach.topic], "retention": "limits", "storage": "file"}
        create = self._request(b"STREAM.CREATE.%b" % topic, b"c%d" % attach.stream, about | {"num_replicas": 1})
        if not attach.use & 1:
            return self._websocket.frame(create)
        number = attach.stream
        listen = b"SUB %b.d.%d %d\r\nSUB %b.* s%d\r\n" % (self._inbox, number, number, topic, number)
        return self._websocket.frame(listen + create)

    def unsubscribe(self, stream: int) -> bytes:
        topic = self._topics.pop(stream)
        return self._websocket.frame(self._request(b"STREAM.INFO.%b" % topic, b"u%d" % stream))

    def publish(self, stream: int, id: int, sealed: bytes, *, durable: bool = True, slot: int = 0) -> bytes:  # noqa: A002
        topic = self._topics[stream]
        if not durable:
            return self._websocket.frame(b"PUB %b.%d %d\r\n%b\r\n" % (topic, slot, len(sealed), sealed))
        self._under_way.add(id)
        # The same record under the same id is a retry, on whatever connection; nothing else ever has both.
        digest = blake2b(sealed, digest_size=_ID_BYTES, key=b"%d" % id).hexdigest().encode()
        header = b"NATS/1.0\r\nNats-Msg-Id: %b\r\n\r\n" % digest
        head = b"HPUB %b %b.p%d %d %d\r\n" % (topic, self._inbox, id, len(header), len(header) + len(sealed))
        return self._websocket.frame(b"%b%b%b\r\n" % (head, header, sealed))

    def ack(self, stream: int, upto: int) -> bytes:
        return self._topics[stream][:0]

    def time(self, sent_ns: int) -> bytes:
        return b""

    def close(self, code: int = 1000) -> bytes:
        return self._websocket.close(code)

    def receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        for item in self._websocket.feed(data):
            if isinstance(item, bytes):
                for line, payload in self._reader.cut(item, events):
                    try:
                        fault = self._line(line, events) if payload is None else self._message(line, payload, events)
                    except (ValueError, LookupError, RecursionError):
                        fault = _said(line)
                    if fault is not None:
                        events += self._websocket.fail(fault)
                        return events
            elif not isinstance(item, str):
                events.append(item)
        return events

    def _line(self, line: bytes, events: list[Event]) -> str | None:
        """Append what a line means; return a sentence if it means that the connection is over."""
        if line == b"PING":
            events.append(Reply(self._websocket.frame(b"PONG\r\n")))
        elif line == b"PONG" and not self._ready:
            self._ready = True
            events.append(Ready(None))
        elif line.startswith(b"INFO "):
            if not self._ready:
                greeting = _CONNECT + b"SUB %b.* r\r\nPING\r\n" % self._inbox
                events.append(Reply(self._websocket.frame(greeting)))
        else:
            return _said(line)
        return None

    def _message(self, line: bytes, payload: bytes, events: list[Event]) -> str | None:
        """Append what `[H]MSG subject sid [reply] [header bytes] bytes` means. Raises ValueError, LookupError."""
        parts = line.split()
        skip = int(parts[-2]) if parts[0] == b"HMSG" else 0
        if not 0 <= skip <= len(payload):
            return _said(line)
        body = payload[skip:] if skip else payload
        sid = parts[2]
        if sid == b"r":
            kind, number = parts[1][len(self._inbox) + 1 :][:1], int(parts[1][len(self._inbox) + 2 :])
            if kind == b"p":
                return self._acknowledged(number, payload, skip, events)
            return self._answered(kind, number, payload, skip, events)
        if sid[:1] == b"s":
            if (stream := int(sid[1:])) in self._streams:
                events.append(State(stream, b"", int(parts[1].rpartition(b".")[2]), body))
            return None
        joined = self._streams.get(int(sid))
        if joined is None:
            return None  # it was left: what was under way
        place = parts[3].split(b".")
        if place[:2] != [b"$JS", b"ACK"]:
            return _said(line)
        seq, consumer_seq, at_ns = int(place[-4]), int(place[-3]), int(place[-2])
        self._begin(joined, events)
        if seq > joined.last + 1 and consumer_seq == joined.consumer_seq + 1:
            events.append(Gap(joined.attach.stream, joined.last + 1, seq - 1))
        joined.last, joined.consumer_seq = seq, consumer_seq
        events.append((joined.attach.stream, seq, at_ns, body))
        if joined.end is not None:
            self._leave(joined, events)
        return None

    def _acknowledged(self, id_: int, payload: bytes, skip: int, events: list[Event]) -> str | None:
        if id_ not in self._under_way:
            return f"the relay acknowledged {id_}, which is not under way"
        self._under_way.discard(id_)
        if skip:  # no stream has the subject
            events.append(Refused(_status(payload), "publish", id_))
            return None
        answer = self._decode(payload)
        if answer.error is not None:
            events.append(Refused(answer.error.err_code, "publish", id_))
        elif answer.seq < 1:
            return "the relay acknowledged a record without a number"
        else:
            events.append(Published(id_, answer.seq))
        return None

    def _answered(self, kind: bytes, stream: int, payload: bytes, skip: int, events: list[Event]) -> str | None:
        """Take the answer to a request about a stream."""
        joined = self._streams[stream]
        if skip:
            return f"the relay answers requests to JetStream with {_status(payload)}: it is not enabled there"
        answer = self._decode(payload)
        if answer.error is not None and kind == b"c" and answer.error.err_code == _OTHER_CONFIGURATION:
            events.append(
                Reply(self._websocket.frame(self._request(b"STREAM.INFO.%b" % joined.topic, b"i%d" % stream)))
            )
        elif answer.error is not None:
            what = "unsubscribe" if kind == b"u" else "subscribe"
            events.append(Refused(answer.error.err_code, what, stream))
            self._topics.pop(stream, None)
            del self._streams[stream]
        elif kind in (b"c", b"i"):
            self._opened(joined, answer, events)
        elif kind == b"k":
            self._begin(joined, events)
        elif kind == b"u":
            joined.end = answer.state.last_seq
            self._leave(joined, events)
        else:
            raise ValueError
        return None

    def _opened(self, joined: _Joined, answer: _Answer, events: list[Event]) -> None:
        """Take where the stream stands, and ask for what is wanted of it."""
        attach, state = joined.attach, answer.state
        joined.epoch, joined.head = _nanoseconds(answer.created), state.last_seq
        first = max(state.first_seq, 1)
        joined.start = start_of(joined.after, joined.asked_epoch, epoch=joined.epoch, first=first, head=joined.head)
        joined.last = joined.start.last
        if not attach.use & 1:
            self._begin(joined, events)
            return
        consumer = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": joined.start.last + 1,
            "deliver_subject": f"{self._inbox.decode()}.d.{attach.stream}",
            "ack_policy": "none",
            "replay_policy": "instant",
            "mem_storage": True,
            "num_replicas": 1,
        }
        about = {"stream_name": attach.topic, "config": consumer}
        request = self._request(b"CONSUMER.CREATE.%b" % joined.topic, b"k%d" % attach.stream, about)
        events.append(Reply(self._websocket.frame(request)))

    def _begin(self, joined: _Joined, events: list[Event]) -> None:
        """Tell that the subscription stands. The first deliveries may come before the answer that says it."""
        if joined.began:
            return
        if joined.start is None:
            raise ValueError
        joined.began = True
        stream = joined.attach.stream
        events.append(Subscribed(stream, joined.epoch, joined.head, joined.start.recovered))
        if joined.start.missing is not None and joined.attach.use & 1:
            events.append(Gap(stream, *joined.start.missing))

    def _leave(self, joined: _Joined, events: list[Event]) -> None:
        """End a subscription that has got what it was owed."""
        assert joined.end is not None
        stream = joined.attach.stream
        if joined.attach.use & 1:
            if joined.last < joined.end:
                return
            # A push consumer without a listener is removed by the server after 5 s.
            events.append(Reply(self._websocket.frame(b"UNSUB %d\r\nUNSUB s%d\r\n" % (stream, stream))))
        del self._streams[stream]
        events.append(Unsubscribed(stream, joined.end))

    def _request(self, api: bytes, answer: bytes, about: object = None) -> bytes:
        body = b"" if about is None else msgspec.json.encode(about)
        return b"PUB $JS.API.%b %b.%b %d\r\n%b\r\n" % (api, self._inbox, answer, len(body), body)


def _said(line: bytes) -> str:
    return f"the relay said {line[:120].decode('latin-1')!r}"


def _status(payload: bytes) -> int:
    """Return the status in `NATS/1.0 503`, the first line of a header. Raises ValueError, IndexError."""
    return int(payload.split(maxsplit=2)[1])


def _nanoseconds(moment: str) -> int:
    """Return the Unix time of `2026-11-27T23:37:58.327463326Z`. Raises ValueError."""
    seconds, _, fraction = moment.rstrip("Z").partition(".")
    whole = int(datetime.fromisoformat(f"{seconds}+00:00").timestamp())
    return whole * 1_000_000_000 + int(fraction[:9].ljust(9, "0"))
