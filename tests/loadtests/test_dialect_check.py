"""The checks of a dialect: each convicts a dialect that is wrong in its way, and lets the skeleton pass."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from loadtests.dialects import skeleton
from loadtests.dialects.check.contract import CHECKS, NO_END, fault_of, hold
from loadtests.dialects.check.conversation import Subject
from loadtests.dialects.skeleton import Skeleton, SkeletonEnd

WRONG = {
    # what is wrong: (text of the skeleton, what stands there instead), and the check that says so, what came of it
    "a slot is missing": (", slot: int = 0", "", "the calls take what they are given", "slot"),
    "resumes without numbers": ("resumes=False", "resumes=True", "its features fit together", "numbers=False"),
    "it subscribes before it may": (
        'raise LookupError("subscribe before Ready")',
        "pass",
        "calls before their time raise LookupError",
        "bytes",
    ),
    "the handshake's fault is lost": (
        "elif not isinstance(item, str):",
        "elif isinstance(item, list):",
        "a refused upgrade is named",
        "no event",
    ),
    "it greets twice": (
        "events.append(Ready(None))",
        "events += [Ready(None)] * 2",
        "it opens and joins a stream",
        "Ready",
    ),
    "another stream": (
        "Subscribed(self._streams[said.room]",
        "Subscribed(5",
        "it opens and joins a stream",
        "Subscribed(5, None",
    ),
    "an epoch without numbers": (", None, None, False)", ", 3, None, False)", "it opens and joins a stream", "3"),
    "the sealed bytes are text": (
        "None, None, said.sealed)",
        "None, None, said.sealed.hex())",
        "deliveries come once, in order",
        "0101",
    ),
    "a number where there is none": (
        "None, None, said.sealed)",
        "4, None, said.sealed)",
        "deliveries come once, in order",
        "4",
    ),
    "one message a read": (
        "events.append(self._meaning(item))",
        "events = [self._meaning(item)]",
        "one read may hold many deliveries",
        "Delivered",
    ),
    "another id": (
        "Published(said.id",
        "Published(said.id + 1",
        "publishes are acknowledged as its features say",
        "13",
    ),
    "it does not leave": (
        "self._rooms.pop(stream)",
        "self._rooms[stream]",
        "a stream that was left stays left",
        "bytes",
    ),
    "each read stands alone": (
        "for item in self._websocket.feed(data):",
        "for item in self._websocket.feed(data) if len(data) > 2 else []:",
        "any split of the bytes gives the same events",
        "",
    ),
    "nonsense raises": (
        "except (ValueError, LookupError, RecursionError)",
        "except RecursionError",
        "no bytes make it raise once it has joined",
        "Error",
    ),
    "nonsense is let pass": (
        "events += self._websocket.fail(f\"the relay said {item[:120].decode('utf-8', 'replace')!r}\")",
        "pass",
        "nonsense ends it, once",
        "Delivered",
    ),
    "deep nonsense raises": (", RecursionError)", ")", "no message makes it raise", "RecursionError"),
    "a ping is not answered": (
        "elif not isinstance(item, str):",
        "elif not isinstance(item, (str, Reply)):",
        "a ping is answered",
        "no event",
    ),
    "a close is not told": (
        "elif not isinstance(item, str):",
        "elif not isinstance(item, (str, Closed)):",
        "a close of the relay ends it",
        "Reply",
    ),
    "it does not close": ("return self._websocket.close(code)", 'return b""', "our own close ends it", "no event"),
}


def variant(text: str, instead: str) -> Subject:
    """Return the skeleton with something wrong in it."""
    source = Path(skeleton.__file__).read_text()
    assert text in source
    names: dict[str, Any] = {"__name__": skeleton.__name__}
    extra = "from loadtests.dialects.base import Closed, Reply\n"
    source = source.replace("import json\n", f"import json\n{extra}", 1).replace(text, instead)
    exec(compile(source, "mine.py", "exec"), names)
    return Subject(names["Skeleton"], SkeletonEnd)


def test_the_skeleton_passes() -> None:
    outcomes = hold(Subject(Skeleton, SkeletonEnd), 1)
    assert [outcome.name for outcome in outcomes] == [check.name for check in CHECKS]
    assert [(one.why_not, one.broken) for one in outcomes] == [(None, None)] * len(CHECKS)


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_told(what: str) -> None:
    text, instead, name, came = WRONG[what]
    (check,) = [check for check in CHECKS if check.name == name]
    broken = fault_of(check, variant(text, instead), 1)
    assert broken is not None
    assert came in broken.came
    assert broken.remedy


def test_what_needs_an_end_is_not_made_without() -> None:
    why_not = {outcome.name: outcome.why_not for outcome in hold(Subject(Skeleton, None), 1)}
    assert why_not == {check.name: NO_END if "end" in check.needs else None for check in CHECKS}


def test_nothing_is_held_against_it_after_a_join_that_failed() -> None:
    outcomes = hold(variant("events.append(Ready(None))", "pass"), 1)
    assert [one.name for one in outcomes if one.broken] == ["it opens and joins a stream"]
    assert {one.why_not for one in outcomes} == {None, "it joins no stream"}


def test_an_end_that_raises_is_told_with_its_line() -> None:
    subject = variant(
        'case {"do": "join", "room": str(room), "receive": bool()}', 'case {"do": "enter", "room": str(room)}'
    )
    wrong_end = subject.dialect.receive.__globals__["SkeletonEnd"]
    broken = {one.name: one.broken for one in hold(Subject(Skeleton, wrong_end), 1)}["it opens and joins a stream"]
    assert broken is not None
    assert re.fullmatch(r"ValueError: no request: \{'do': 'join'.*\} \(mine.py, line \d+\) from the end", broken.came)
