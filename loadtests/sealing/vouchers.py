"""Vouchers of tips: a payment gateway signs that a tip is paid, the performer checks it, and finds one spent twice.

The relay sees none of this: a voucher is the body of a sealed tip. Layout, 85 bytes, big-endian:

    version u8 = 1 | room u32 | amount_cents u64 | serial u64 | Ed25519 signature 64

The signature is the gateway's, over `"relaymark.v1 voucher" 0x00` and the 21 bytes before it.
"""

from __future__ import annotations

from enum import Enum
from struct import Struct as Layout
from typing import Final

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

VERSION: Final = 1
_STATEMENT: Final = Layout(">BIQQ")
VOUCHER_BYTES: Final = _STATEMENT.size + 64
_CONTEXT: Final = b"relaymark.v1 voucher\x00"


class Redemption(Enum):
    """What a performer's till says to a voucher."""

    ACCEPTED = "accepted"
    DOUBLE_SPENT = "double-spent"
    FORGED = "forged"
    WRONG_ROOM = "wrong-room"


def issue(gateway: SigningKey, *, serial: int, room: int, amount_cents: int) -> bytes:
    """Return a voucher, signed. `serial` is the gateway's and never given twice; `room` is the stream of the tip."""
    statement = _STATEMENT.pack(VERSION, room, amount_cents, serial)
    return statement + gateway.sign(_CONTEXT + statement).signature


class Till:
    """One performer's: takes the vouchers of one room. Memory: one number a voucher accepted."""

    __slots__ = ("_gateway", "_room", "_spent", "amount_cents", "counts")

    def __init__(self, gateway: VerifyKey, room: int) -> None:
        self._gateway = gateway
        self._room = room
        self._spent: set[int] = set()
        self.amount_cents = 0
        """The sum of what was accepted."""
        self.counts: dict[Redemption, int] = dict.fromkeys(Redemption, 0)

    def take(self, voucher: bytes) -> Redemption:
        """Check a voucher and enter it."""
        outcome = self._judge(voucher)
        self.counts[outcome] += 1
        return outcome

    def _judge(self, voucher: bytes) -> Redemption:
        if len(voucher) != VOUCHER_BYTES:
            return Redemption.FORGED
        statement, signature = voucher[: _STATEMENT.size], voucher[_STATEMENT.size :]
        version, room, amount_cents, serial = _STATEMENT.unpack(statement)
        try:
            self._gateway.verify(_CONTEXT + statement, signature)
        except BadSignatureError:
            return Redemption.FORGED
        if version != VERSION:
            return Redemption.FORGED
        if room != self._room:
            return Redemption.WRONG_ROOM
        if serial in self._spent:
            return Redemption.DOUBLE_SPENT
        self._spent.add(serial)
        self.amount_cents += amount_cents
        return Redemption.ACCEPTED
