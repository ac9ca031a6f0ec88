"""One contract for the three transports, on real processes: framing, records, TLS, slow readers, limits, drain.

Relays are shared by all tests of this module; every test has streams of its own. What takes long (a handshake of a byte a
second, clients that never read) begins when the first test does, and is looked at by the last ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import CERTIFICATE, WAIT_S, Member, RelayProcess, relay_process
from scripted import ERASE, EXPORT, PUBLISH, SUBSCRIBE, capability_of, label_of, sealed_of, stream_key
from websockets.asyncio.client import connect as async_connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.frames import Opcode
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from relay import capability, wire
from relay.errors import Code, close_code
from relay.limits import HANDSHAKE_S_MAX, MESSAGE_BYTES_MAX, SEALED_BYTES_MAX

pytestmark = pytest.mark.process

TRANSPORTS = ("pump", "trio-websocket", "uvloop")
SUBPROTOCOLS = [Subprotocol(wire.SUBPROTOCOL)]
HURRIED = (str(Path(__file__).with_name("hurried_relay.py")),)
TLS = ("--tls-cert", str(CERTIFICATE / "cert.pem"), "--tls-key", str(CERTIFICATE / "key.pem"))

streams = itertools.count(1)


class Began:
    """Something that takes long, in a thread; `result` waits for what came of it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        self._thread.join(2 * WAIT_S)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error
        return self._result


def drip(port: int, data: bytes) -> float:
    """Send a byte a second; return the seconds until the relay closes."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(1.0)
        for byte in itertools.cycle(data):
            try:
                sock.sendall(bytes((byte,)))
                if not sock.recv(1000):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    return time.monotonic() - began


def never_read(port: int) -> int | None:
    """Subscribe to a busy stream and read nothing for long enough; return the close code that is found behind it all."""
    index = 900_001
    with Member(port, receive_buffer_bytes=4096) as deaf, Member(port) as author:
        deaf.subscribe(index, SUBSCRIBE, member=2)
        number = author.subscribe(index, PUBLISH).number
        ended = time.monotonic() + 6.0  # 60 s of the relay's
        label = 0
        while time.monotonic() < ended:
            author.send(wire.Publish(number, 0, label, None, sealed_of(label, SEALED_BYTES_MAX)))
            author.next(wire.Published)
            label += 1
            time.sleep(0.02)
        return deaf.closed()


def only_answer_pings(port: int) -> bool:
    """Return whether the relay still serves after more than twice the time at which silence is closed."""
    with Member(port) as client:
        ended = time.monotonic() + 13.0  # 130 s of the relay's
        while (left_s := ended - time.monotonic()) > 0:
            try:
                client.receive(min(left_s, 0.5))
                return False
            except TimeoutError:
                continue
        client.send(wire.Time(1))
        return isinstance(client.receive(), wire.Timed)


def say_nothing(port: int) -> int | None:
    """Hear pings and do not answer; return the close code."""
    with Member(port) as client:
        client.give = lambda *_: None  # type: ignore[method-assign]
        return client.closed()


def say_no_hello(port: int) -> int | None:
    """Return the close code."""
    with Member(port, hello=False) as client:
        return client.closed()


class Relays:
    """One relay a transport, and one with a hurried clock; both serve until the module is done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plain = {
            name: RelayProcess("--transport", name, "--echo", "--store", f"sqlite:{folder / name}.db")
            for name in TRANSPORTS
        }
        self.hurried = {name: RelayProcess(name, command=HURRIED) for name in TRANSPORTS}
        request = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nX: " + b"y" * 100
        self.drips = {name: Began(lambda port=relay.port: drip(port, request)) for name, relay in self.plain.items()}
        self.hurry = {
            (what.__name__, name): Began(lambda what=what, port=relay.port: what(port))
            for name, relay in self.hurried.items()
            for what in (never_read, only_answer_pings, say_nothing, say_no_hello)
        }

    def close(self) -> None:
        for relay in (*self.plain.values(), *self.hurried.values()):
            relay.close()


