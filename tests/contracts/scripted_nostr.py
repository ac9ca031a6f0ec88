"""A Nostr relay as NIP-01 describes it: it checks ids and signatures, and answers each request in order."""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from typing import Any

from coincurve import PrivateKey, PublicKeyXOnly

from loadtests.dialects.base import Attach
from loadtests.dialects.check.scripted_end import OverWebSocket

WRITER = PrivateKey(bytes(31) + b"\x07")


class NostrServer(OverWebSocket):
    text = True

    def __init__(self) -> None:
        super().__init__()
        self.subscriptions: dict[str, dict[str, Any]] = {}

    def answers(self, message: bytes) -> list[bytes]:
        match json.loads(message):
            case ["REQ", str(subscription), dict(chosen)]:
                assert len(subscription) <= 64
                self.subscriptions[subscription] = chosen
                return [said("EOSE", subscription)]
            case ["CLOSE", str(subscription)]:
                self.subscriptions.pop(subscription, None)
                return []
            case ["EVENT", dict(event)]:
                check(event)
                return [said("OK", event["id"], True, "")]
            case other:
                raise AssertionError(other)

    def delivery(self, attach: Attach, sealed: bytes) -> bytes:
        event = {
            "pubkey": WRITER.public_key_xonly.format().hex(),
            "created_at": 1_800_000_000,
            "kind": 445,
            "tags": [["h", attach.topic]],
            "content": b64encode(sealed).decode(),
        }
        (subscription,) = [name for name, chosen in self.subscriptions.items() if fits(chosen, event)]
        id_ = hash_of(event)
        return said("EVENT", subscription, {"id": id_.hex(), **event, "sig": WRITER.sign_schnorr(id_, bytes(32)).hex()})


def said(*parts: Any) -> bytes:
    return json.dumps(parts).encode()


def hash_of(event: dict[str, Any]) -> bytes:
    """Return the id of an event: the hash of its serialisation."""
    fields = [0, *(event[name] for name in ("pubkey", "created_at", "kind", "tags", "content"))]
    return sha256(json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()).digest()


def check(event: dict[str, Any]) -> None:
    assert set(event) == {"id", "pubkey", "created_at", "kind", "tags", "content", "sig"}
    assert event["id"] == hash_of(event).hex()
    assert PublicKeyXOnly(bytes.fromhex(event["pubkey"])).verify(bytes.fromhex(event["sig"]), hash_of(event))


def fits(chosen: dict[str, Any], event: dict[str, Any]) -> bool:
    return (
        event["kind"] in chosen.get("kinds", [])
        and event["created_at"] >= chosen.get("since", 0)
        and any(tag[0] == "h" and tag[1] in chosen.get("#h", []) for tag in event["tags"])
    )
