"""Every bound of the relay, each with its reason; relations between bounds are asserted at import.

A unit ends each name. What a client must know is told in WELCOME.
"""

from __future__ import annotations

from typing import Final

# -- the sealed payload ------------------------------------------------------------------------------
SEALED_BYTES_MIN: Final = 256
"""Shorter payloads are padded to this: a typing indicator and a short chat message look alike."""
SEALED_BYTES_MAX: Final = 131_072
"""A 64 KiB media chunk with its header, padded. Larger media travels as several chunks."""
COMMITMENT_BYTES: Final = 32
TAG_BYTES: Final = 32
HANDLE_BYTES: Final = 16
CHALLENGE_BYTES: Final = 32
STREAM_KEY_BYTES: Final = 32

# -- what one message may hold -----------------------------------------------------------------------
MESSAGE_BYTES_MAX: Final = 262_144
"""Two of the largest payloads: what a client may make the relay buffer before it is understood."""
RECORDS_PER_MESSAGE_MAX: Final = 64
"""Bounds the work that one message can cause before other connections are served."""
FRAGMENTS_PER_MESSAGE_MAX: Final = 128
"""A message in many tiny fragments costs far more than its bytes."""
INCOMPLETE_BYTES_MAX: Final = 67_108_864
"""Default of messages that are not whole yet, of all connections together: past this the oldest of them ends its connection."""
INCOMPLETE_S_MAX: Final = 30.0
"""For a message to become whole: the largest needs 9 kB/s."""
RECV_BYTES: Final = 65_536
"""One read. Larger reads did not raise throughput and let one client hold the turn for longer."""

# -- one connection ----------------------------------------------------------------------------------
STREAMS_PER_CONNECTION_MAX: Final = 4_096
"""A performer with a few thousand private chats on one connection."""
PUBLISH_WINDOW: Final = 256
"""Unacknowledged durable records a connection may have; also how far back `id` makes a retry idempotent."""
LEFT_IDS_MAX: Final = 1_000_000
"""Ids that are kept for publishers who are not connected, all streams together: some 150 MB. A room may see new members
for years."""
DURABLE_PER_S_MAX: Final = 20_000
EPHEMERAL_PER_S_MAX: Final = 20_000
CONTROL_PER_S_MAX: Final = 5_000
"""Default rates of a connection. They protect the relay from a runaway client, not a platform from spam: a
platform sets its own, lower ones. The closed loops of the benchmarks stay below them."""
ERASE_PER_S_MAX: Final = 20
"""An ERASE is work for the disk, which everybody's records wait for."""
RATE_BURST_S: Final = 1.0
"""A connection may save up this much of its rate."""

# -- work ----------------------------------------------------------------------------------------------
#
# Bytes do not say what they cost: 64 KiB of publishes take the relay less than a millisecond, 64 KiB of TIME requests
# took it 87. So work is counted, in units of some 4 us: what a publish on the hot path costs.
WORK_REQUEST: Final = 4
"""A request other than such a publish, or one that is refused; its answer included."""
WORK_SIGNATURE: Final = 32
"""An Ed25519 verification."""
WORK_SUBSCRIBE: Final = 12
"""Beside the signature: the stream may be a new one, and the store is asked for it."""
WORK_EXPORT: Final = 128
"""A page of 128 KiB that is read, taken apart and put together."""
WORK_FRAME: Final = 1
"""A ping, a pong, or a fragment after the first."""
SHARE_WORK: Final = 32
"""Work of one connection in one turn; the rest of what it sent waits. With a hundred connections that all use their share
everybody is served within some 15 ms."""
SMALL_FRAMES_PER_SHARE: Final = 32
"""Frames that are parsed for a share: small ones cost more than their bytes."""
TURN_WORK: Final = 256
"""Work of all connections that are read in a turn, some 1 ms; those that are left are the first of the next."""
BACKLOG_WORK: Final = 128
"""Work of all connections that are behind, in one turn: they take at most half as much as those that are not."""
REST_S: Final = 0.02
"""A connection that has used up its rate is looked at again after this."""
SIGNATURES_PER_S_MAX: Final = 3_000
"""Verifications of the whole relay: a third of a core at some 120 us. Keys cost a stranger nothing, so a bound on each
connection is none. Capabilities that are remembered cost none and do not wait."""

# -- the outbox of one connection --------------------------------------------------------------------
UNSENT_BYTES_MAX: Final = 16_384
"""What the kernel takes of a connection that it cannot send yet (TCP_NOTSENT_LOWAT). By default it takes megabytes before a
send is refused, and every bound below begins behind them: a reader of 20 kB/s got states that were 55 s old."""
CONTROL_QUEUE_BYTES_MAX: Final = 262_144
"""Past this the relay stops reading from the client: it asks for more than it takes."""
EPHEMERAL_QUEUE_BYTES_MAX: Final = 65_536
DURABLE_QUEUE_BYTES_MAX: Final = 1_048_576
"""A second of a busy room. Past this the queue is dropped and the client is replayed from the store."""
REPLAY_BYTES: Final = 262_144
"""Read from the store at a time for a client that catches up."""
LAGGING_S_MAX: Final = 60.0
"""A client that has not caught up by then is closed, and told to resume."""
SEND_STALL_S_MAX: Final = 30.0
"""A client that takes no byte at all for this long, while some wait, is closed."""

