"""The scenarios as numbers: what share of the traffic is what, and what happens when. All else is in traffic.py.

Shares are of the workload's chat rate; moments are shares of the run's duration.
"""

from __future__ import annotations

from typing import Final

import msgspec

BODY_BYTES_MEAN: Final = 60
BODY_BYTES_MAX: Final = 2_000
MEDIA_CHUNK_BYTES: Final = 65_536
"""relay.limits.SEALED_BYTES_MAX is made for a chunk of this size."""
MEDIA_CHUNKS_MAX: Final = 16
"""A picture of a megabyte."""
MEDIA_CHUNK_INTERVAL_NS: Final = 20_000_000
"""Between the chunks of one file: some 27 Mbit/s of upload."""
TYPING_LEAD_NS_MIN: Final = 1_000_000_000
TYPING_LEAD_NS_MAX: Final = 4_000_000_000
TYPING_EVERY_NS: Final = 1_500_000_000
"""As chat clients do: typing is said again while it goes on, and goes out by itself."""
FLASH_WITHIN_S: Final = 2.0
CUT_AWAY_NS_MAX: Final = 500_000_000
"""All are cut at once; each comes back within this."""
DELIVERED_NS: Final = (20_000_000, 120_000_000)
"""From arrival to the delivered receipt: the client's own doing."""
READ_NS: Final = (500_000_000, 4_000_000_000)
"""From arrival to the read receipt: a person's."""
TIP_BRANCHING: Final = 0.6
TIP_DECAY_S: Final = 1.5
DOUBLE_SPEND_SHARE: Final = 0.02
ZIPF_EXPONENT: Final = 1.0
SLOW_BYTES_PER_S_MIN: Final = 1_024
RATE_PER_PARTICIPANT: Final = 0.1
"""Chat messages a second that a participant writes by default: one in ten seconds."""
DELIVERIES_PER_S_DEFAULT: Final = 10_000
"""What the default rate makes at most, each publish counted as five: two cores carry that with room to spare."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario."""

    about: str
    """One sentence for the user."""
    participants_min: int = 2

    # -- rooms: a performer and viewers; everyone else is in a private chat alone
    participants_per_room: int = 0
    """0: no rooms; otherwise so many on average, at least one room."""
    one_room: bool = False
    room_share: float = 0.0
    """Share of the chat rate, in rooms, split by their sizes."""
    performer_share: float = 0.1
    """Share of a room's chat that is written by its performer."""
    chat_bytes: int | None = None
    """Size of a chat message's body; None: drawn, exponential around `BODY_BYTES_MEAN`."""

    # -- private chats
    private_of_viewers: float = 0.0
    """Share of a room's viewers that also have a private chat: one in three with the performer, the others in pairs."""

    # -- what comes with a message
    room_typing: float = 0.0
    """Share of a room's members that show they type; the performer always does where it is not 0."""
    room_receipts: float = 0.0
    """Share of a room's viewers that send receipts for the performer's messages, to the performer's inbox."""
    typing_every_ns: int = TYPING_EVERY_NS
    private_signals: bool = True
    """Typing before each private message, and a delivered and a read receipt after it."""

    # -- beside the chat
    tips_share: float = 0.0
    media_share: float = 0.0
    """Files for each chat message; private where there are private chats, otherwise by the performer."""
    media_from: float = 0.0
    """When the files begin: what comes before is the chat alone, to compare with."""

    # -- events
    flash_share: float = 0.0
    """Share of the largest room's viewers who join within `FLASH_WITHIN_S` at `flash_at`."""
    flash_at: float = 0.3
    cut_share: float = 0.0
    """Share of all connections that is cut at once at `cut_at`."""
    cut_at: float = 0.4
    slow_share: float = 0.0
    """Share of all viewers who read half as fast as their room writes."""
    diurnal_swing: float = 0.0
    """Above 0, the chat rate swings so far around its mean, once in the run: the evening's peak is in its middle."""


SCENARIOS: Final[dict[str, Scenario]] = {
    "private-chat": Scenario(
        about="pairs that chat, with typing before each message and delivered and read receipts after it",
    ),
    "room": Scenario(
        about="one performer and viewers, who chat",
        one_room=True,
        participants_per_room=1,
        room_share=1.0,
    ),
    "typing-storm": Scenario(
        about="one room in which everybody shows that they type, twice a second",
        one_room=True,
        participants_per_room=1,
        room_share=1.0,
        room_typing=1.0,
        typing_every_ns=500_000_000,
    ),
    "receipt-storm": Scenario(
        about="a performer writes to a large room, and everybody's receipts flow back",
        one_room=True,
        participants_per_room=1,
        room_share=1.0,
        performer_share=1.0,
        room_receipts=1.0,
    ),
    "tips": Scenario(
        about="a room in which tips come in self-exciting bursts, with vouchers, some of them spent twice",
        one_room=True,
        participants_per_room=1,
        room_share=1.0,
        tips_share=1.0,
    ),
    "media": Scenario(
        about="private chat, alone for half of the run and then beside chunked sealed files",
        media_share=0.2,
        media_from=0.5,
    ),
    "flash-crowd": Scenario(
        about="four in five viewers of a room join within two seconds",
        one_room=True,
        participants_per_room=1,
        room_share=1.0,
        flash_share=0.8,
    ),
    "reconnect-storm": Scenario(
        about="rooms and private chats; all connections are cut at once, and resume",
        participants_min=4,
        participants_per_room=80,
        room_share=0.5,
        private_of_viewers=0.75,
        cut_share=1.0,
    ),
    "slow-readers": Scenario(
        about="a room with long messages, in which one viewer in twenty reads half as fast as it is written",
        participants_min=3,
        one_room=True,
        participants_per_room=1,
        room_share=1.0,
        chat_bytes=4_000,
        slow_share=0.05,
    ),
    "mix": Scenario(
        about="rooms of all sizes and private chats, nothing but messages: what relays are compared by",
        participants_min=4,
        participants_per_room=25,
        room_share=0.3,
        private_of_viewers=0.75,
        private_signals=False,
    ),
    "evening-peak": Scenario(
        about="all of them mixed: Zipf-sized rooms, private chats, an evening's rate compressed into the run",
        participants_min=10,
        participants_per_room=80,
        room_share=0.5,
        private_of_viewers=0.75,
        room_typing=0.1,
        room_receipts=0.3,
        tips_share=0.1,
        media_share=0.01,
        flash_share=0.15,
        flash_at=0.4,
        cut_share=0.1,
        cut_at=0.7,
        slow_share=0.01,
        diurnal_swing=0.6,
    ),
}
