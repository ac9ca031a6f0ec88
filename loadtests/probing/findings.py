"""What a probe found: one finding a question, with its counts, and what of it breaks what the target promises."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from loadtests.results.exit_codes import EXIT_INCONCLUSIVE, EXIT_OK, EXIT_THRESHOLD

VERSION = 1


class ProbeAnswer(Struct, frozen=True, kw_only=True):
    """`said`: what the target says of it; `seen`: what was seen, or why it could not be asked; all are sentences."""

    question: str
    said: str
    seen: str
    counts: Mapping[str, int] = {}
    asked: bool = True
    failed: bool = False
    """It was asked, and came to no end."""
    broken: tuple[str, ...] = ()
    """Promises that were broken, and by how many."""


class Probed(Struct, frozen=True, kw_only=True):
    """All that was found of one target."""

    schema: int = VERSION
    target: str
    version: str
    dialect: str
    tls: bool
    findings: list[ProbeAnswer]

    @property
    def exit_code(self) -> int:
        if any(finding.broken for finding in self.findings):
            return EXIT_THRESHOLD
        return EXIT_INCONCLUSIVE if any(finding.failed for finding in self.findings) else EXIT_OK


def not_asked(question: str, said: str, why: str) -> ProbeAnswer:
    """Return the finding of a question that this target cannot be asked."""
    return ProbeAnswer(question=question, said=said, seen=f"not asked: {why}", asked=False)


def of(count: int, total: int) -> str:
    """Return "3 of 1,000"."""
    return f"{count:,} of {total:,}"
