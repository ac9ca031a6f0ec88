"""Where every process of relaymark begins: it finds our packages, whatever the working folder or PYTHONPATH hold.

    relaymark serve ...                      the console script
    python -P relaymark.py serve ...         the same, as `child` has it started
    python -P relaymark.py -m locust ...     a program that imports our packages, as `child_module` has it started
    python -P relaymark.py -x nats-server    a program of others, as `child_program` has it started

`relay`, `loadtests` and the others are names that a user's own folders may have, too. So they are loaded from beside this
file, by their place, before anything can look for them by name. And a child ends with whoever started it, even if that
was killed: a relay that nobody ends stays for ever.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
from collections.abc import Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Final

HOME: Final = Path(__file__).resolve().parent
PACKAGES: Final = ("relay", "loadtests", "benchmarks", "dashboards")
_PR_SET_PDEATHSIG: Final = 1
"""Operation of prctl(2): the signal that comes when the thread ends that started this process."""


def _load(name: str) -> None:
    """Load our package `name`. Raises ImportError if another one of that name is in its place already."""
    folder = HOME / name
    known = sys.modules.get(name)
    if known is not None:
        places = [Path(place).resolve() for place in getattr(known, "__path__", [known.__file__ or "?"])]
        if places != [folder]:
            raise ImportError(
                f"relaymark needs its own package {name!r}, but {places[0]} was imported under this name before: rename "
                f"that one, or start relaymark in a process of its own."
            )
        return
    spec = spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def child(*arguments: str) -> list[str]:
    """Return the command line of `relaymark` with these arguments, for a process of its own."""
    # -P: the folder of the script, or of the caller, is not searched for modules.
    return [sys.executable, "-P", str(HOME / "relaymark.py"), *arguments]


def child_module(name: str, *arguments: str) -> list[str]:
    """Return the command line of the program `name`, as `python -m` would run it, where our packages are found."""
    return child("-m", name, *arguments)


def child_program(command: Sequence[str]) -> list[str]:
    """Return the command line of a program of others that ends with us; it has the process id of this one."""
    return child("-x", *command)


def _end_with_parent() -> None:
    """Have SIGTERM sent to this process when the one that started it is gone, however that ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _run_child(words: list[str]) -> None:
    _end_with_parent()
    if words[:1] == ["-x"]:
        try:
            os.execvp(words[1], words[1:])  # noqa: S606  # a command of an argument list, as everywhere
        except OSError as error:
            sys.exit(f"relaymark: {words[1]} could not be started: {error.strerror}")
    elif words[:1] == ["-m"]:
        del sys.argv[1:3]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        main()


def main() -> None:
    """Run the command line: the entry point of the console script."""
    from relay.cli import main as command

    command()


for _name in PACKAGES:
    _load(_name)

if __name__ == "__main__":
    sys.modules["relaymark"] = sys.modules["__main__"]
    _run_child(sys.argv[1:])