@pytest.fixture(scope="module")
def relays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relays]:
    made = Relays(tmp_path_factory.mktemp("transports"))
    yield made
    made.close()


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def relay(relays: Relays, transport: str) -> RelayProcess:
    return relays.plain[transport]


@pytest.fixture
def index() -> int:
    """A stream of the test's own."""
    return next(streams)


def library(relay: RelayProcess, path: str = "/", **options: Any) -> ClientConnection:
    """A client of the websockets library."""
    return connect(
        relay.url + path, compression=None, close_timeout=WAIT_S, open_timeout=WAIT_S, **{"max_size": None} | options
    )


# -- handshake and frames ----------------------------------------------------------------------------


def test_the_subprotocol_is_chosen(relay: RelayProcess) -> None:
    with library(relay, subprotocols=[Subprotocol("other"), *SUBPROTOCOLS]) as client:
        assert client.subprotocol == wire.SUBPROTOCOL
        client.send(wire.encode(wire.Hello(1)))
        (welcome,) = wire.decode_relay(bytes(client.recv()))
        assert isinstance(welcome, wire.Welcome)


@pytest.mark.parametrize(("path", "subprotocols", "status"), [("/other", SUBPROTOCOLS, 404), ("/", None, 400)])
def test_a_handshake_that_is_refused(relay: RelayProcess, path: str, subprotocols: Any, status: int) -> None:
    with pytest.raises(InvalidStatus) as refused:
        library(relay, path, subprotocols=subprotocols)
    assert refused.value.response.status_code == status


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x00\xff" + b"\r\n\r\n", b"GET /\r\n\r\n", b"\x00" * 20_000, b"GET / HTTP/1.1\r\n\r\n"]
)
def test_what_is_no_handshake_is_closed_and_disturbs_nobody(relay: RelayProcess, data: bytes) -> None:
    with Member(relay.port) as other:
        with socket.create_connection(("127.0.0.1", relay.port), timeout=WAIT_S) as sock:
            sock.sendall(data)
            answer = b""
            try:
                while part := sock.recv(65_536):
                    answer += part
            except ConnectionResetError:
                pass
        assert not answer.startswith(b"HTTP/1.1 101")
        other.send(wire.Time(1))
        other.expect(wire.Timed)


@pytest.mark.parametrize("path", ["/", "/echo", "/other"])
@pytest.mark.parametrize("protocol", [wire.SUBPROTOCOL.encode(), b"\xeb"])
@pytest.mark.parametrize("resets", [False, True])
def test_what_is_wrong_with_or_behind_a_request_disturbs_nobody(
    relay: RelayProcess, path: str, protocol: bytes, resets: bool
) -> None:
    request = (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: "
    )
    with Member(relay.port) as other:
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", relay.port), timeout=WAIT_S) as sock:
                if resets:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.sendall(request.encode() + protocol + b"\r\n\r\n")
                with contextlib.suppress(OSError):
                    sock.sendall(b"\xff" * 20)
        other.send(wire.Time(1))
        other.expect(wire.Timed)


