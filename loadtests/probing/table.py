"""The table of a probe: what the target says, what was seen, and what of it is broken."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadtests.probing.findings import Probed


def show(probed: Probed, console: Console) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0))
    table.add_column("question", style="bold", max_width=16)
    table.add_column("what it says", max_width=24)
    table.add_column("what was seen", overflow="fold")
    for finding in probed.findings:
        seen = Text(finding.seen, style="" if finding.asked else "dim")
        for sentence in finding.broken:
            seen.append(f"\nBROKEN: {sentence}.", style="bold red")
        table.add_row(finding.question, finding.said, seen)
    about = " ".join(part for part in (probed.target, probed.version) if part)
    console.print(Text(f"{about}, dialect {probed.dialect}{', TLS' if probed.tls else ''}\n"))
    console.print(table)
    console.print(Text(_verdict(probed)))


def _verdict(probed: Probed) -> str:
    broken = sum(len(finding.broken) for finding in probed.findings)
    failed = sum(finding.failed for finding in probed.findings)
    asked = sum(finding.asked for finding in probed.findings)
    words = [f"{asked} of {len(probed.findings)} questions could be asked"]
    if failed:
        words.append(f"{failed} came to no end")
    words.append(f"{broken} promises are broken" if broken else "no promise is broken")
    return "; ".join(words) + "."
