"""Options -> a running relay: checks all of them at once, then opens store, listeners, TLS and metrics, and serves."""

from __future__ import annotations

import os
import resource
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Final, TypeVar

from relay.errors import ConfigurationError
from relay.limits import (
    DRAIN_S,
    INCOMPLETE_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    RETAIN_S,
    RETAIN_STREAM_BYTES_MAX,
    RETAIN_TOTAL_BYTES_MAX,
    STORE_BYTES_MAX,
    STREAM_BYTES_MAX,
    STREAMS_MAX,
)
from relay.metrics_server import MetricsServer
from relay.session import Rates
from relay.store import MemoryStore, SqliteStore, Store
from relay.transports.base import Relay

TRANSPORTS: Final = {
    "pump": "relay.transports.pump",
    "trio-websocket": "relay.transports.trio_websocket",
    "uvloop": "relay.transports.uvloop",
}
LISTEN_BACKLOG: Final = 4096
SECONDS_MAX: Final = 1_000_000_000
"""Thirty years: more makes no sense, and overflows a timestamp somewhere."""
PER_S_MAX: Final = 1_000_000_000
"""No connection sends as many; WELCOME has room for 64 bits."""

BOUNDS_MIN: Final = (1_048_576, MESSAGE_BYTES_MAX)
"""Least bounds of a store and of a stream: below them not every record has room."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `relaymark serve` was asked for, unchecked."""

    listen: str = "127.0.0.1:8765"
    store: str = "memory"
    transport: str = "pump"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    metrics: str | None = None
    echo: bool = False
    allow_suite_0: bool = False
    retain_s: float = RETAIN_S
    store_bytes_max: int | None = None
    stream_bytes_max: int | None = None
    drain_s: float = DRAIN_S
    rates: Rates = field(default_factory=Rates)
    streams_max: int = STREAMS_MAX
    incomplete_bytes_max: int = INCOMPLETE_BYTES_MAX


def serve(options: Options, announce: Callable[[str], None], log: Callable[[str], None]) -> None:
    """Serve until SIGTERM, Ctrl-C or a hang-up. `announce` gets the one line with the address, `log` everything else.

    Raises ConfigurationError with all problems at once, before anything is served.
    """
    problems: list[str] = []
    address = _checked(problems, parse_address, options.listen, "--listen")
    metrics_address = (
        None if options.metrics is None else _checked(problems, parse_address, options.metrics, "--metrics")
    )
    context = _checked(problems, _tls, options.tls_cert, options.tls_key)
    if options.transport not in TRANSPORTS:
        problems.append(f"--transport {options.transport}: use one of {', '.join(TRANSPORTS)}")
    problems += [
        f"--{name}: use more than 0 and at most {SECONDS_MAX} seconds"
        for name, seconds in (("retain", options.retain_s), ("drain", options.drain_s))
        if not 0 < seconds <= SECONDS_MAX  # not a number is not, either
    ]
    problems += [
        f"--{name.replace('_', '-')}: use 1 to {PER_S_MAX}"
        for name in ("durable_per_s", "ephemeral_per_s", "control_per_s")
        if not 0 < getattr(options.rates, name) <= PER_S_MAX
    ]
    if options.streams_max < 1:
        problems.append(f"--streams-max {options.streams_max}: use 1 or more")
    if options.incomplete_bytes_max < MESSAGE_BYTES_MAX:
        problems.append(f"--incomplete-bytes-max: use at least {MESSAGE_BYTES_MAX} bytes, one message")
    bounds = (options.store_bytes_max, options.stream_bytes_max)
    problems += [
        f"--{name}: use at least {least} bytes"
        for name, bound, least in zip(("store-bytes-max", "stream-bytes-max"), bounds, BOUNDS_MIN, strict=True)
        if bound is not None and bound < least
    ]
    store = _checked(problems, open_store, options.store, *bounds)
    listeners = _checked(problems, _listen, address, "--listen") if address else None
    metrics_listeners = _checked(problems, _listen, metrics_address, "--metrics") if metrics_address else None
    try:
        if problems:
            raise ConfigurationError(problems)
        assert store is not None
        assert listeners is not None
        _raise_descriptor_limit(log)
        _serve(options, store, listeners, metrics_listeners, context, announce, log)
    finally:
        for listener in (*(listeners or ()), *(metrics_listeners or ())):
            listener.close()
        if store is not None:
            store.close()


