"""What retention believes of the clock."""

from __future__ import annotations

from relay.retention import PACE, RetentionClock

MINUTE_NS = 60 * 10**9
DAY_NS = 86_400 * 10**9
NOW_NS = 20_000 * DAY_NS


def test_a_clock_that_goes_on_is_believed() -> None:
    clock = RetentionClock(None)
    for minute in range(5):
        assert clock.believe(NOW_NS + minute * MINUTE_NS, MINUTE_NS) == NOW_NS + minute * MINUTE_NS
        assert clock.behind_ns == 0


def test_a_start_with_a_clock_ten_days_ahead_goes_on_from_the_last_sweep() -> None:
    clock = RetentionClock(NOW_NS)
    assert clock.believe(NOW_NS + 10 * DAY_NS, MINUTE_NS) == NOW_NS + PACE * MINUTE_NS
    assert clock.behind_ns == 10 * DAY_NS - PACE * MINUTE_NS
    assert clock.believe(NOW_NS + 2 * MINUTE_NS, MINUTE_NS) == NOW_NS + 2 * MINUTE_NS, "it was set right"
    assert clock.behind_ns == 0


def test_after_ten_days_off_it_catches_up_within_hours() -> None:
    clock = RetentionClock(NOW_NS)
    minutes = 0
    while (
        clock.believe(NOW_NS + 10 * DAY_NS + minutes * MINUTE_NS, MINUTE_NS)
        != NOW_NS + 10 * DAY_NS + minutes * MINUTE_NS
    ):
        minutes += 1
    assert 200 < minutes < 300


def test_a_clock_that_is_set_back_is_followed_at_once() -> None:
    clock = RetentionClock(NOW_NS)
    assert clock.believe(NOW_NS - DAY_NS, MINUTE_NS) == NOW_NS - DAY_NS
