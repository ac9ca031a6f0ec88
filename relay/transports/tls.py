"""A non-blocking TLS socket over memory BIOs, so that the pump serves it like a plain one.

`send` takes all or nothing: what was encrypted cannot be taken back, so ciphertext that the kernel does not accept waits
in `unsent`, and further sends are refused until `flush` has emptied it.
"""

from __future__ import annotations

import socket
import ssl

from relay.limits import RECV_BYTES


class TlsSocket:
    """Server side. `recv` and `send` raise BlockingIOError and OSError like a socket's."""

    __slots__ = ("_incoming", "_object", "_outgoing", "_sock", "unsent")

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._sock = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.unsent: bytes | memoryview = b""

    def handshake(self) -> bool:
        """Go as far as possible; return whether the handshake is done. Raises OSError (ssl.SSLError is one)."""
        if self.unsent and not self.flush():
            return False
        while True:
            try:
                self._object.do_handshake()
            except ssl.SSLWantReadError:
                if not self._pass_on():
                    return False
                try:
                    data = self._sock.recv(RECV_BYTES)
                except BlockingIOError:
                    return False
                if not data:
                    raise ConnectionResetError("closed in the TLS handshake") from None
                self._incoming.write(data)
            else:
                return self._pass_on()

    def recv(self, size: int) -> bytes:
        """Return what can be decrypted now, b"" at the end."""
        if not self._incoming.pending:  # The first bytes may have come with the handshake's last.
            data = self._sock.recv(size)
            if not data:
                return b""
            self._incoming.write(data)
        parts = []
        try:
            while part := self._object.read(size):
                parts.append(part)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            return b"".join(parts)
        self._pass_on()  # answers of TLS itself, such as to a key update
        if not parts:
            raise BlockingIOError
        return b"".join(parts)

    def send(self, data: bytes | memoryview) -> int:
        """Encrypt and send all of `data`; raises BlockingIOError while earlier ciphertext waits."""
        if self.unsent:
            raise BlockingIOError
        self._object.write(data)
        self._pass_on()
        return len(data)

    def flush(self) -> bool:
        """Send what waits; return whether all of it went."""
        while self.unsent:
            try:
                sent = self._sock.send(self.unsent)
            except BlockingIOError:
                return False
            self.unsent = self.unsent[sent:]
        return True

    def _pass_on(self) -> bool:
        ciphertext = self._outgoing.read()
        if ciphertext:
            self.unsent = memoryview(bytes(self.unsent) + ciphertext) if self.unsent else memoryview(ciphertext)
        return self.flush()