def test_who_stays_after_a_refusal_is_let_go(relay: RelayProcess) -> None:
    with socket.create_connection(("127.0.0.1", relay.port), timeout=WAIT_S) as sock:
        sock.sendall(
            b"GET /other HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        answer = b""
        while part := sock.recv(65_536):
            answer += part
        assert answer.startswith(b"HTTP/1.1 404")


def test_echo(relay: RelayProcess) -> None:
    with library(relay, "/echo") as client:
        for message in ("grüß", "", b"\x00\xff", b"", bytes(range(256)) * 1024, b"x" * 125, b"x" * 126, b"x" * 65_536):
            client.send(message)
            assert client.recv() == message
        client.send(["in ", "three ", "parts"])
        assert client.recv() == "in three parts"
        client.send([b"a", b"", b"b" * 70_000])
        assert client.recv() == b"a" + b"b" * 70_000


def test_echo_of_a_message_that_is_too_big_is_closed(relay: RelayProcess) -> None:
    with library(relay, "/echo") as client:
        client.send(bytes(MESSAGE_BYTES_MAX + 1))
        with pytest.raises(ConnectionClosed):
            client.recv()
        assert client.protocol.close_code == 1009


def test_echo_to_a_client_that_does_not_read_for_a_while(relay: RelayProcess) -> None:
    """More than sockets and queues hold: the relay stops reading, and goes on when the client does."""
    with Member(relay.port, path="/echo", subprotocol=None, hello=False, receive_buffer_bytes=65_536) as client:
        message = bytes(range(250)) * 400
        sent = 0
        client.sock.settimeout(0.5)
        from loadtests.dialects.frames import FrameReader, client_frame

        frame = client_frame(message, 0x01020304)
        rest = b""
        try:
            while sent < 400:
                rest = frame
                while rest:
                    rest = rest[client.sock.send(rest) :]
                sent += 1
        except TimeoutError:
            assert sent > 3
        with Member(relay.port) as other:
            other.send(wire.Time(1))
            other.expect(wire.Timed)
        client.sock.settimeout(WAIT_S)
        reader, got = FrameReader(), 0
        while got < sent:
            for item in reader.feed(client.sock.recv(1 << 20)):
                assert item == message
                got += 1


def test_pings_are_answered(relay: RelayProcess) -> None:
    with library(relay, subprotocols=SUBPROTOCOLS) as client:
        assert client.ping(b"here?").wait(WAIT_S)


def test_the_close_handshake_returns_the_clients_code(relay: RelayProcess) -> None:
    with library(relay, subprotocols=SUBPROTOCOLS) as client:
        client.close(4321, "done")
        assert client.protocol.close_code == 4321
        assert client.protocol.close_rcvd is not None
        assert client.protocol.close_rcvd.code == 4321


@pytest.mark.parametrize(
    ("payload", "opcode", "code"),
    [
        (b"\xc1", Opcode.BINARY, close_code(Code.MALFORMED)),
        (b"hello", Opcode.TEXT, close_code(Code.TEXT)),
        (b"\xff", Opcode.TEXT, 1007),
        (wire.encode(wire.Time(1)), Opcode.BINARY, close_code(Code.UNEXPECTED)),
        (wire.encode(wire.Hello(9)), Opcode.BINARY, close_code(Code.VERSION)),
        (wire.encode(wire.Hello(1)) * 65, Opcode.BINARY, close_code(Code.TOO_MANY_RECORDS)),
    ],
)
def test_what_the_relay_closes_has_its_code(
    relay: RelayProcess, transport: str, payload: bytes, opcode: int, code: int
) -> None:
    with Member(relay.port, hello=False) as client:
        client.give(payload, opcode)
        assert client.closed() in closes(code, transport)


def test_a_broken_frame_is_closed(relay: RelayProcess, transport: str) -> None:
    with Member(relay.port) as client:
        client.sock.sendall(b"\x82\x05hello")  # not masked
        assert client.closed() in closes(1002, transport)


def closes(code: int, transport: str) -> tuple[int | None, ...]:
    """The baseline's library ends a connection with broken frames without a close frame."""
    return (code, None) if code < 4000 and transport == "trio-websocket" else (code,)


# -- records -----------------------------------------------------------------------------------------


def test_publish_subscribe_resume(relay: RelayProcess, index: int) -> None:
    with Member(relay.port) as author, Member(relay.port) as reader:
        number = author.subscribe(index, PUBLISH).number
        first = reader.subscribe(index, SUBSCRIBE, member=2)
        for label in range(5):
            author.send(wire.Publish(number, 0, label, bytes(32), sealed_of(label)))
            assert author.expect(wire.Published).acks == [label, label + 1]
        came = reader.messages(5)
        assert [(m.seq, label_of(m.sealed), len(m.tag or b"")) for m in came] == [(i + 1, i, 32) for i in range(5)]
        author.send(wire.Publish(number, 0, 3, bytes(32), sealed_of(3)))
        assert author.expect(wire.Published).acks == [3, 4]
    with Member(relay.port) as reader:
        again = reader.subscribe(index, SUBSCRIBE, member=2, epoch=first.epoch, after=2)
        assert (again.epoch, again.head, again.recovered) == (first.epoch, 5, True)
        assert reader.messages(3) == came[2:], "the very same records"


def test_ephemeral_states(relay: RelayProcess, index: int) -> None:
    with Member(relay.port) as author, Member(relay.port) as reader:
        number = author.subscribe(index, PUBLISH).number
        reader.subscribe(index, SUBSCRIBE, member=2)
        author.send(wire.Publish(number, 1, 200, None, sealed_of(8)))
        state = reader.expect(wire.Ephemeral)
        assert (state.slot, label_of(state.sealed), len(state.handle)) == (200, 8, 16)


def test_export_and_erase(relay: RelayProcess, index: int) -> None:
    with Member(relay.port) as owner, Member(relay.port) as reader:
        number = owner.subscribe(index, PUBLISH | ERASE | EXPORT).number
        for label in range(3):
            owner.send(wire.Publish(number, 0, label, None, sealed_of(label, SEALED_BYTES_MAX)))
            owner.expect(wire.Published)
        found, after, more = [], 0, True
        while more:
            owner.send(wire.Export(number, after))
            page = owner.expect(wire.Exported)
            found += [label_of(row.sealed) for row in page.records]
            more, after = page.more, page.records[-1].seq
        assert found == [0, 1, 2]
        reader.subscribe(index, SUBSCRIBE, member=2)
        owner.send(wire.Erase(number))
        erased = owner.expect(wire.Erased)
        assert reader.expect(wire.Erased) == erased
        owner.send(wire.Export(number, 0))
        assert owner.expect(wire.Exported) == wire.Exported(number, erased.epoch, 0, False, [])
        owner.send(wire.Export(number, 2**64 - 1))
        assert owner.expect(wire.Exported).records == []


def test_a_holder_proves_itself_on_this_connection_only(relay: RelayProcess, index: int) -> None:
    from nacl.signing import SigningKey

    holder = SigningKey.generate()
    cap = capability_of(index, holder=bytes(holder.verify_key))
    with Member(relay.port) as first, Member(relay.port) as second:
        assert first.welcome is not None
        assert second.welcome is not None
        proof = capability.prove(holder, first.welcome.challenge, cap)
        first.subscribe(cap=cap, proof=proof)
        second.send(wire.Subscribe(7, cap, SUBSCRIBE, proof, None, None))
        assert second.expect(wire.Error) == wire.Error(Code.HOLDER, 2, 7)


def test_the_largest_message_of_large_records(relay: RelayProcess, index: int) -> None:
    with Member(relay.port) as author, Member(relay.port) as reader:
        number = author.subscribe(index, PUBLISH).number
        reader.subscribe(index, SUBSCRIBE, member=2)
        size = 126_976
        records = [wire.Publish(number, 0, label, None, sealed_of(label, size)) for label in (1, 2)]
        assert size * 2 < len(b"".join(map(wire.encode, records))) <= MESSAGE_BYTES_MAX
        author.send(*records)
        assert [(label_of(m.sealed), len(m.sealed)) for m in reader.messages(2)] == [(1, size), (2, size)]


def test_a_message_in_many_frames_and_pieces(relay: RelayProcess, index: int) -> None:
    from loadtests.dialects.frames import client_frame

    payload = b"".join(wire.encode(wire.Time(n)) for n in range(30))
    frames = []
    for position in range(0, len(payload), 7):
        frame = client_frame(payload[position : position + 7], 0x0A0B0C0D, 2 if position == 0 else 0)
        last = position + 7 >= len(payload)
        frames.append(frame if last else bytes((frame[0] & 0x7F,)) + frame[1:])
    with Member(relay.port) as client:
        data = b"".join(frames)
        for position in range(0, len(data), 11):
            client.sock.sendall(data[position : position + 11])
        assert [client.expect(wire.Timed).sent_ns for _ in range(30)] == list(range(30))


def test_a_client_that_resets_disturbs_nobody(relay: RelayProcess, index: int) -> None:
    with Member(relay.port) as author, Member(relay.port) as reader:
        number = author.subscribe(index, PUBLISH).number
        reader.subscribe(index, SUBSCRIBE, member=2)
        leavers = [Member(relay.port) for _ in range(5)]
        for member, leaver in enumerate(leavers):
            leaver.subscribe(index, SUBSCRIBE, member=10 + member)
            leaver.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for label, leaver in enumerate(leavers):
            author.send(wire.Publish(number, 0, label, None, sealed_of(label)))
            leaver.sock.close()
        assert [label_of(m.sealed) for m in reader.messages(5)] == [0, 1, 2, 3, 4]


# -- a slow reader -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_slow_reader_hurts_only_itself_and_resumes_without_loss(relays: Relays, transport: str, tls: bool) -> None:
    index = next(streams)
    count, size = 160, 65_536
    options = ["--transport", transport, "--store", f"sqlite:{relays.folder / transport}-slow-{tls}.db"]
    with (
        relay_process(*options, *(TLS if tls else ())) as relay,
        Member(relay.port, tls=tls) as author,
        Member(relay.port, tls=tls) as quick,
        Member(relay.port, tls=tls, receive_buffer_bytes=65_536) as slow,
        Member(relay.port, tls=tls, receive_buffer_bytes=65_536) as leaver,
    ):
        number = author.subscribe(index, PUBLISH).number
        quick.subscribe(index, SUBSCRIBE, member=2)
        slow.subscribe(index, SUBSCRIBE, member=3)
        leaver.subscribe(index, SUBSCRIBE, member=4)
        for label in range(count):
            author.send(wire.Publish(number, 0, label, None, sealed_of(label, size)))
            assert author.expect(wire.Published).acks == [label, label + 1]
            assert label_of(quick.next(wire.Message).sealed) == label
        assert relay.metrics()["relay_lagging_total"] >= 1
        assert relay.metrics()["relay_queued_bytes[durable]"] < 4 * 1_048_576
        leaver.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        leaver.sock.close()
        # It answers what is asked of it while it catches up, and loses nothing.
        slow.send(wire.Time(77))
        came = [slow.receive() for _ in range(count + 1)]
        messages = [record for record in came if isinstance(record, wire.Message)]
        assert [(m.seq, label_of(m.sealed)) for m in messages] == [(label + 1, label) for label in range(count)]
        assert sum(isinstance(record, wire.Timed) for record in came) == 1
        author.send(wire.Publish(number, 0, 999, None, sealed_of(999)))
        assert slow.expect(wire.Message).seq == count + 1
        assert "Traceback" not in relay.log()


# -- TLS ---------------------------------------------------------------------------------------------


async def echo_over_tls(url: str) -> None:
    """With the websockets library on asyncio: its threaded client reads and writes one TLS object in two threads."""
    context = ssl.create_default_context(cafile=str(CERTIFICATE / "cert.pem"))
    async with async_connect(f"{url}/echo", ssl=context, compression=None, max_size=None) as client:
        await client.send(bytes(MESSAGE_BYTES_MAX))
        assert await client.recv() == bytes(MESSAGE_BYTES_MAX)
        await client.close()
        assert client.close_code == 1000


def test_tls(transport: str) -> None:
    with relay_process("--transport", transport, "--echo", *TLS) as relay:
        assert relay.url.startswith("wss://")
        with Member(relay.port, tls=True) as author:
            number = author.subscribe(1).number
            author.send(*(wire.Publish(number, 0, label, None, sealed_of(label)) for label in range(3)))
            assert [m.seq for m in author.messages(3)] == [1, 2, 3]
        asyncio.run(echo_over_tls(relay.url.replace("127.0.0.1", "localhost")))
        with contextlib.ExitStack() as wrong:
            for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b""):
                sock = wrong.enter_context(socket.create_connection(("127.0.0.1", relay.port), timeout=WAIT_S))
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
            with Member(relay.port, tls=True) as client:
                client.subscribe(1)
        assert "Traceback" not in relay.log()


