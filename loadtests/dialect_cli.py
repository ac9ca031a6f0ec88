"""`relaymark dialect new` and `relaymark dialect check`: a dialect of the user's own, begun and held against the contract.

Exit codes: 0 done, 99 a check failed, 104 options that cannot work or a dialect that cannot be made, 122 nobody answers.
"""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from loadtests.address import TargetError, parse_url
from loadtests.dialects import skeleton
from loadtests.dialects.base import Dialect
from loadtests.dialects.check import contract
from loadtests.dialects.check.contract import Outcome
from loadtests.dialects.check.conversation import Subject
from loadtests.dialects.check.scripted_end import ScriptedEnd
from loadtests.dialects.fault import told
from loadtests.dialects.find import DialectError, class_in_file, find
from loadtests.options import HandshakeOptions, with_handshake
from loadtests.results.exit_codes import EXIT_CONFIGURATION, EXIT_OK, EXIT_TARGET, EXIT_THRESHOLD
from loadtests.settings import PARTICIPANTS_DEFAULT, Settings, problems_of
from loadtests.target import live_check

END_METHODS: Final = ("hear", "deliver", "nonsense")


def new(name: str) -> int:
    """Write NAME.py: a dialect that works, of a small JSON protocol, and its other end. Make it speak as your relay does.

    Parameters
    ----------
    name
        What the file and the class are called: my_relay gives my_relay.py with MyRelay and MyRelayEnd.
    """
    file = Path(f"{name}.py")
    problem = _cannot_be_called(name) or (f"{file} is there already: choose another name." if file.exists() else None)
    if problem:
        return _complain("new", [problem])
    kind = _class_name(name)
    try:
        with file.open("x") as made:
            made.write(written(name, kind))
    except OSError as error:
        return _complain("new", [f"{file} cannot be written: {error.strerror}."])
    sys.stdout.write(
        f"{file}: the dialect {kind}, and {kind}End, the other end for its checks. They pass as they are:\n\n"
        f"    relaymark dialect check {file}:{kind} --relay {file}:{kind}End\n\n"
        f"Change what the relay says and what each call sends, and check again. Then, with your relay:\n\n"
        f"    relaymark dialect check {file}:{kind} --url ws://HOST:PORT\n"
        f"    relaymark run room --target {file}:{kind}@ws://HOST:PORT\n"
    )
    return EXIT_OK


def written(name: str, kind: str) -> str:
    """Return the text of NAME.py with the class `kind`."""
    text = Path(skeleton.__file__).read_text(encoding="utf-8")
    text = re.sub(r"  # noqa: .*", "", text)
    return text.replace("Skeleton", kind).replace("skeleton", name)


