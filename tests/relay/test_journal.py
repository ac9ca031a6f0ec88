from __future__ import annotations

from relay.transports.journal import EVERY_NS, Journal


def test_a_counter_that_grows_is_told_once_a_minute_with_its_growth() -> None:
    lines: list[str] = []
    count = 0
    journal = Journal(lines.append)
    journal.watch("clients were closed", lambda: count)
    journal.look(5)
    assert lines == []
    count = 3
    journal.look(6)
    assert lines == ["3 clients were closed"], "the first at once"
    count = 10
    journal.look(6 + EVERY_NS - 1)
    assert len(lines) == 1
    journal.look(6 + EVERY_NS)
    assert lines[1:] == ["7 clients were closed"]
    journal.look(6 + 5 * EVERY_NS)
    assert len(lines) == 2, "nothing new, no line"
