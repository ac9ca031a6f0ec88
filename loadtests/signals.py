"""What ends a command of the load in order: Ctrl-C, SIGTERM from a CI system, SIGHUP from a terminal that goes away."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack


def ending_signals() -> list[signal.Signals]:
    """Return the signals that end a command: not SIGHUP if it was started to outlive its terminal, by nohup(1)."""
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    return [one for one in numbers if one is not signal.SIGHUP or signal.getsignal(one) is not signal.SIG_IGN]


def on_ending(stack: ExitStack, handle: Callable[[], object]) -> None:
    """Have `handle` called by each of these signals until the stack closes."""
    for number in ending_signals():
        stack.callback(signal.signal, number, signal.signal(number, lambda number, frame: handle()))
