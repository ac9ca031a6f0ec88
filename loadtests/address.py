"""Where a relay is: its address, the certificate that verifies it, and a connected socket to it."""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

PROBE_S_MAX: Final = 5.0
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+")
_PAGE: Final = re.compile(r"https?://[!-~]+")

CERTIFICATE: Final = Path(__file__).parent / "certificate" / "cert.pem"
CERTIFICATE_KEY: Final = CERTIFICATE.with_name("key.pem")


class TargetError(Exception):
    """The relay did not start, cannot be reached, or speaks another protocol."""


class _Scheme(NamedTuple):
    tls: bool
    websocket: bool
    port: int | None


SCHEMES: Final = {
    "ws": _Scheme(False, True, 80),
    "wss": _Scheme(True, True, 443),
    "tcp": _Scheme(False, False, None),
    "tls": _Scheme(True, False, None),
    "redis": _Scheme(False, False, 6379),
    "rediss": _Scheme(True, False, 6379),
}
"""With the port of an address that names none; redis and rediss are tcp and tls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a relay listens. `websocket`: otherwise its protocol goes over plain TCP, or TLS."""

    host: str
    port: int
    tls: bool
    websocket: bool = True
    path: str = "/"

    @property
    def netloc(self) -> str:
        """HOST:PORT, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        scheme = ("wss" if self.tls else "ws") if self.websocket else "tls" if self.tls else "tcp"
        return f"{scheme}://{self.netloc}{self.path if self.websocket else ''}"

    def numeric(self) -> tuple[str, int]:
        """Return the first numeric address of the host. Raises TargetError."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise TargetError(f"The target's host {self.host} is not known: {error.strerror}.") from None
        return str(found[0][4][0]), self.port


def parse_url(url: str) -> Address:
    """Return what ws://HOST[:PORT][/PATH], tcp://HOST:PORT or the like names. Raises ValueError with a sentence.

    A host in other letters than ASCII is written as DNS has it (IDNA), such a path in percent-encoding.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"{url!r} names no host: write ws://HOST:PORT, an IPv6 address in brackets.") from None
    scheme = SCHEMES.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise ValueError(
            f"{url!r} is no address of a relay: write ws://HOST:PORT or wss://HOST:PORT, or tcp:// or tls:// for a"
            " protocol without WebSocket."
        )
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError(f"{url!r} has no valid port: write one from 1 to 65535.")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(
            "a relay's address has no user, query or fragment: write ws://HOST:PORT or wss://HOST:PORT, and give a query"
            " by --query, a login by --header or --token-file."
        )
    if port is None and scheme.port is None:
        raise ValueError(f"{url!r} names no port: write {parts.scheme}://HOST:PORT.")
    return Address(
        host=_host(parts.hostname),
        port=port or scheme.port or 0,
        tls=scheme.tls,
        websocket=scheme.websocket,
        path=encoded_path(parts.path or "/"),
    )


def _host(name: str) -> str:
    """Return the name of a host as DNS has it. Raises ValueError."""
    if ":" in name:
        return name  # an IPv6 address
    try:
        known = name.encode("idna").decode("ascii")  # a label has 1 to 63 characters
    except UnicodeError:
        known = ""
    if not _HOST.fullmatch(known):
        raise ValueError(f"{name!r} is not the name of a host: letters, digits, hyphens and dots, each part up to 63.")
    return known


def encoded_path(path: str) -> str:
    """Return a path as a request has it; what is percent-encoded already stays as it is."""
    return quote(path, safe="/%:@!$&'()*+,;=~", errors="surrogateescape")


def is_page(url: str) -> bool:
    """Return whether `url` is a page that can be asked for: of http or https, encoded as a request has it."""
    return _PAGE.fullmatch(url) is not None


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
