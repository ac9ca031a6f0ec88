"""The rules of the house that no linter knows: lengths, names, docstrings, and the public face."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.dialects import base
from loadtests.results import schema

ROOT = Path(__file__).parents[1]
PACKAGES = ("relay", "loadtests", "benchmarks", "dashboards")
LINES_MAX = 500
TEST_LINES_MAX = 700

SHARED = {
    # The records of the wire, and the events that they are for a client: one thing, seen from both ends.
    *("Erased", "Gap", "Published", "Refused", "Subscribed", "Timed", "Unsubscribed"),
    # The framings of relay and load are apart on purpose: a fault that they shared would not show.
    *("FrameReader", "Handshake"),
}

FACE = ("loadtests/dialects/base.py", "loadtests/plugin.py", "loadtests/results/schema.py")

MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))] + [ROOT / "relaymark.py"]
TEMPLATES = {ROOT / "loadtests" / "dialects" / "skeleton.py"}
"""Files that become a user's own: their names are the user's."""
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def documented(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield name and docstring of a module, its classes and functions, and its documented constants and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if text := ast.get_docstring(node):
                yield getattr(node, "name", "the module"), text
            for statement in node.body[1:]:
                if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                    yield f"line {statement.lineno}", str(statement.value.value)


@pytest.mark.parametrize("path", MODULES + TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_has_one_job_and_so_is_not_long(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= (TEST_LINES_MAX if path in TESTS else LINES_MAX)


def test_files_of_tests_have_names_of_their_own() -> None:
    """Pytest collects them by their base names: two of one name end the whole run."""
    names = [path.name for path in TESTS if path.name.startswith("test_")]
    assert sorted(names) == sorted(set(names))


def test_one_name_one_thing() -> None:
    places = defaultdict(list)
    for path in set(MODULES) - TEMPLATES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1 and name not in SHARED} == {}


def test_docstrings_begin_with_a_noun_or_a_verb() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in MODULES
        for name, text in documented(ast.parse(path.read_text()))
        if text.startswith("Of ")
    ]
    assert found == []


def test_only_the_public_face_lists_its_names() -> None:
    listed = [
        str(path.relative_to(ROOT)) for path in MODULES if re.search(r"^__all__\b", path.read_text(), re.MULTILINE)
    ]
    assert set(listed) == {"relay/store/__init__.py", *FACE}  # the store's package hands on what its modules hold


def test_the_public_face() -> None:
    """What users build on: a change here breaks their scenarios, dialects or readers of results."""
    # Read from its text: to import it is to import Locust, which patches the process of all tests.
    assert '__all__ = ["main", "scenario"]' in (ROOT / "loadtests" / "plugin.py").read_text()
    assert base.__all__ == [
        *("Attach", "Closed", "Delivered", "Dialect", "Erased", "Event", "Failed", "Features", "Gap", "GoingAway"),
        "Place",
        *("Published", "Ready", "Refused", "Reply", "State", "Subscribed", "Timed", "Unsubscribed"),
    ]
    assert schema.SCHEMA_VERSION == 1


def test_the_targets_of_make_that_documents_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        named = set(re.findall(r"(?:`|^    )make ([a-z-]+)", document.read_text(), re.MULTILINE))
        assert named <= targets, document.name


def test_findings_have_their_form() -> None:
    for script in (ROOT / "findings").iterdir():
        if script.name == "README.md":
            continue
        text = script.read_text()
        assert script.suffix == ".sh", script.name
        assert os.access(script, os.X_OK), script.name
        assert text.startswith("#!/usr/bin/env bash\n# "), script.name
        assert "mktemp -d" in text, script.name
        assert "relaymark" not in text, script.name
        subprocess.run(["bash", "-n", str(script)], check=True)
