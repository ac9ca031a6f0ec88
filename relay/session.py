"""One client of the relay protocol: its records, its rates, its window. Sans-IO."""

from __future__ import annotations

from typing import Final

import msgspec

from relay import wire
from relay.capability import Right
from relay.errors import Code, ProtocolError, Refused
from relay.hub import Hub
from relay.limits import (
    COMMIT_BATCH_BYTES_MAX,
    CONTROL_PER_S_MAX,
    DURABLE_PER_S_MAX,
    EPHEMERAL_PER_S_MAX,
    EPHEMERAL_SLOT_MAX,
    ERASE_PER_S_MAX,
    KEEPALIVE_S,
    MESSAGE_BYTES_MAX,
    PUBLISH_WINDOW,
    RATE_BURST_S,
    RECORDS_PER_MESSAGE_MAX,
    SEALED_BYTES_MAX,
    SEALED_SIZES,
    STREAMS_PER_CONNECTION_MAX,
    WORK_EXPORT,
    WORK_REQUEST,
    WORK_SIGNATURE,
    WORK_SUBSCRIBE,
)
from relay.outbox import frame_of
from relay.peer import NS_PER_S, Input, Peer, Stage
from relay.stream import Attachment

SEALED_VERSION: Final = 1


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Records a second that one connection may send, by class; `control` are all requests but PUBLISH."""

    durable_per_s: int = DURABLE_PER_S_MAX
    ephemeral_per_s: int = EPHEMERAL_PER_S_MAX
    control_per_s: int = CONTROL_PER_S_MAX


class Session(Peer):
    """A client of the relay protocol. `challenge` is 32 random bytes, this connection's own."""

    __slots__ = (
        "_durable",
        "_ephemeral",
        "_erases",
        "_rates",
        "_refilled_ns",
        "challenge",
        "exporting",
        "unacked",
    )

    def __init__(self, hub: Hub, challenge: bytes, rates: Rates) -> None:
        super().__init__(hub)
        self.challenge = challenge
        self.exporting = False
        self.unacked = 0
        self._rates = rates
        self._refilled_ns = hub.now_ns
        self._durable = rates.durable_per_s * RATE_BURST_S
        self._ephemeral = rates.ephemeral_per_s * RATE_BURST_S
        self._erases: float = ERASE_PER_S_MAX * RATE_BURST_S
        self._control = rates.control_per_s * WORK_REQUEST * RATE_BURST_S

    def receive_messages(self, messages: list[Input]) -> None:
        """Take what one read brought.

        The hot path: durable records that nothing is wrong with. Whatever is not, or not surely, such a record goes the
        long way through `_receive_record`, which checks one thing after the other and names what is wrong.
        """
        decode = wire.decode_one_client
        publish_class = wire.Publish
        hub = self.hub
        suites = hub.suites
        budget = 0
        if self.state == Stage.OPEN and hub.sequencer.waiting_bytes < COMMIT_BATCH_BYTES_MAX:
            budget = PUBLISH_WINDOW - self.unacked
            if self._share < budget:
                budget = self._share
            if self._durable < budget:
                budget = int(self._durable)
        taken = taken_bytes = counted = 0
        number = size = -1
        ids: list[int] = []
        payloads: list[bytes] = []
        left = iter(messages)
        for message in left:
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
                        _, _, _, ids, payloads = hub.sequencer.gather(attachment, record)
                        taken += 1
                        continue
            if taken:
                self._account(taken, taken_bytes + (taken - counted) * size)
            taken = taken_bytes = counted = budget = 0
            if self._share <= 0:
                self._put_off([message, *left])
                return
            if message.__class__ is not bytes:
                self._receive_other(message)
            elif self.state < Stage.CLOSING:
                self._receive_slowly(message)
        if taken:
            self._account(taken, taken_bytes + (taken - counted) * size)

    def _account(self, taken: int, taken_bytes: int) -> None:
        """Account for records that went the hot path."""
        self.unacked += taken
        self._durable -= taken
        self._share -= taken
        self.hub.budget.left -= taken
        self.hub.sequencer.waiting_bytes += taken_bytes

    def receive_message(self, message: bytes) -> None:
        """Take a message: one or more records."""
        self.receive_messages([message])

    def _receive_slowly(self, message: bytes) -> None:
        try:
            records = wire.decode_client(message)
        except ProtocolError as error:
            self.fail(error.code)
            return
        self._receive_records(records)

    def _receive_records(self, records: list[wire.ClientRecord]) -> None:
        for at, record in enumerate(records):
            if self._share <= 0 or (isinstance(record, wire.Subscribe) and not self._may_verify(record.capability)):
                self._put_off([records[at:]])
                return
            if self.state < Stage.CLOSING:
                self._receive_record(record)

    def _receive_other(self, event: Input) -> None:
        if isinstance(event, list):
            self._receive_records(event)
        else:
            super()._receive_other(event)

    def _may_verify(self, capability: bytes) -> bool:
        """Take the signatures that a SUBSCRIBE costs out of the relay's rate and this connection's."""
        number = self.hub.verifier.signatures(capability)
        if not number:
            return True
        if not self.hub.budget.take_signatures(number, self.hub.now_ns):
            self._share = 0
            self._resting = True
            return False
        self._spend(number * WORK_SIGNATURE)
        return True

    def _receive_record(self, record: wire.ClientRecord) -> None:
        if isinstance(record, wire.Hello) is (self.state == Stage.OPEN):
            self.fail(Code.UNEXPECTED)
            return
        kind = record.__struct_config__.tag
        assert isinstance(kind, int)
        about = 0
        try:
            match record:
                case wire.Publish():
                    about = record.id
                    self._control += WORK_REQUEST  # Its rate is another one.
                    self._spend(WORK_REQUEST)
                    self._publish(record)
                    return
                case wire.Hello():
                    self._hello(record)
                    return
                case wire.Subscribe():
                    about = record.request
                    self._spend(WORK_SUBSCRIBE)
                    self._subscribe(record)
                case wire.Time():
                    self._spend(WORK_REQUEST)
                    stamp_ns = self.hub.wall_ns
                    self.hub.push(self.box, frame_of(wire.Timed(record.sent_ns, stamp_ns, stamp_ns)))
                case _:
                    about = record.number
                    self._spend(WORK_REQUEST)
                    self._about_stream(record)
        except Refused as refusal:
            self._spend(WORK_REQUEST)
            self.refuse(refusal.code, kind, about)

    def _hello(self, record: wire.Hello) -> None:
        if record.version != wire.VERSION:
            self.fail(Code.VERSION, wire.HELLO)
            return
        self.state = Stage.OPEN
        limits = wire.Limits(
            SEALED_BYTES_MAX,
            MESSAGE_BYTES_MAX,
            RECORDS_PER_MESSAGE_MAX,
            STREAMS_PER_CONNECTION_MAX,
            PUBLISH_WINDOW,
            self._rates.durable_per_s,
            self._rates.ephemeral_per_s,
            int(KEEPALIVE_S * 1000),
            self._rates.control_per_s,
        )
        self.hub.push(self.box, frame_of(wire.Welcome(wire.VERSION, self.challenge, self.hub.wall_ns, limits)))

    def _subscribe(self, record: wire.Subscribe) -> None:
        capability = self.hub.verifier.check(
            record.capability,
            use=record.use,
            proof=record.proof,
            challenge=self.challenge,
            now_s=self.hub.wall_ns // NS_PER_S,
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
            self._take("_durable")
            if self.unacked >= PUBLISH_WINDOW:
                raise Refused(Code.WINDOW)
            self.hub.sequencer.publish(attachment, record)
            return
        if record.class_ != wire.EPHEMERAL or record.id > EPHEMERAL_SLOT_MAX:
            raise Refused(Code.ID)
        if record.commitment is not None:
            raise Refused(Code.COMMITMENT)
        self._take("_ephemeral")
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
                self.hub.sequencer.acknowledge(attachment, record.upto)
            case wire.Erase():
                self._need(attachment, Right.ERASE)
                self._take("_erases")
                self.hub.erase(attachment)
            case wire.Export():
                self._need(attachment, Right.EXPORT)
                self._spend(WORK_EXPORT)
                self.hub.export(attachment, record.after)

    @staticmethod
    def _need(attachment: Attachment, right: Right) -> None:
        if not attachment.use & right:
            raise Refused(Code.RIGHT)

    def _take(self, budget: str) -> None:
        """Take one out of a rate. Raises Refused(RATE)."""
        if getattr(self, budget) < 1:
            self._refill()
            if getattr(self, budget) < 1:
                raise Refused(Code.RATE)
        setattr(self, budget, getattr(self, budget) - 1)

    def _refill(self) -> None:
        """Give all budgets what the time since the last refill is worth.

        Called only when one is used up, so that a record that is within its rate costs one subtraction.
        """
        elapsed_s = (self.hub.now_ns - self._refilled_ns) / NS_PER_S
        self._refilled_ns = self.hub.now_ns
        rates = self._rates
        for name, per_s in (
            ("_durable", rates.durable_per_s),
            ("_ephemeral", rates.ephemeral_per_s),
            ("_control", rates.control_per_s * WORK_REQUEST),
            ("_erases", ERASE_PER_S_MAX),
        ):
            setattr(self, name, min(getattr(self, name) + elapsed_s * per_s, per_s * RATE_BURST_S))

    def refuse(self, code: Code, record: int, about: int) -> None:
        """Answer ERROR; the connection goes on."""
        if self.state < Stage.CLOSING:
            self._count(code)
            self.hub.push(self.box, frame_of(wire.Error(code, record, about)))

    def leave(self) -> None:
        for attachment in list(self.attachments.values()):
            self.hub.detach(attachment)

    def go_away(self, retry_ms: int) -> None:
        """Tell the client that the relay goes down."""
        if self.state < Stage.CLOSING:
            self.hub.push(self.box, frame_of(wire.GoAway(retry_ms)))
