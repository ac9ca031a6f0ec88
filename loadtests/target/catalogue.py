"""The relays that we know how to start, by name, and what each promises.

Everything is in memory but for those whose promise says otherwise, and a target runs on one core where it can be told to.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from loadtests.target.relays import (
    bun,
    centrifugo,
    ejabberd,
    jetstream,
    mosquitto,
    nats,
    nchan,
    nostr,
    prosody,
    rabbitmq,
    redis,
    socketio,
    valkey,
)
from loadtests.target.target import Program, Promises, ReferenceVariant, Target

TRANSPORTS: Final = ("pump", "trio-websocket", "uvloop")
_MEMORY: Final = "none: memory"
_MISSED: Final = "none: what passes while away is missed"
_BY_PUBLISHER: Final = "per publisher"


def reference(store: str = "memory", transport: str = TRANSPORTS[0]) -> Target:
    """Return the relay of this package with this store and transport."""
    durable = store.startswith("sqlite")
    variants = [part for part in (transport if transport != TRANSPORTS[0] else "", "sqlite" if durable else "") if part]
    return Target(
        name="@".join(["reference", *variants]),
        dialect="reference",
        program=ReferenceVariant(store=store, transport=transport),
        promises=Promises(
            durability="on disk before it is acknowledged" if durable else _MEMORY,
            order="numbered without gaps, per stream",
            resume="from the last number; gaps are told" + ("" if durable else "; until the relay ends"),
            acknowledged="committed and numbered",
            ordered="stream",
            resumes=True,
            survives="kill" if durable else "nothing",
            tells_gaps=True,
        ),
        about="the relay of this package",
    )


def _pubsub(
    name: str, dialect: str, program: Program, acknowledged: str, about: str, order: str = _BY_PUBLISHER
) -> Target:
    """A relay that passes on and keeps nothing."""
    return Target(
        name=name,
        dialect=dialect,
        program=program,
        promises=Promises(
            durability=_MEMORY,
            order=order,
            resume=_MISSED,
            acknowledged=acknowledged,
            ordered="publisher" if order == _BY_PUBLISHER else "stream",
        ),
        about=about,
    )


def _over_tcp(target: Target) -> Target:
    return replace(target, websocket=False, promises=replace(target.promises, transport="plain TCP"))


def _redis(name: str, program: Program, about: str) -> Target:
    queued = "queued for every subscriber"
    return _over_tcp(_pubsub(name, "redis", program, queued, f"Pub/Sub of {about}", "per channel"))


def _streams(name: str, program: Program, about: str) -> Target:
    return _over_tcp(
        Target(
            name=name,
            dialect="redis-streams",
            program=program,
            promises=Promises(
                durability=_MEMORY,
                order="numbered per stream",
                resume="from the last number, until the server ends",
                acknowledged="numbered and in the stream",
                ordered="stream",
                resumes=True,
            ),
            about=f"Streams of {about}",
        )
    )


_QUEUED: Final = "queued for every subscriber"
_ALL: Final = (
    reference(),
    reference(transport="trio-websocket"),
    reference(transport="uvloop"),
    reference(store="sqlite"),
    _pubsub("nats", "nats", nats, "received, before it is passed on", "nats-server over WebSocket"),
    Target(
        name="jetstream",
        dialect="jetstream",
        program=jetstream,
        promises=Promises(
            durability="in a file, not yet on disk, before it is acknowledged",
            order="numbered per stream",
            resume="from the last number",
            acknowledged="stored and numbered (PubAck)",
            ordered="stream",
            resumes=True,
            survives="kill",
        ),
        about="nats-server with JetStream over WebSocket",
    ),
    _pubsub("bun", "raw", bun, _QUEUED, "Bun's publish (uWebSockets)"),
    _pubsub(
        "nchan",
        "nchan",
        nchan,
        _QUEUED,
        "nchan in nginx, whose version this is; it keeps ten messages a channel",
        "per channel",
    ),
    _pubsub("mosquitto", "mqtt", mosquitto, "taken over (QoS 1); delivered with QoS 0", "MQTT over WebSocket"),
    _redis("redis", redis, "Redis"),
    _redis("valkey", valkey, "Valkey"),
    _streams("redis-streams", redis, "Redis"),
    _streams("valkey-streams", valkey, "Valkey"),
    _pubsub("centrifugo", "centrifugo", centrifugo, _QUEUED, "Centrifugo, JSON; its history is off", "per channel"),
    _pubsub("socketio", "socketio", socketio, "emitted to the room", "Socket.IO on Node"),
    Target(
        name="nostr",
        dialect="nostr",
        program=nostr,
        promises=Promises(
            durability="in SQLite before it is acknowledged",
            order="not told",
            resume=_MISSED,
            acknowledged="validated and stored (OK)",
        ),
        about="nostr-relay, NIP-01",
    ),
    _pubsub("prosody", "xmpp", prosody, "the room's copy to its author", "XMPP over WebSocket", "per room"),
    _pubsub("ejabberd", "xmpp", ejabberd, "the room's copy to its author", "XMPP over WebSocket", "per room"),
    _pubsub("rabbitmq", "stomp", rabbitmq, "routed (RECEIPT)", "STOMP over WebSocket"),
)

CATALOGUE: Final = {target.name: target for target in _ALL}
