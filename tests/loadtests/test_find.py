"""A dialect is found by name, file or entry point; what cannot be used is told in a sentence with the remedy."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from loadtests.dialects import find as find_module
from loadtests.dialects.find import NAMES, DialectError, find

WHOLE = """
from loadtests.dialects.raw import Raw

class Mine(Raw):
    pass
"""


@pytest.mark.parametrize("name", [name for name in NAMES if name != "nostr"])  # which needs a package of its own
def test_ours_are_found_by_name(name: str) -> None:
    assert find(name).features is not None


def test_a_dialect_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(WHOLE)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.py").write_text(WHOLE.replace("Mine", "Other"))
    mine = find(f"{tmp_path}/mine.py:Mine")
    assert mine.__name__ == "Mine"
    assert find(f"{tmp_path}/mine.py:Mine") is mine, "it is loaded once"
    assert find(f"{tmp_path}/other/mine.py:Other").__name__ == "Other"


def test_a_file_may_import_what_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine.py").write_text("from beside_mine import Mine")
    (tmp_path / "beside_mine.py").write_text(WHOLE)
    (tmp_path / "msgspec.py").write_text("raise SystemExit('what is installed was hidden')")
    assert find(f"{tmp_path}/mine.py:Mine").__name__ == "Mine"


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        (
            "import no_such_package",
            "Mine",
            "does not import: ModuleNotFoundError: No module named 'no_such_package' (mine.py, line 1).",
        ),
        ("class Mine(:", "Mine", "does not import: SyntaxError: invalid syntax (mine.py, line 1)."),
        ("raise SystemExit(3)", "Mine", "does not import: SystemExit: 3 (mine.py, line 1)."),
        (WHOLE, "Yours", "has no class Yours; it has Mine."),
        ("Mine = 3", "Mine", "is no class."),
        ("class Mine:\n    pass", "Mine", "has no features: give the class"),
        (
            "from loadtests.dialects.raw import Raw\nclass Mine:\n    features = Raw.features\n    opening = Raw.opening",
            "Mine",
            "lacks receive, subscribe, unsubscribe, publish, ack, time, close: see",
        ),
        (
            WHOLE + "    def __init__(self, place, **rest):\n        raise OSError('no key')",
            "Mine",
            "raises when it is made or opened: OSError: no key (mine.py, line 7).",
        ),
        (WHOLE + "    def opening(self):\n        return 'GET'", "Mine", "gives no bytes in opening(), but str."),
    ],
)
def test_a_file_that_cannot_be_used_is_told(text: str, name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(DialectError) as error:
        find(f"{tmp_path}/mine.py:{name}")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_names_that_are_none() -> None:
    with pytest.raises(DialectError, match=r"There is no dialect 'smtp': use reference, .* FILE.py:Class"):
        find("smtp")
    with pytest.raises(DialectError, match=r"there is no file /no/such.py"):
        find("/no/such.py:Mine")


def test_an_installed_package_offers_dialects_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        EntryPoint("theirs", "loadtests.dialects.raw:Raw", find_module.GROUP),
        EntryPoint("broken", "loadtests.no_such:Raw", find_module.GROUP),
    ]
    monkeypatch.setattr(find_module, "entry_points", lambda group: entries if group == find_module.GROUP else [])
    assert find("theirs").__name__ == "Raw"
    with pytest.raises(DialectError, match="broken does not import"):
        find("broken")
