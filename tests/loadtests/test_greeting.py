"""A target that cannot be measured is told in a sentence before any load, whatever is wrong with it."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loadtests.address import TargetError
from loadtests.dialects.find import DialectError
from loadtests.settings import Settings
from loadtests.target import greeting
from loadtests.target.greeting import greet

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
HUGE = b"\x82\x7f" + (1 << 32).to_bytes(8)


def upgrade(peer: socket.socket) -> None:
    """Answer the opening handshake as a WebSocket server does."""
    request = peer.recv(65_536)
    key = re.search(rb"Sec-WebSocket-Key: (\S+)", request, re.IGNORECASE)
    assert key is not None
    accept = base64.b64encode(hashlib.sha1(key[1] + GUID).digest())
    peer.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept
        + b"\r\n\r\n"
    )


def close_at_once(peer: socket.socket) -> None:
    return


def another_protocol(peer: socket.socket) -> None:
    peer.recv(65_536)
    peer.sendall(b"220 mail.example.invalid ESMTP\r\n\r\n")


def say_nothing(peer: socket.socket) -> None:
    while peer.recv(65_536):
        pass


def four_gigabytes(peer: socket.socket) -> None:
    upgrade(peer)
    peer.recv(65_536)
    peer.sendall(HUGE)
    say_nothing(peer)


def close_after_the_greeting(peer: socket.socket) -> None:
    upgrade(peer)
    peer.recv(65_536)
    peer.sendall(b"\x88\x02\x0f\xa1")
    say_nothing(peer)


def greet_and_forget(peer: socket.socket) -> None:
    upgrade(peer)
    say_nothing(peer)


def answer(peer: socket.socket) -> None:
    upgrade(peer)
    peer.recv(65_536)
    peer.sendall(b"\x82\x01x")
    say_nothing(peer)


@contextmanager
def served(act: Callable[[socket.socket], None]) -> Iterator[str]:
    def serve(listener: socket.socket) -> None:
        try:
            peer, _ = listener.accept()
            with peer:
                act(peer)
        except OSError:
            return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}"
    thread.join(5)


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (close_at_once, r"closed the connection instead of answering|ended the connection"),
        (another_protocol, "speaks another protocol: "),
        (say_nothing, r"did not greet within 0 s\."),
        (four_gigabytes, "speaks another protocol: "),
        (close_after_the_greeting, r"refused us with close code 4001\."),
        (greet_and_forget, r"did not let us subscribe within 0 s\."),
    ],
)
def test_a_relay_that_cannot_be_measured(
    act: Callable[[socket.socket], None], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(greeting, "PROBE_S_MAX", 0.3)
    with served(act) as url, pytest.raises(TargetError, match=says) as error:
        greet(Settings(scenario="room", url=url, dialect="raw", participants=2))
    assert url in str(error.value)


def test_a_dialect_that_raises_is_told_as_the_dialects_fault(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from loadtests.dialects.raw import Raw\n\n\nclass Mine(Raw):\n    def receive(self, data):\n"
        "        raise KeyError('topic')\n"
    )
    spec = f"{tmp_path}/mine.py:Mine"
    with served(answer) as url, pytest.raises(DialectError, match="raised in receive: KeyError: 'topic'"):
        greet(Settings(scenario="room", url=url, dialect=spec, participants=2))
