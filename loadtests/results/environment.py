"""Where and with what a run took place, so that it can be repeated: the machine, the versions, the commit."""

from __future__ import annotations

import os
import platform
import subprocess
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import psutil
from msgspec import Struct

_PACKAGES: Final = ("gevent", "locust", "msgspec", "numpy", "pynacl", "trio", "uvloop", "websockets")
_GIT_S_MAX: Final = 10.0


class Machine(Struct, frozen=True, kw_only=True):
    """What decides how fast things are. `fingerprint` is equal for runs on one machine with the same cores to use."""

    system: str
    architecture: str
    cpu: str
    cpus: int
    """Cores that this process may use, which in a container can be fewer than the machine has."""
    memory_bytes: int
    fingerprint: str


def machine() -> Machine:
    """Describe this machine."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    architecture, cpu, memory_bytes = platform.machine(), _cpu_model(), psutil.virtual_memory().total
    # The name and the address stay out of it: results are passed on.
    identity = "|".join((_machine_id(), architecture, cpu, str(cpus), str(memory_bytes)))
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        architecture=architecture,
        cpu=cpu,
        cpus=cpus,
        memory_bytes=memory_bytes,
        fingerprint=blake2b(identity.encode(), digest_size=8, person=b"relaymark.host").hexdigest(),
    )


def _cpu_model() -> str:
    for line in _text("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or "unknown"


def _machine_id() -> str:
    return _text("/etc/machine-id").strip() or platform.node()


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def python_version() -> str:
    return f"{platform.python_implementation()} {platform.python_version()}"


def versions() -> dict[str, str]:
    """Return the versions of the libraries that a figure depends on, as far as they are installed."""
    found = {}
    for package in ("relaymark", *_PACKAGES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit(directory: Path) -> str | None:
    """Return the commit that `directory` is at, with "-dirty" if files were changed; None outside of a checkout."""
    head = _git(directory, "rev-parse", "--short=12", "HEAD")
    if head is None:
        return None
    changed = _git(directory, "status", "--porcelain", "--untracked-files=no")
    return f"{head}-dirty" if changed else head


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments], capture_output=True, text=True, timeout=_GIT_S_MAX, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
