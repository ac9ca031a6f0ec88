"""Where every process of relaymark begins: it finds our packages, whatever the working folder or PYTHONPATH hold.

    relaymark serve ...                      the console script
    python -P relaymark.py serve ...         the same, as `child` has it started
    python -P relaymark.py -m locust ...     a program that imports our packages, as `child_module` has it started
    python -P relaymark.py -x nats-server    a program of others, as `child_program` has it started

`relay`, `loadtests` and the others are names that a user's own folders may have, too. So they are loaded from beside this
file, by their place, before anything can look for them by name. And a child ends with whoever started it, even if that
was killed: a relay that nobody ends stays for ever. A program of others may be several processes, of which the first
does not end the rest: it gets a watcher, which is none of its children, and ends its whole process group.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import select
import signal
import sys
import time
from collections.abc import Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Final

HOME: Final = Path(__file__).resolve().parent
PACKAGES: Final = ("relay", "loadtests", "benchmarks", "dashboards")
_PR_SET_PDEATHSIG: Final = 1
"""Operation of prctl(2): the signal that comes when the thread ends that started this process."""
_WATCH_S: Final = 1.0
"""Between two looks at what a program left behind."""
_END_S_MAX: Final = 5.0
"""From SIGTERM to SIGKILL, for a program whose starter is gone."""


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
    """Return the command line of a program of others that ends with us; it has the process id of this one.

    Start it in a process group of its own: then all that it starts in there ends with us, too.
    """
    return child("-x", *command)


def _end_with_parent() -> None:
    """Have SIGTERM sent to this process when the one that started it is gone, however that ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _watch_group() -> None:
    """Leave a process behind that ends this process's group when the one that started us is gone."""
    if sys.platform != "linux" or os.getpgrp() != os.getpid():
        return
    group, starter, program = os.getpid(), os.pidfd_open(os.getppid()), os.pidfd_open(os.getpid())
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)  # the watcher is nobody's child: what a relay costs is read from its whole tree
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)  # whoever reads what the program says must see its end
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _wait_for([starter, program])
    while _send(group, 0) and not _wait_for([starter], _WATCH_S):
        pass
    _send(group, signal.SIGTERM)
    _send(group, signal.SIGCONT)  # a stopped process does not see the first
    end_s = time.monotonic() + _END_S_MAX
    while _send(group, 0) and time.monotonic() < end_s:
        time.sleep(0.1)
    _send(group, signal.SIGKILL)
    os._exit(0)


def _wait_for(processes: list[int], seconds: float | None = None) -> bool:
    """Return whether one of the processes, by their descriptors, has ended within that time."""
    return bool(select.select(processes, [], [], seconds)[0])


def _send(group: int, number: int) -> bool:
    """Return whether the group had a process left to get the signal; 0 only asks."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # all of them run as somebody else by now
        pass
    return True


def _run_child(words: list[str]) -> None:
    _end_with_parent()
    if words[:1] == ["-x"]:
        _watch_group()
        try:
            os.execvp(words[1], words[1:])  # noqa: S606  # a command of an argument list, as everywhere
        except OSError as error:
            sys.exit(f"relaymark: {words[1]} could not be started: {error.strerror}")
    elif words[:1] == ["-m"]:
        from relay import output

        output.guard()
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
