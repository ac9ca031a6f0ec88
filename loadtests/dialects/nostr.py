"""Nostr (NIP-01) over WebSocket: JSON events, signed by their publisher, sealed bytes as base64.

| the relay sends           | means                                                                       |
|---------------------------|-----------------------------------------------------------------------------|
| ["EVENT", sub, event]     | a delivery or a state, by its kind; nothing before the EOSE of `sub`        |
| ["EOSE", sub]             | stored events are over: a subscription stands, or a fence was passed        |
| ["OK", id, taken, why]    | an event was taken; a "duplicate:" is there already, so it was taken too    |
| ["CLOSED", sub, why]      | a subscription is refused; Failed if it stood                               |
| ["NOTICE", why]           | a request was refused that is not named                                     |
| ["AUTH", challenge]       | one may log in; it is not done                                              |

A record is of kind 445, which clients with end-to-end encryption in groups use, a state of the ephemeral kind 20445; both
name their stream in an `h` tag, a state its slot in a `d` tag. Every publisher of a stream has a key of its own, derived
from its capability. Events are signed in `publish`, some 0.1 ms each: they cannot be signed before the load, as the
sealed bytes hold the time of sending. Signatures of what comes are not checked; the sealed bytes are authenticated.

CLOSE is not answered, and who only publishes subscribes to nothing. So both send a *fence*, a subscription that
nothing fits: its EOSE comes after all that was sent before.
Source: github.com/nostr-protocol/nips, 01.md and 16.md (now in 01), EE.md for kind 445; BIP 340 for signatures.
"""

from __future__ import annotations

import random
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from hashlib import blake2b, sha256
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias, TypeVar

import msgspec

from loadtests.dialects.base import (
    Attach,
    Delivered,
    Event,
    Features,
    Place,
    Published,
    Ready,
    Refused,
    Reply,
    State,
    Subscribed,
    Unsubscribed,
)
from loadtests.dialects.frames import TEXT
from loadtests.dialects.websocket import UPGRADED, WebSocket

if TYPE_CHECKING:
    from coincurve import PrivateKey

_Signer: TypeAlias = "tuple[PrivateKey, str]"
"""A key, and the public one in hexadecimal."""

_RECORD: Final = 445
_STATE: Final = 20_445
_LOOK_BACK_S: Final = 60
"""A subscription begins so long ago: live events are compared with it too, and publishers' clocks may be behind."""
_NOTHING: Final = f'{{"ids":["{"0" * 64}"],"limit":1}}'
"""A filter that no event fits."""
_AUXILIARY: Final = bytes(32)
"""BIP 340 makes the nonce from key and message too: without fresh randomness the same event has the same signature."""
_T = TypeVar("_T")
_RECEIVE: Final = 1
_PUBLISH: Final = 2


class _Note(msgspec.Struct):
    kind: int
    pubkey: str
    content: str
    tags: list[list[str]]


class _Event(msgspec.Struct, array_like=True, tag="EVENT"):
    subscription: str
    note: _Note


class _Stored(msgspec.Struct, array_like=True, tag="EOSE"):
    subscription: str


class _Ok(msgspec.Struct, array_like=True, tag="OK"):
    id: str
    taken: bool
    why: str = ""


class _Ended(msgspec.Struct, array_like=True, tag="CLOSED"):
    subscription: str
    why: str = ""


class _Notice(msgspec.Struct, array_like=True, tag="NOTICE"):
    why: str


class _Auth(msgspec.Struct, array_like=True, tag="AUTH"):
    challenge: str


_DECODER: Final = msgspec.json.Decoder(_Event | _Stored | _Ok | _Ended | _Notice | _Auth)


