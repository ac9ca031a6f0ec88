"""The largest payload: doubled until it does not arrive, then narrowed down."""

from __future__ import annotations

from typing import Final

from loadtests.address import TargetError
from loadtests.probing.exchange import Exchange, Trouble
from loadtests.probing.findings import ProbeAnswer
from loadtests.probing.line import LEFT
from loadtests.settings import Settings
from loadtests.target.target import Promises

LIMIT_BYTES: Final = 2_097_152
"""The most that is tried: in base64 and with what a protocol adds it is still below what our own readers take."""
_FIRST_BYTES: Final = 1_024
_NARROWINGS: Final = 3
_TRY_S_MAX: Final = 5.0


def largest(settings: Settings, promises: Promises) -> ProbeAnswer:
    """Publish ever larger records, each on connections of its own, and tell the largest that came and what then happens."""
    passed = failed = tries = 0
    how = ""
    size = _FIRST_BYTES
    while size <= LIMIT_BYTES:
        tries += 1
        came, how = _try(settings, size)
        if not came:
            failed = size
            break
        passed = size
        size *= 2
    # Sizes with two significant bits below the first are sizes to which PADME pads.
    for _ in range(_NARROWINGS if failed and passed else 0):
        tries += 1
        middle = (passed + failed) // 2
        came, fate = _try(settings, middle)
        if came:
            passed = middle
        else:
            failed, how = middle, fate
    seen = f"{passed:,} B passes" if passed else "nothing passes"
    seen += f"; {failed:,} B does not: {how}" if failed else ", the most that is tried"
    return ProbeAnswer(
        question="largest record",
        said="not told",
        seen=seen + ".",
        counts={"passes_bytes": passed, "fails_bytes": failed, "tries": tries},
        failed=not passed,
    )


def _try(settings: Settings, size: int) -> tuple[bool, str]:
    """Return whether a record of this size comes to another member, or what became of it."""
    try:
        with Exchange(settings) as exchange:
            (reader,) = exchange.reader()
            line, _ = exchange.publisher()
            record = exchange.record(size=size)
            line.publish(record)
            exchange.until(
                lambda: bool(reader.came or line.refused) or line.ended is not None or reader.ended is not None,
                _TRY_S_MAX,
            )
            if reader.came:
                return True, ""
            # Where the publisher is cut off, the reason may stand behind what else it gets.
            acknowledged = "it was acknowledged, and " if record.id in line.acknowledged else ""
    except (Trouble, TargetError) as error:
        return False, str(error).rstrip(".")
    if line.refused:
        return False, f"{acknowledged}refused with code {line.refused[0].code}"
    if line.ended not in (None, LEFT):
        return False, f"{acknowledged}the publisher's connection ended ({line.ended.rstrip('.')})"
    if reader.ended not in (None, LEFT):
        return False, f"{acknowledged}the reader's connection ended ({reader.ended.rstrip('.')})"
    return False, f"{acknowledged}nothing came within {_TRY_S_MAX:.0f} s"
