"""The checks with a relay that runs: each convicts a relay, or a dialect of it, that is wrong in its way.

The relay is that of docs/your-own-dialect.md; it runs in a thread, and a variant of its text is what is wrong.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Any

import pytest
from msgspec.structs import replace
from websockets.asyncio.server import serve

from loadtests.dialects.base import Dialect
from loadtests.dialects.check.contract import Outcome
from loadtests.dialects.check.conversation import ContractBroken
from loadtests.dialects.skeleton import Skeleton
from loadtests.settings import Settings
from loadtests.target import live_check, live_session
from loadtests.target.live_session import LiveSession

PAGE = (Path(__file__).parents[2] / "docs" / "your-own-dialect.md").read_text(encoding="utf-8")
RELAY = re.search(r"```python relay.py\n(.*?)async def main", PAGE, re.DOTALL).group(1)  # type: ignore[union-attr]
SEND = "broadcast(members[room], json.dumps(message))"

records, own = live_check.records_come_once_in_order, live_check.own_records_come_back
kept_apart = live_check.streams_are_kept_apart
WRONG: dict[str, tuple[str, str, Callable[[LiveSession, Random], None], str]] = {
    "it delivers twice": (SEND, f"{SEND}; {SEND}", records, "21 too many"),
    "it drops one": (SEND, f"said['id'] % 7 and {SEND}", records, "Delivered"),
    "it changes bytes": ('"sealed": said["sealed"]', '"sealed": "AQEB" * 86', records, "21 missing"),
    "it acknowledges another": ('"id": said["id"]', '"id": 0', records, "Published for 0, 0"),
    "it never acknowledges": ('answer = {"is": "taken", "id": said["id"]}', "continue", records, "Subscribed"),
    "it never confirms": ('answer = {"is": "joined", "room": room}', "continue", live_check.joins, "Ready"),
    "it confuses rooms": ('"room": room, "sealed"', '"room": sorted(members)[0], "sealed"', kept_apart, "Delivered("),
    "it hangs up": (SEND, "await connection.close()", records, "Closed(1000"),
    "it speaks otherwise": ('"is": "joined"', '"is": "welcome"', live_check.joins, "the relay said"),
    "it does not echo": (
        "members[room], json",
        "members[room] - {connection}, json",
        live_check.own_records_come_back,
        "Published",
    ),
    "it does not forget": ("members[room].discard(connection)", "pass", live_check.what_was_left_stays_left, "Failed"),
}


@contextmanager
def relay(text: str) -> Iterator[Settings]:
    names: dict[str, Any] = {}
    exec(compile(text, "relay.py", "exec"), names)
    found: list[Any] = []

    async def main(started: Callable[[], None]) -> None:
        end = asyncio.Event()
        async with serve(names["client"], "127.0.0.1", 0, compression=None, close_timeout=0.2) as server:
            found.extend((server.sockets[0].getsockname()[1], asyncio.get_running_loop(), end))
            started()
            await end.wait()

    started = Event()
    thread = Thread(target=lambda: asyncio.run(main(started.set)))
    thread.start()
    assert started.wait(10)
    port, loop, end = found
    try:
        yield Settings(scenario="room", url=f"ws://127.0.0.1:{port}", participants=2)
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(10)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_session, "WAIT_S", 0.5)
    monkeypatch.setattr(live_session, "SILENCE_S", 0.1)


def broken(
    check: Callable[[LiveSession, Random], None], settings: Settings, kind: type[Dialect] = Skeleton
) -> ContractBroken:
    with LiveSession(kind, settings) as live, pytest.raises(ContractBroken) as found:
        check(live, Random(1))
    return found.value


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_told(what: str) -> None:
    text, instead, check, came = WRONG[what]
    assert text in RELAY
    with relay(RELAY.replace(text, instead)) as settings:
        found = broken(check, settings)
    assert came in found.came
    assert found.remedy


def promising(**features: bool) -> type[Dialect]:
    """Return the skeleton, promising more than is true."""
    return type("Liar", (Skeleton,), {"features": replace(Skeleton.features, **features)})


def test_promises_that_are_not_true_are_told() -> None:
    with relay(RELAY) as settings:
        silent = broken(live_check.records_come_once_in_order, settings, promising(acknowledges=False))
        assert silent.expected == "no Published, as acknowledges=False"
        assert broken(live_check.own_records_come_back, settings, promising(echoes=False)).came == "1"
        assert broken(live_check.states_are_states, settings, promising(ephemeral=True)).expected.startswith("a State")
        assert broken(live_check.it_tells_the_time, settings, promising(times=True)).expected.startswith("Timed")
        numbered = promising(numbers=True, resumes=True)
        assert "numbers" in broken(live_check.records_come_once_in_order, settings, numbered).expected
        assert broken(live_check.it_resumes, settings, numbered)


def test_all_checks_pass_with_the_page_s_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_session, "WAIT_S", 10.0)
    with relay(RELAY) as settings:
        outcomes = live_check.hold(Skeleton, settings, 1)
    assert [one for one in outcomes if one.broken] == []
    assert {one.name: one.why_not for one in outcomes if one.why_not} == {
        "a state comes as a state": "ephemeral=False",
        "it resumes after a number": "resumes=False",
        "it tells the time": "times=False",
    }


def test_nothing_is_held_against_it_after_a_join_that_failed() -> None:
    with relay(RELAY.replace('"is": "joined"', '"is": "welcome"')) as settings:
        first, *others = live_check.hold(Skeleton, settings, 1)
    assert first.broken
    assert others == [Outcome(one.name, "it joins no stream", None) for one in others]