# -- going down --------------------------------------------------------------------------------------


def test_a_hang_up_drains_too(transport: str) -> None:
    with relay_process("--transport", transport) as relay:
        relay.process.send_signal(signal.SIGHUP)
        assert relay.end() == 0
        assert "drained" in relay.log()


def test_a_relay_that_is_to_outlive_its_terminal_does(transport: str) -> None:
    def nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with relay_process("--transport", transport, before=nohup) as relay:
        relay.process.send_signal(signal.SIGHUP)
        with Member(relay.port) as member:
            member.send(wire.Time(1))
            member.next(wire.Timed)
        relay.terminate()
        assert relay.end() == 0


def test_sigterm_drains(relays: Relays, transport: str) -> None:
    """Not ready, GOAWAY, what was sent before is committed, closed with 4061, exit 0; after a restart all of it is there."""
    path = relays.folder / f"{transport}-drain.db"
    options = ("--transport", transport, "--store", f"sqlite:{path}")
    with relay_process(*options) as relay:
        with (
            Member(relay.port) as author,
            Member(relay.port) as idle,
            library(relay, subprotocols=SUBPROTOCOLS) as other,
        ):
            number = author.subscribe(1, PUBLISH).number
            for label in range(100):
                author.send(wire.Publish(number, 0, label, None, sealed_of(label)))
            author.send(wire.Time(1))
            author.next(wire.Timed)  # All of it was read.
            relay.terminate()
            assert isinstance(idle.receive(), wire.GoAway)
            came, code = author.rest()
            assert code == close_code(Code.DRAINING)
            acknowledged = {id_ for r in came if isinstance(r, wire.Published) for id_ in r.acks[::2]}
            retries_ms = [record.retry_ms for record in came if isinstance(record, wire.GoAway)]
            assert idle.closed() == close_code(Code.DRAINING)
            with pytest.raises(ConnectionClosedError):
                list(other)
            assert other.protocol.close_code == close_code(Code.DRAINING)
            assert len(retries_ms) == 1
            assert 0 <= retries_ms[0] < 10_000
        assert relay.end() == 0
        assert "drained" in relay.log()
        assert "Traceback" not in relay.log()
    with relay_process(*options) as relay, Member(relay.port) as reader:
        subscribed = reader.subscribe(1, SUBSCRIBE, member=2, after=0)
        labels = {label_of(m.sealed) for m in reader.messages(subscribed.head)}
        assert acknowledged | set(range(100)) == labels


