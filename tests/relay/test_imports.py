"""The relay handles ciphertext only: nothing in it imports what could open a payload, and imports point one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "relay").rglob("*.py"))

# Of all that can encrypt or decrypt, the relay has signatures, a hash and TLS.
SIGNATURES = {"nacl.signing", "nacl.exceptions"}
CRYPTOGRAPHY = {
    "nacl", "cryptography", "Crypto", "Cryptodome", "libnacl", "pysodium", "jwcrypto", "tink", "age", "gnupg", "noise",
    "doubleratchet", "axolotl", "loadtests", "ctypes", "_cffi_backend", "cffi",
}  # fmt: skip
OPENERS = {"SecretBox", "Box", "SealedBox", "PrivateKey", "Aead", "decrypt", "open_sealed", "bindings"}


def imported(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what they name"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def problems(source: str) -> list[str]:
    """What in a module could open a payload."""
    tree = ast.parse(source)
    found = []
    for name in imported(tree):
        root = name.partition(".")[0]
        allowed = any(name == module or name.startswith(f"{module}.") for module in SIGNATURES)
        if root in CRYPTOGRAPHY and not allowed:
            found.append(f"imports {name}")
    for node in ast.walk(tree):
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if name in OPENERS:
            found.append(f"names {name}")
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("__import__", "eval", "exec")
        ):
            found.append(f"calls {node.func.id}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_in_the_relay_can_decrypt(path: Path) -> None:
    assert problems(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import nacl.secret",
        "from nacl import secret",
        "from nacl.public import Box",
        "from nacl.signing import SigningKey\nkey.to_curve25519_private_key()\nimport nacl.bindings",
        "from cryptography.fernet import Fernet",
        "def f():\n    from Crypto.Cipher import AES",
        "import nacl.signing as s\ns.SecretBox",
        "__import__('nacl.secret')",
        "from loadtests import envelope",
    ],
)
def test_the_check_finds_what_could(source: str) -> None:
    assert problems(source)


def test_loading_the_whole_relay_loads_nothing_that_decrypts() -> None:
    """PyNaCl's modules are those of signatures alone; `websockets` and TLS know no payload keys."""
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in MODULES]
    script = (
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        "print(*[m for m in sys.modules if m in ('nacl.secret', 'nacl.public', 'nacl.pwhash', 'cryptography', 'loadtests')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert set(done.stdout.split()) <= {"nacl.public"}, "which nacl.signing itself imports"


def test_imports_point_one_way() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    if not linter.exists():
        pytest.skip("import-linter is not installed; `make setup` installs it")
    done = subprocess.run([linter, "--no-cache"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


# -- circles -----------------------------------------------------------------------------------------

PACKAGES = ("relay", "loadtests", "benchmarks", "dashboards")


def names_of(path: Path) -> list[str]:
    """The module's full name in parts; a package's is its folder's."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


def arrows() -> dict[str, set[str]]:
    """Which of our modules each imports, imports in functions and under TYPE_CHECKING included."""
    trees = {
        ".".join(names_of(path)): ast.parse(path.read_text())
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    }
    found: dict[str, set[str]] = {}
    for name, tree in trees.items():
        targets = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                inside = {f"{node.module}.{alias.name}" for alias in node.names}
                targets |= {one if one in trees else str(node.module) for one in inside}
        found[name] = targets & trees.keys() - {name}
    return found


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected parts of more than one module: those that reach each other."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for name in graph[todo.pop()] - seen:
                seen.add(name)
                todo.append(name)
        return seen

    reach = {name: reached(name) for name in graph}
    found = []
    left = set(graph)
    while left:
        name = min(left)
        together = {other for other in reach[name] if name in reach[other]} | {name}
        left -= together
        if len(together) > 1:
            found.append(together)
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(arrows()) == []


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"a", "f"}, "f": {"e"}}
    assert circles(graph) == [{"a", "b", "c"}, {"e", "f"}]
