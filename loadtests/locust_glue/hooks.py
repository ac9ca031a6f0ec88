"""Hooks the load into Locust, in a process that has loaded a Locust file of ours."""

from __future__ import annotations

from functools import partial
from typing import Any

from locust import User, events
from locust.runners import LocalRunner, MasterRunner, WorkerRunner

from loadtests.locust_glue import options as locust_options
from loadtests.locust_glue import stats
from loadtests.locust_glue import worker as locust_worker
from loadtests.locust_glue.master import PlainRun
from loadtests.options import LoadOptions
from loadtests.settings import DURATION_S_DEFAULT

_installed: list[str | None] = []


def install(scenario: str | None) -> type[User]:
    """Return the Locust user class; a process has one scenario. None: a worker, whose master says which."""
    if not _installed:
        stats.install()
        events.init_command_line_parser.add_listener(locust_options.adder(LoadOptions()))  # type: ignore[no-untyped-call]  # Locust's
        events.init.add_listener(partial(_attach, scenario))  # type: ignore[no-untyped-call]  # Locust's
    elif _installed != [scenario]:
        raise RuntimeError(f"one scenario a run: {_installed[0]} is loaded already, {scenario} cannot be as well")
    _installed[:] = [scenario]
    return participant_class(f"A participant of {scenario or 'any scenario'}.")


def participant_class(about: str) -> type[User]:
    # Master and workers name their users by the class, so it has one name everywhere.
    return type("Participant", (locust_worker.ParticipantUser,), {"__doc__": about, "abstract": False})


def _attach(scenario: str | None, environment: Any, **_: Any) -> None:
    """Called by Locust when it is set up, before anything runs."""
    options, runner = environment.parsed_options, environment.runner
    # Locust counts --run-time from the first user on; here the load lasts that long from the moment when all have joined.
    options.relaymark_duration_s = options.run_time or DURATION_S_DEFAULT
    options.run_time = None
    if isinstance(runner, MasterRunner | LocalRunner) and scenario is not None:
        PlainRun(environment, scenario)
    if isinstance(runner, WorkerRunner | LocalRunner):
        locust_worker.attach(environment)