# -- limits of time, on a clock that runs ten times as fast ---------------------------------------


def test_an_idle_client_that_answers_pings_is_kept(relays: Relays, transport: str) -> None:
    assert relays.hurry["only_answer_pings", transport].result()


def test_a_silent_client_is_closed(relays: Relays, transport: str) -> None:
    assert relays.hurry["say_nothing", transport].result() == close_code(Code.KEEPALIVE)


def test_no_hello_is_closed(relays: Relays, transport: str) -> None:
    assert relays.hurry["say_no_hello", transport].result() == close_code(Code.HANDSHAKE)


def test_a_client_that_never_reads_is_closed(relays: Relays, transport: str) -> None:
    code = relays.hurry["never_read", transport].result()
    assert code == close_code(Code.SLOW), "behind what it was sent, when it reads again"
    with Member(relays.hurried[transport].port) as client:
        client.send(wire.Time(1))
        client.expect(wire.Timed)


def test_a_byte_a_second_does_not_get_through_the_handshake(relays: Relays, transport: str) -> None:
    assert HANDSHAKE_S_MAX - 1 < relays.drips[transport].result() < HANDSHAKE_S_MAX + 5


def test_nothing_was_logged_but_the_start(relays: Relays, transport: str) -> None:
    """The last test: after all of the above, no fault of the relay's own, and nothing about anybody."""
    log = relays.plain[transport].log()
    assert log.splitlines() == [line for line in log.splitlines() if line.startswith("relaymark: store sqlite")]
    assert len(log.splitlines()) == 1
    assert "127.0.0.1" not in log
    assert not any(bytes(stream_key(index).verify_key).hex() in log for index in range(1, next(streams)))
    assert "Traceback" not in relays.hurried[transport].log()
