"""The command `relaymark`: `serve` and `mint` here; the load's and the benchmarks' commands are found when called.

Exit codes: 0 done, 104 options that cannot work, 105 interrupted, 70 a fault of the program. The load's commands have more.
"""

from __future__ import annotations

import secrets
import sys
import time
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import App, Parameter

EXIT_CONFIGURATION: Final = 104
EXIT_INTERRUPTED: Final = 105
EXIT_INTERNAL: Final = 70
VALID_S_MAX: Final = 10_000_000_000
"""Three hundred years."""

app = App(
    name="relaymark",
    help="Measure end-to-end-encrypted message relays, and serve a reference relay.",
    help_format="plaintext",
    version=lambda: version("relaymark"),
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
)

# Named by strings, and imported when called: the relay does not depend on the load.
app.command("loadtests.cli:run", name="run", help="Offer a relay the load of a live platform, and show how it fared.")
app.command(
    "loadtests.catalogue_cli:targets",
    name="targets",
    help="List the relays that can be measured, and what each promises.",
)
app.command(
    "loadtests.catalogue_cli:scenarios", name="scenarios", help="List the scenarios, and what each loads a relay with."
)
app.command("loadtests.probe_cli:probe", name="probe", help="Tell what a relay really does, beside what it says.")
app.command("loadtests.cli:report", name="report", help="Show the results of runs again.")
app.command(
    "benchmarks.compare.cli:compare", name="compare", help="Measure several relays in turn under the same sealed work."
)
app.command("benchmarks.cli:gate", name="gate", help="Tell whether a change made the relay slower.")
dialect = App(
    name="dialect",
    help="Make relaymark speak to your own relay: a dialect in a file of yours.",
    help_format="plaintext",
)
dialect.command("loadtests.dialect_cli:new", name="new", help="Write a dialect to begin with, which works.")
dialect.command("loadtests.dialect_cli:check", name="check", help="Hold a dialect against the contract.")
app.command(dialect)
bench = App(name="bench", help="Measure the parts: what they cost, and what encryption costs.", help_format="plaintext")
bench.command("benchmarks.cli:micro", name="micro", help="Time the relay's and the load's parts with pyperf.")
bench.command("benchmarks.cli:overhead", name="overhead", help="Measure what encryption costs.")
app.command(bench)
EXTRAS: Final = {
    "run": "load",
    "report": "load",
    "targets": "load",
    "probe": "load",
    "scenarios": "load",
    "dialect": "load",
    "gate": "bench",
    "bench": "bench",
    "compare": "bench",
}
"""What each command needs installed besides the relay."""


@app.command
def serve(
    *,
    listen: str = "127.0.0.1:8765",
    store: str = "memory",
    transport: str = "pump",
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    metrics: str | None = None,
    echo: bool = False,
    allow_suite_0: bool = False,
    retain: float | None = None,
    store_bytes_max: int | None = None,
    stream_bytes_max: int | None = None,
    drain: float | None = None,
    durable_per_s: int | None = None,
    ephemeral_per_s: int | None = None,
    control_per_s: int | None = None,
    streams_max: int | None = None,
    incomplete_bytes_max: int | None = None,
) -> int:
    """Serve the reference relay until SIGTERM, Ctrl-C or a hang-up, then drain.

    Prints one line with its address when it serves. Its log goes to stderr, and names no stream, key or address.

    Parameters
    ----------
    listen
        HOST:PORT; port 0 takes any free one.
    store
        memory, or sqlite:PATH for records that survive a restart.
    transport
        pump, trio-websocket or uvloop.
    tls_cert
        PEM file with the certificate chain; serves wss.
    tls_key
        PEM file with its private key.
    metrics
        HOST:PORT for /metrics, /healthz and /readyz.
    echo
        Open /echo, which returns every message.
    allow_suite_0
        Accept payloads that are not encrypted: for baseline measurements only.
    retain
        Seconds after which records are forgotten. Default: 7 days.
    store_bytes_max
        What the store may hold. Default: 64 GiB in SQLite, after which records are refused; 2 GiB in memory, after which
        the streams that were longest unused are forgotten.
    stream_bytes_max
        What a stream may hold. Default: 1 GiB in SQLite, after which its records are refused; 1 MiB in memory, after
        which its oldest are forgotten.
    drain
        Seconds from SIGTERM to exit, at most. Default: 10.
    durable_per_s
        Durable records a second that one connection may publish.
    ephemeral_per_s
        Ephemeral records a second that one connection may publish.
    control_per_s
        Other requests a second that one connection may send; above it is not read for a while.
    streams_max
        Streams in memory, of all clients together. Default: 200,000, some 500 MB.
    incomplete_bytes_max
        Bytes of messages that are not whole yet, of all clients together. Default: 64 MiB.
    """
    from relay import limits, server
    from relay.errors import ConfigurationError
    from relay.session import Rates

    options = server.Options(
        listen=listen,
        store=store,
        transport=transport,
        tls_cert=tls_cert,
        tls_key=tls_key,
        metrics=metrics,
        echo=echo,
        allow_suite_0=allow_suite_0,
        retain_s=limits.RETAIN_S if retain is None else retain,
        store_bytes_max=store_bytes_max,
        stream_bytes_max=stream_bytes_max,
        drain_s=limits.DRAIN_S if drain is None else drain,
        rates=Rates(
            durable_per_s=limits.DURABLE_PER_S_MAX if durable_per_s is None else durable_per_s,
            ephemeral_per_s=limits.EPHEMERAL_PER_S_MAX if ephemeral_per_s is None else ephemeral_per_s,
            control_per_s=limits.CONTROL_PER_S_MAX if control_per_s is None else control_per_s,
        ),
        streams_max=limits.STREAMS_MAX if streams_max is None else streams_max,
        incomplete_bytes_max=limits.INCOMPLETE_BYTES_MAX if incomplete_bytes_max is None else incomplete_bytes_max,
    )
    try:
        server.serve(options, announce=lambda line: print(line, flush=True), log=_log)
    except ConfigurationError as error:
        return _complain("serve", error.problems)
    return 0