# -- time --------------------------------------------------------------------------------------------
HANDSHAKE_S_MAX: Final = 10.0
"""From accept to HELLO. One byte a second does not get through."""
HANDSHAKES_MAX: Final = 512
"""Handshakes under way at once. Bounds the memory of a connect storm."""
HANDSHAKE_GRACE_S: Final = 1.0
"""When there are so many, the oldest gives way to a new connection once it is this old: a few round trips of a slow link,
and TLS. Sockets that say nothing are then let go at 512 a second."""
HANDSHAKE_BYTES_MAX: Final = 16_384
HANDSHAKE_HEADERS_MAX: Final = 512
DESCRIPTORS_RESERVED: Final = 64
"""The last descriptors are not for clients: /readyz and /metrics must answer when they run out, and files open."""
KEEPALIVE_S: Final = 30.0
"""A silent client is pinged after this, and closed after twice this."""
CLOSE_S_MAX: Final = 5.0
"""From our close frame to the client's answer."""
DRAIN_S: Final = 10.0
"""From SIGTERM to exit."""
EXPIRY_SWEEP_S: Final = 60.0

# -- fan-out -----------------------------------------------------------------------------------------
FANOUT_SLICE_SENDS: Final = 24
"""Sends before the pump looks at its sockets again: at some 7 us a send, a private chat beside a room of
thousands waits for less than 0.2 ms, not for the room. When more is published than can be sent, the queue makes several
records of a stream leave in one send. 200 private chats carried most with 16 at window 1, and with 32 at window 8."""
FEW_SENDS: Final = 8
"""Sends a turn to streams with few subscribers that need not queue: what is alone is not delayed at all."""
OUTGOING_BYTES_MAX: Final = 262_144
"""Committed records of a stream that wait for its fan-out. Above this the stream commits no more, so its publishers are
not acknowledged and their windows make them wait."""

# -- a stream ----------------------------------------------------------------------------------------
STREAMS_MAX: Final = 200_000
"""Default of streams in memory, some 2.5 KB each: a stranger made 5,000 a second, at no cost."""
STREAM_NUMBER_MAX: Final = 2**32 - 1
EPHEMERAL_SLOT_MAX: Final = 255
"""Independent states (typing, presence, position) that one publisher keeps in a stream."""
ACK_QUORUM_MAX: Final = 65_535
RETAIN_S: Final = 7 * 86_400
"""Default age at which a durable record is forgotten."""
RETAIN_STREAM_BYTES_MAX: Final = 1_048_576
"""Memory store: the newest records that a stream keeps, some 3,500 small ones."""
RETAIN_TOTAL_BYTES_MAX: Final = 2 * 1024**3
"""Memory store: all streams together. Past this the longest unused streams are forgotten first."""
STREAM_BYTES_MAX: Final = 1024**3
"""SQLite store: what a stream may hold before its records are refused; some two million small ones."""
STORE_BYTES_MAX: Final = 64 * 1024**3
"""SQLite store: the database, before records are refused. What frees space is always taken."""
COMMIT_BATCH_BYTES_MAX: Final = 4_194_304
"""Durable records that gather while a commit is under way. Past this new ones are refused as unavailable:
a store that stands still must not fill the memory."""
EXPORT_BYTES_MAX: Final = 131_072
"""Sealed bytes in one EXPORTED page."""

# -- capabilities ------------------------------------------------------------------------------------
CAPABILITIES_REMEMBERED_MAX: Final = 65_536
"""Verified capabilities kept (0.5 KB each, 35 MB in all), so that a reconnect storm costs no signature checks."""


def padme_bytes(length: int) -> int:
    """Return the padded size for `length` bytes: 256 at least, PADME above.

    Source: Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", 2019,
    section 4: at most 12 % overhead, and only O(log log n) bits of the length leak.
    """
    if length <= SEALED_BYTES_MIN:
        return SEALED_BYTES_MIN
    exponent = length.bit_length() - 1
    low_bits = exponent - exponent.bit_length()
    mask = (1 << low_bits) - 1
    return (length + mask) & ~mask


def _sealed_sizes() -> frozenset[int]:
    sizes = []
    size = SEALED_BYTES_MIN
    while size <= SEALED_BYTES_MAX:
        sizes.append(size)
        size = padme_bytes(size + 1)
    return frozenset(sizes)


SEALED_SIZES: Final = _sealed_sizes()
"""All sizes that a sealed payload may have: a look-up is cheaper than the arithmetic."""

assert SEALED_BYTES_MAX in SEALED_SIZES
assert SEALED_BYTES_MAX + 1024 <= MESSAGE_BYTES_MAX, "the largest payload fits a message with its record around it"
assert EXPORT_BYTES_MAX + 1024 <= MESSAGE_BYTES_MAX
assert REPLAY_BYTES <= DURABLE_QUEUE_BYTES_MAX, "a replay must not overflow the queue that it refills"
assert MESSAGE_BYTES_MAX <= DURABLE_QUEUE_BYTES_MAX
assert DURABLE_PER_S_MAX * RATE_BURST_S >= PUBLISH_WINDOW, "a resume may send its whole window at once"
assert KEEPALIVE_S < LAGGING_S_MAX
assert SEND_STALL_S_MAX <= LAGGING_S_MAX
assert CLOSE_S_MAX < DRAIN_S
