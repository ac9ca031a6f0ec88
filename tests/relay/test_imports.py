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
    """Of PyNaCl's modules only those of signatures; `websockets` and TLS know no payload keys."""
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
