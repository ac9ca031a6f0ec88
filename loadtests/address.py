"""Where a relay is: its address, the certificate that verifies it, and a connected socket to it."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

PROBE_S_MAX: Final = 5.0

CERTIFICATE: Final = Path(__file__).parent / "certificate" / "cert.pem"
CERTIFICATE_KEY: Final = CERTIFICATE.with_name("key.pem")


class TargetError(Exception):
    """The relay did not start, cannot be reached, or speaks another protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a relay listens."""

    host: str
    port: int
    tls: bool
    path: str = "/"

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self.tls else 'ws'}://{host}:{self.port}{self.path}"

    def numeric(self) -> tuple[str, int]:
        """Return the first numeric address of the host. Raises TargetError."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise TargetError(f"The target's host {self.host} is not known: {error.strerror}.") from None
        return str(found[0][4][0]), self.port


def parse_url(url: str) -> Address:
    """Return what ws://HOST[:PORT][/PATH] or wss://... names. Raises ValueError with a sentence."""
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"{url!r} is no address of a relay: write ws://HOST:PORT or wss://HOST:PORT.")
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"{url!r} has no valid port.") from None
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("a relay's address has no user, query or fragment: write ws://HOST:PORT or wss://HOST:PORT.")
    tls = parts.scheme == "wss"
    return Address(host=parts.hostname, port=port or (443 if tls else 80), tls=tls, path=parts.path or "/")


def client_context(ca: Path | None, *, own: bool) -> ssl.SSLContext:
    """Return what verifies the target: the authorities in `ca`, the harness's `own` certificate, or the system's."""
    return ssl.create_default_context(cafile=str(CERTIFICATE if own else ca) if own or ca else None)


def open_stream(address: Address, context: ssl.SSLContext | None) -> socket.socket:
    """Return a connected blocking socket to the target. Raises TargetError."""
    try:
        stream = socket.create_connection(address.numeric(), timeout=PROBE_S_MAX)
    except OSError as error:
        raise TargetError(f"The target {address.url} cannot be reached: {error.strerror or error}.") from None
    if context is None:
        return stream
    try:
        return context.wrap_socket(stream, server_hostname=address.host)
    except ssl.SSLCertVerificationError as error:
        stream.close()
        raise TargetError(
            f"The certificate of {address.url} does not verify: {error.verify_message.rstrip('.')}."
        ) from None
    except OSError as error:
        stream.close()
        raise TargetError(f"The target {address.url} does not speak TLS: {error.strerror or error}.") from None