class Nostr:
    """One connection to a Nostr relay. `now_s` gives events their time, in seconds since 1970.

    Raises ImportError with a sentence where coincurve, which signs, is not installed.
    """

    __slots__ = (
        "_asked",
        "_fences",
        "_leaving",
        "_now_s",
        "_published",
        "_ready",
        "_signers",
        "_streams",
        "_topics",
        "_websocket",
    )

    features: ClassVar[Features] = Features(
        numbers=False, acknowledges=True, resumes=False, ephemeral=True, times=False, echoes=True
    )

    def __init__(
        self,
        place: Place,
        *,
        random_bits: Callable[[int], int] = random.getrandbits,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        if find_spec("coincurve") is None:
            raise ImportError("Nostr's events are signed with coincurve: pip install 'relaymark[nostr]'")
        self._websocket = WebSocket(place, "/", None, random_bits)
        self._now_s = now_s
        self._ready = False
        self._fences = 0
        self._asked: dict[str, Attach] = {}  # subscription or fence -> what stands at its EOSE
        self._leaving: dict[str, int] = {}  # fence -> stream
        self._streams: dict[str, int] = {}  # subscription -> stream
        self._topics: dict[int, str] = {}
        self._signers: dict[int, _Signer] = {}
        self._published: dict[str, tuple[bool, int]] = {}  # event -> durable, id or slot; the oldest first

    def opening(self) -> bytes:
        return self._websocket.opening()

    def subscribe(self, attach: Attach, *, after: int | None = None, epoch: int | None = None) -> bytes:
        if not self._ready:
            raise LookupError("subscribe before Ready")
        if not attach.use & _RECEIVE:
            return self._fence(self._asked, attach)
        subscription = str(attach.stream)
        self._asked[subscription] = attach
        since_s = int(self._now_s()) - _LOOK_BACK_S
        chosen = f'"kinds":[{_RECORD},{_STATE}],"#h":["{attach.topic}"],"since":{since_s},"limit":1'
        return self._say(f'["REQ","{subscription}",{{{chosen}}}]')

    def unsubscribe(self, stream: int) -> bytes:
        del self._topics[stream]
        return self._say(f'["CLOSE","{stream}"]') + self._fence(self._leaving, stream)

    def publish(self, stream: int, id: int, sealed: bytes, *, durable: bool = True, slot: int = 0) -> bytes:  # noqa: A002
        topic, (key, public) = self._topics[stream], self._signers[stream]
        kind = _RECORD if durable else _STATE
        tags = f'[["h","{topic}"]]' if durable else f'[["h","{topic}"],["d","{slot}"]]'
        now_s, content = int(self._now_s()), b64encode(sealed).decode("ascii")
        # The id is the hash of this array without spaces; nothing in it needs to be escaped.
        digest = sha256(f'[0,"{public}",{now_s},{kind},{tags},"{content}"]'.encode("ascii")).digest()
        event, signature = digest.hex(), key.sign_schnorr(digest, _AUXILIARY).hex()
        self._published[event] = (durable, id if durable else slot)
        return self._say(
            f'["EVENT",{{"id":"{event}","pubkey":"{public}","created_at":{now_s},"kind":{kind},"tags":{tags},'
            f'"content":"{content}","sig":"{signature}"}}]'
        )

    def ack(self, stream: int, upto: int) -> bytes:
        return self._topics[stream][:0].encode()

    def time(self, sent_ns: int) -> bytes:
        return b""

    def close(self, code: int = 1000) -> bytes:
        return self._websocket.close(code)

    def _say(self, text: str) -> bytes:
        return self._websocket.frame(text.encode("ascii"), TEXT)

    def _fence(self, waiting: dict[str, _T], for_what: _T) -> bytes:
        self._fences += 1
        fence = f"fence {self._fences}"
        waiting[fence] = for_what
        return self._say(f'["REQ","{fence}",{_NOTHING}]')

    def receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        for item in self._websocket.feed(data):
            if isinstance(item, bytes):
                try:
                    self._take(item, events)
                except (ValueError, LookupError, RecursionError) as error:
                    events += self._websocket.fail(f"the relay sent what is no message of the protocol: {error}")
                    break
            elif item == UPGRADED:
                self._ready = True
                events.append(Ready(None))
            elif not isinstance(item, str):
                events.append(item)
        return events

    def _take(self, item: bytes, events: list[Event]) -> None:
        """Append what one message means. Raises LookupError for what was not asked for, ValueError for wrong base64."""
        match _DECODER.decode(item):
            case _Event(subscription, note):
                stream = self._streams.get(subscription)
                if stream is not None:  # else stored, or on its way when we left
                    events.append(_delivery(stream, note))
            case _Ok(event, taken, why):
                # nostr-relay does not say which event it refused; it answers in order.
                durable, about = self._published.pop(event or next(iter(self._published), ""))
                if not taken and not why.startswith("duplicate:"):
                    events.append(Refused(0, "publish", about))
                elif durable:
                    events.append(Published(about, None))
            case _Stored(subscription):
                self._passed(subscription, events)
            case _Ended(subscription) if subscription in self._asked:
                events.append(Refused(0, "subscribe", self._asked.pop(subscription).stream))
            case _Ended(subscription, why):
                raise LookupError(f"it ended a subscription: {why}")
            case _Notice():
                events.append(Refused(0, "other", 0))

    def _passed(self, subscription: str, events: list[Event]) -> None:
        """Append what the EOSE of a subscription or a fence means."""
        if subscription.startswith("fence"):
            events.append(Reply(self._say(f'["CLOSE","{subscription}"]')))
        if subscription in self._leaving:
            stream = self._leaving.pop(subscription)
            self._streams.pop(str(stream), None)
            events.append(Unsubscribed(stream, None))
            return
        attach = self._asked.pop(subscription)
        self._topics[attach.stream] = attach.topic
        if attach.use & _RECEIVE:
            self._streams[subscription] = attach.stream
        if attach.use & _PUBLISH:
            self._signers[attach.stream] = _signer(attach.capability)
        events.append(Subscribed(attach.stream, None, None, False))


def _signer(capability: bytes) -> _Signer:
    from coincurve import PrivateKey

    # A hash is no valid key once in 2^128.
    key = PrivateKey(blake2b(capability, digest_size=32, person=b"relaymark nostr").digest())
    return key, key.public_key_xonly.format().hex()


def _delivery(stream: int, note: _Note) -> Delivered | State:
    """Return the record or state that an event carries. Raises ValueError for wrong base64 or another slot than a number."""
    sealed = b64decode(note.content, validate=True)
    if note.kind != _STATE:
        return stream, None, None, sealed
    slot = next((tag[1] for tag in note.tags if tag[:1] == ["d"] and len(tag) > 1), "0")
    return State(stream, note.pubkey[:16].encode(), int(slot), sealed)
