"""`relaymark probe`: what a relay really does, beside what it says.

Exit codes: 0 all that could be asked is as promised, 99 a promise is broken, 104 options that cannot work, 105 interrupted,
121 a question came to no end, 122 the target did not start or does not speak the protocol.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter
from rich.console import Console

from loadtests.address import TargetError
from loadtests.options import ProbeOptions, problems_of_tls, target_named, with_handshake
from loadtests.probing import session, table
from loadtests.probing.findings import ProbeAnswer, Probed
from loadtests.probing.stalling import STALL_S
from loadtests.results.exit_codes import EXIT_CONFIGURATION, EXIT_INTERRUPTED, EXIT_TARGET
from loadtests.settings import Settings, problems_of, seconds
from loadtests.signals import on_ending
from loadtests.target.greeting import greet
from loadtests.target.opening import OpenTarget, RunningRelay, opened
from loadtests.target.target import Target

STALL_S_MAX: Final = 600.0


_DEFAULTS: Final = ProbeOptions()


def probe(target: str = "reference", *, options: Annotated[ProbeOptions, Parameter(name="*")] = _DEFAULTS) -> int:
    """Ask a relay what it really does, beside what it says: with some thousands of records, in about half a minute.

    When it acknowledges, in which order it delivers, what becomes of a reader that stops, of a retry, of who comes back, of
    what it acknowledged when it is restarted or killed, and the largest record. A relay that is started here is ended for it,
    one that runs is not. Exit code 99 if it breaks what its target promises.

    Parameters
    ----------
    target
        As for `relaymark run --target`: a name of `relaymark targets`, DIALECT@URL, FILE.py:Class@URL.
    """
    problems: list[str] = []
    found = target_named(target, options.targets, options, problems, "TARGET")
    if options.tls:
        problems += problems_of_tls(found)
    base = Settings(scenario="room", url=found.url, dialect=found.dialect, participants=1)
    settings = with_handshake(options, base, problems)
    problems += problems_of(msgspec.structs.replace(settings, participants=2))
    stall_s = _stall(options.stall, problems)
    names = [name for name in session.QUESTIONS if not options.only or any(word in name for word in options.only)]
    if not names:
        problems.append(f"--only: there are the questions {', '.join(session.QUESTIONS)}.")
    if problems:
        return _complain(problems, EXIT_CONFIGURATION)
    try:
        with _interruptible(), ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="relaymark-")))
            opening = stack.enter_context(opened(found, folder, tls=options.tls))
            settings = msgspec.structs.replace(
                settings, url=opening.address.url, own_certificate=opening.own_certificate
            )
            greet(settings)
            return _ask(found, opening, settings, stall_s, names, options)
    except TargetError as error:
        return _complain([str(error)], EXIT_TARGET)
    except ValueError as error:  # the dialect's
        return _complain([str(error)], EXIT_CONFIGURATION)
    except KeyboardInterrupt:
        return _complain(["interrupted."], EXIT_INTERRUPTED)


def _stall(text: str, problems: list[str]) -> float:
    try:
        stall_s = seconds(text)
    except ValueError as error:
        problems.append(f"--stall: {error}.")
        return STALL_S
    if not 1 <= stall_s <= STALL_S_MAX:
        problems.append(f"--stall must be 1 s to {STALL_S_MAX:.0f} s, not {stall_s:g} s.")
    return stall_s


def _ask(
    target: Target, opening: OpenTarget, settings: Settings, stall_s: float, names: list[str], options: ProbeOptions
) -> int:
    relay = opening.relay
    restartable = None if relay is None or isinstance(relay, RunningRelay) else relay
    progress = Console(stderr=True, quiet=options.quiet)
    findings: list[ProbeAnswer] = []
    for name, ask in session.ProbeSession(settings, target.promises, restartable, stall_s=stall_s).findings():
        if name in names:
            with progress.status(f"{target.name}: {name}"):
                findings.append(ask())
    probed = Probed(
        target=target.name,
        version=opening.version,
        dialect=target.dialect,
        tls=opening.address.tls,
        findings=findings,
    )
    if options.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(probed)).decode() + "\n")
    else:
        table.show(probed, Console())
    return probed.exit_code


@contextmanager
def _interruptible() -> Iterator[None]:
    """Take SIGTERM and a hang-up as Ctrl-C within the block: the relay must end then, too."""
    with ExitStack() as stack:
        on_ending(stack, _interrupt)
        yield


def _interrupt() -> None:
    raise KeyboardInterrupt


def _complain(problems: list[str], code: int) -> int:
    for problem in problems:
        sys.stderr.write(f"relaymark probe: {problem}\n")
    return code
