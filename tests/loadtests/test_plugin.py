"""The load's options among Locust's, on the command line and on the page, and the hooks of a scenario's file."""

from __future__ import annotations

import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest

from loadtests.locust_glue.options import adder, check, read, read_run
from loadtests.options import PAGE, LoadOptions
from loadtests.workload.catalogue import SCENARIOS

ROOT = Path(__file__).parents[2]


def parsed(*arguments: str, given: LoadOptions | None = None) -> Namespace:
    parser = ArgumentParser()
    adder(given or LoadOptions())(parser)
    namespace = parser.parse_args(arguments)
    namespace.host, namespace.num_users, namespace.headless = "ws://127.0.0.1:9", 8, True
    namespace.relaymark_duration_s = 2
    return namespace


def test_without_options_all_is_as_declared() -> None:
    assert read(parsed()) == (LoadOptions(), [])


def test_every_option_is_read() -> None:
    options, problems = read(
        parsed(
            *("--rate", "2.5", "--seed", "7", "--suite", "box", "--drain", "9s", "--tls-ca", "x", "--out", "y"),
            *("--threshold", "a", "--threshold", "b", "--clock-shift-ms", "0,250", "--clock-shift-ms", "3"),
            *("--header", "A: b, c", "--query", "d=e", "--token-file", "f", "--origin", "g", "--subprotocol", "h"),
            *("--targets", "i", "--target-pid", "5", "--target-metrics", "j", "--target-series", "k"),
        )
    )
    assert problems == []
    assert options == LoadOptions(
        rate=2.5,
        seed=7,
        suite="box",
        drain="9s",
        tls_ca="x",
        out="y",
        threshold=["a", "b"],
        clock_shift_ms=[0.0, 250.0, 3.0],
        header=["A: b, c"],
        query=["d=e"],
        token_file="f",
        origin="g",
        subprotocol="h",
        targets="i",
        target_pid=5,
        target_metrics="j",
        target_series=["k"],
    )


def test_the_page_begins_with_what_was_given() -> None:
    given = LoadOptions(rate=3.0, seed=4, clock_shift_ms=[1.0])
    assert read(parsed(given=given)) == (given, [])


def test_an_empty_field_of_the_page_is_none() -> None:
    namespace = parsed()
    namespace.rate = ""
    assert read(namespace) == (LoadOptions(), [])


def test_the_page_has_fields_for_the_load() -> None:
    parser = ArgumentParser()
    adder(LoadOptions())(parser)
    shown = [action.dest for action in parser._actions if getattr(action, "include_in_web_ui", False)]
    assert shown == list(PAGE)


def test_all_that_cannot_be_read_is_told_at_once() -> None:
    _, problems = read(parsed("--rate", "fast", "--seed", "1.5", "--clock-shift-ms", "much"))
    assert problems == [
        "--rate must be a number, not 'fast'.",
        "--seed must be a number, not '1.5'.",
        "--clock-shift-ms needs numbers.",
    ]


def test_settings_come_from_locusts_options_and_ours() -> None:
    namespace = parsed("--seed", "5", "--drain", "1")
    target, settings = read_run(namespace, "room", 12)
    assert target.name == "reference@ws://127.0.0.1:9/"
    assert (settings.scenario, settings.participants, settings.seed) == ("room", 12, 5)
    assert (settings.url, settings.duration_s, settings.drain_s) == ("ws://127.0.0.1:9/", 2.0, 1.0)
    assert settings.run


def test_a_headless_run_is_checked_whole(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    namespace = parsed("--suite", "rot13", "--threshold", "x", "--out", str(tmp_path / "file"))
    namespace.host = "http://127.0.0.1"
    with pytest.raises(ValueError, match="threshold") as error:
        check(namespace, "room")
    for part in ("--out", "rot13", "--host"):
        assert part in str(error.value)


def test_with_a_page_only_what_it_has_no_field_for_is_checked() -> None:
    namespace = parsed("--suite", "rot13")
    namespace.headless = False
    assert check(namespace, "room") == []


@pytest.mark.process
@pytest.mark.parametrize("name", ["room"])
def test_a_scenarios_file_lists_its_options_and_has_one_user_class(name: str) -> None:
    assert name in SCENARIOS
    file = ROOT / "loadtests" / "scenarios" / f"{name}.py"
    shown = subprocess.run([sys.executable, file, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--clock-shift-ms" in shown.stdout
    listed = subprocess.run(
        [sys.executable, "-m", "locust", "-f", file, "--list"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "Participant" in listed.stdout + listed.stderr