def _serve(
    options: Options,
    store: Store,
    listeners: list[socket.socket],
    metrics_listeners: list[socket.socket] | None,
    context: ssl.SSLContext | None,
    announce: Callable[[str], None],
    log: Callable[[str], None],
) -> None:
    relay = Relay(
        store,
        rates=options.rates,
        echo=options.echo,
        allow_suite_0=options.allow_suite_0,
        retain_s=options.retain_s,
        drain_s=options.drain_s,
        streams_max=options.streams_max,
        incomplete_bytes_max=options.incomplete_bytes_max,
        log=log,
    )
    metrics = MetricsServer(relay, options.transport, metrics_listeners) if metrics_listeners else None
    scheme = "wss" if context else "ws"

    def ready() -> None:
        line = f"relaymark: serving {scheme}://{_shown(listeners[0])}"
        if metrics_listeners:
            line += f" metrics http://{_shown(metrics_listeners[0])}/metrics"
        announce(line)
        log(f"store {options.store.partition(':')[0]}, transport {options.transport}, process {os.getpid()}")

    try:
        import_module(TRANSPORTS[options.transport]).run(relay, listeners, context, ready)
        log("drained" if not relay.overdue() else "drain deadline passed; connections were cut")
    finally:
        relay.close()
        if metrics is not None:
            metrics.close()


def _checked(problems: list[str], check: Callable[..., T], *arguments: object) -> T | None:
    """Return what `check` makes of the arguments, or note its problems."""
    try:
        return check(*arguments)
    except ConfigurationError as error:
        problems += error.problems
        return None


def parse_address(text: str, option: str) -> tuple[str, int]:
    """Return (host, port) of HOST:PORT or [HOST]:PORT. Raises ConfigurationError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ConfigurationError([f"{option} {text}: use HOST:PORT, with a port from 0 (any free one) to 65535"])
    return host.removeprefix("[").removesuffix("]"), int(port)


def open_store(text: str, store_bytes_max: int | None = None, stream_bytes_max: int | None = None) -> Store:
    """Return the store that `memory` or `sqlite:PATH` names, with its own bounds for None. Raises ConfigurationError."""
    kind, colon, path = text.partition(":")
    if kind == "memory" and not colon:
        return MemoryStore(
            os.urandom(32),
            retain_total_bytes_max=store_bytes_max or RETAIN_TOTAL_BYTES_MAX,
            retain_stream_bytes_max=stream_bytes_max or RETAIN_STREAM_BYTES_MAX,
        )
    if kind == "sqlite" and path:
        return SqliteStore(
            Path(path),
            secret_if_new=os.urandom(32),
            file_bytes_max=store_bytes_max or STORE_BYTES_MAX,
            stream_bytes_max=stream_bytes_max or STREAM_BYTES_MAX,
        )
    raise ConfigurationError([f"--store {text}: use memory or sqlite:PATH"])


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigurationError(["--tls-cert and --tls-key go together: give both, or none"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except FileNotFoundError:
        missing = [str(path) for path in (certificate, key) if not path.is_file()]
        raise ConfigurationError([f"--tls-cert, --tls-key: no such file: {', '.join(missing)}"]) from None
    except OSError as error:
        problem = "--tls-cert, --tls-key: not a PEM certificate chain with its unencrypted private key"
        raise ConfigurationError([f"{problem} ({getattr(error, 'reason', None) or error})"]) from None
    return context


def _listen(address: tuple[str, int], option: str) -> list[socket.socket]:
    host, port = address
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, where = found[0]
        return [
            socket.create_server(
                where[:2],
                family=family,
                backlog=LISTEN_BACKLOG,
                dualstack_ipv6=family == socket.AF_INET6 and not host and socket.has_dualstack_ipv6(),
            )
        ]
    except OSError as error:
        raise ConfigurationError([f"{option} {host}:{port}: {error.strerror or error}"]) from None
    except UnicodeError:
        raise ConfigurationError([f"{option} {host}:{port}: not the name of a host"]) from None


def _shown(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _raise_descriptor_limit(log: Callable[[str], None]) -> None:
    """A connection is a descriptor: take as many as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            log(f"the limit of {soft} open files could not be raised; `ulimit -n` sets how many connections fit")