def _class_name(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def _cannot_be_called(name: str) -> str | None:
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or keyword.iskeyword(name):
        return f"{name!r} cannot name a module of Python: use letters, digits and _, as in my_relay."
    if _class_name(name) in vars(skeleton):
        return f"{name!r} gives the class {_class_name(name)}, and the file has one of that name: choose another name."
    if not Path(f"{name}.py").exists() and find_spec(name) is not None:
        return f"A file {name}.py would hide the installed module {name} from scripts beside it: choose another name."
    return None


_PLAIN: Final = HandshakeOptions()


def check(
    dialect: str,
    *,
    relay: str | None = None,
    url: str | None = None,
    seed: int = 1,
    options: Annotated[HandshakeOptions, Parameter(name="*")] = _PLAIN,
) -> int:
    """Hold a dialect against the contract: any split of the bytes, order, acknowledgements, pings, closes, nonsense.

    Without --relay and --url only those checks are made that need no other end.

    Parameters
    ----------
    dialect
        FILE.py:Class, or the name of a dialect that is installed.
    relay
        FILE.py:Class of the other end, a script of the relay's side without a socket.
    url
        A relay that runs, instead: ws://, wss://, tcp:// or tls://. It gets some sixty records in streams of their own.
    seed
        Of the splits and of the nonsense.
    """
    problems: list[str] = []
    kind: type[Dialect] | None = _or_problem(lambda: find(dialect), problems)
    end = _or_problem(lambda: _end(relay), problems) if relay is not None else None
    if relay is not None and url is not None:
        problems.append("Give --relay or --url, not both: check with the script first, then with the relay.")
    if url is None and options != _PLAIN:
        problems.append("Options of the handshake are for a relay that runs: give its --url.")
    settings = _settings(url, options, problems) if url is not None else None
    if problems or kind is None:
        return _complain("check", problems)
    try:
        outcomes = live_check.hold(kind, settings, seed) if settings else contract.hold(Subject(kind, end), seed)
    except TargetError as error:
        sys.stderr.write(f"relaymark dialect check: {error}\n")
        return EXIT_TARGET
    against = relay or url or "no other end"
    sys.stdout.write("\n".join([f"{dialect} against {against}, seed {seed}", "", *_lines(outcomes), ""]))
    return EXIT_THRESHOLD if any(outcome.broken for outcome in outcomes) else EXIT_OK


def _settings(url: str, options: HandshakeOptions, problems: list[str]) -> Settings | None:
    """Return settings of which the address and the handshake are used; None if the address is none."""
    address = _or_problem(lambda: parse_url(url), problems)
    if address is None:
        return None
    base = Settings(scenario="room", url=url, participants=PARTICIPANTS_DEFAULT)
    settings = with_handshake(options, base, problems)
    problems += problems_of(settings)
    if options.tls_ca is not None and not address.tls:
        problems.append("--tls-ca is for a relay at wss:// or tls://.")
    return settings


def _end(spec: str) -> Callable[[], ScriptedEnd]:
    if not spec.rpartition(":")[0].endswith(".py"):
        raise DialectError(f"The relay's end {spec!r}: write FILE.py:Class.")
    found: Any = class_in_file(spec, "relay's end")
    missing = [name for name in END_METHODS if not callable(getattr(found, name, None))]
    if missing:
        raise DialectError(
            f"The relay's end {spec} lacks {', '.join(missing)}: inherit from OverWebSocket, or see ScriptedEnd, in"
            " loadtests/dialects/check/scripted_end.py."
        )
    try:
        found()
    except Exception as error:
        raise DialectError(f"The relay's end {spec} cannot be made as {found.__name__}(): {told(error)}.") from error
    made: Callable[[], ScriptedEnd] = found
    return made


def _or_problem(call: Callable[[], Any], problems: list[str]) -> Any:
    """Return what a call gives; None, and its sentence is noted, if it cannot."""
    try:
        return call()
    except ValueError as error:  # DialectError is one
        problems.append(str(error))
    return None


def _lines(outcomes: list[Outcome]) -> list[str]:
    """Return the table: a line a check, and under each that failed what was expected, what came, and what to do."""
    lines: list[str] = []
    told_before: set[str] = set()
    for name, why_not, broken in outcomes:
        if why_not is not None:
            lines.append(f"  -     {name}: not made, {why_not}")
        elif broken is None:
            lines.append(f"  ok    {name}")
        elif broken.came in told_before:
            lines.append(f"  FAIL  {name}: {broken.came}")
        else:
            told_before.add(broken.came)
            parts = {"expected": broken.expected, "came": broken.came, "to do": broken.remedy}
            lines += [f"  FAIL  {name}", *(f"          {what:<9} {text}" for what, text in parts.items())]
    failed = sum(outcome.broken is not None for outcome in outcomes)
    not_made = sum(outcome.why_not is not None for outcome in outcomes)
    lines += ["", f"{len(outcomes) - failed - not_made} checks passed, {failed} failed, {not_made} not made"]
    if any(outcome.why_not == contract.NO_END for outcome in outcomes):
        lines.append("Give --relay FILE.py:Class, a script of the relay's side, or --url of a relay that runs.")
    return lines


def _complain(command: str, problems: list[str]) -> int:
    for problem in problems:
        sys.stderr.write(f"relaymark dialect {command}: {problem}\n")
    return EXIT_CONFIGURATION