RightName = Literal["subscribe", "publish", "erase", "export"]


@app.command
def mint(
    *,
    rights: Annotated[list[RightName] | None, Parameter(consume_multiple=True, negative=())] = None,
    key: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    holder: str | None = None,
    quorum: int = 0,
    valid: float = 30 * 86_400,
    count: int = 1,
) -> int:
    """Make a stream key and capabilities for it; hexadecimal, as JSON lines on stdout.

    The first line has the stream's public name and, if it was made now, its secret key; each further line has a
    capability, for one member each.

    Parameters
    ----------
    rights
        What the capabilities allow: any of subscribe, publish, erase, export. Default: subscribe publish.
    key
        File with the secret key of an existing stream, 64 hexadecimal digits; - for stdin. Default: make a new stream.
    holder
        Public key of the member, 64 hexadecimal digits; with it the member must prove to be the holder.
    quorum
        How many members must acknowledge a record before it is forgotten; 0: age alone decides.
    valid
        Seconds until the capabilities expire.
    count
        How many capabilities to make.
    """
    import json

    from nacl.signing import SigningKey

    from relay import capability, limits, output

    problems = []
    wanted = 0
    for name in rights or ["subscribe", "publish"]:
        wanted |= capability.Right[name.upper()]
    secret = secrets.token_bytes(32)
    if key is not None:
        try:
            text = sys.stdin.read() if key == "-" else Path(key).read_text(encoding="ascii", errors="replace")
        except OSError as error:
            problems.append(f"--key {key}: {error.strerror}")
        else:
            secret = _key_bytes(text.strip(), "--key: the file", problems)
    member = None if holder is None else _key_bytes(holder, "--holder", problems)
    if member == bytes(32):
        problems.append("--holder: zeros are no key; in a capability they would mean that it has no holder")
    if not 0 <= quorum <= limits.ACK_QUORUM_MAX:
        problems.append(f"--quorum {quorum}: use 0 to {limits.ACK_QUORUM_MAX}")
    if not 0 < valid <= VALID_S_MAX:
        problems.append(f"--valid {valid}: use more than 0 and at most {VALID_S_MAX} seconds")
    if count < 1:
        problems.append(f"--count {count}: use 1 or more")
    if problems:
        return _complain("mint", problems)
    signer = SigningKey(secret)
    stream = {"stream": bytes(signer.verify_key).hex()}
    print(json.dumps(stream if key is not None else {**stream, "secret_key": secret.hex()}))
    for _ in range(count):
        made = capability.mint(
            signer,
            rights=wanted,
            expires_s=int(time.time() + valid),
            serial=secrets.token_bytes(8),
            holder=member,
            quorum=quorum,
        )
        print(json.dumps({"capability": made.hex()}))
        if output.failed():
            return EXIT_INTERRUPTED
    sys.stdout.flush()
    return EXIT_INTERRUPTED if output.failed() else 0


def _key_bytes(text: str, what: str, problems: list[str]) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        problems.append(f"{what} must hold 64 hexadecimal digits")
    return key


def _log(line: str) -> None:
    print(f"relaymark: {line}", file=sys.stderr, flush=True)


def _complain(command: str, problems: list[str]) -> int:
    for problem in problems:
        print(f"relaymark {command}: {problem}", file=sys.stderr)
    print(f"`relaymark {command} --help` lists the options.", file=sys.stderr)
    return EXIT_CONFIGURATION


def main() -> None:
    """Entry point of the console script."""
    from cyclopts import CycloptsError

    from relay import output

    output.guard()
    try:
        result = app(exit_on_error=False, print_error=True, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError:
        sys.exit(EXIT_CONFIGURATION)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        # A command that is found by its string fails with an ImportError, caused by the one that says what is missing.
        missing = error if isinstance(error, ModuleNotFoundError) else error.__cause__
        command = sys.argv[1] if len(sys.argv) > 1 else ""
        if isinstance(missing, ModuleNotFoundError) and command in EXTRAS:
            how = f"pip install 'relaymark[{EXTRAS[command]}]'"
            print(f"relaymark {command}: {missing.name} is missing: {how}", file=sys.stderr)
            sys.exit(EXIT_CONFIGURATION)
        traceback.print_exc()
        sys.exit(EXIT_INTERNAL)
    sys.exit(result if isinstance(result, int) else 0)


if __name__ == "__main__":
    main()
