"""The worker's part of runs on Locust's worker, or in a lone process: its users are the participants."""

from __future__ import annotations

import signal
from typing import Any

from gevent.event import Event
from locust import User, task
from locust.runners import WorkerRunner

from loadtests.control.messages import TO_MASTER, TO_WORKER, encode, read_by_worker
from loadtests.control.worker import LoadWorker
from loadtests.locust_glue import stats
from loadtests.locust_glue.master import PLAN
from loadtests.settings import Settings


class ParticipantUser(User):
    """Enters the population of its worker and stays until it is stopped: the loop does what its plan says."""

    abstract = True

    def on_start(self) -> None:
        worker = getattr(self.environment, "relaymark_worker", None)
        self._index = None if worker is None else worker.user_starts()

    def on_stop(self) -> None:
        worker = getattr(self.environment, "relaymark_worker", None)
        if worker is not None and self._index is not None:
            worker.user_stops(self._index)

    @task
    def stay(self) -> None:
        Event().wait()


def attach(environment: Any) -> None:
    """Let each run that the master starts begin and end here."""
    runner = environment.runner

    def on_test_start(**_: Any) -> None:
        plan = getattr(environment.parsed_options, PLAN, None)
        if plan is None:
            return
        workers = plan["workers"]
        worker = LoadWorker(
            Settings.from_wire(plan["settings"]),
            ordinal=workers.index(runner.client_id) if runner.client_id in workers else 0,
            workers=len(workers),
            send=lambda message: runner.send_message(TO_MASTER, encode(message)),
            on_fold=lambda name, histogram: stats.feed(environment.stats, name, histogram),
        )
        environment.relaymark_worker = worker
        worker.open()

    def on_test_stop(**_: Any) -> None:
        worker = getattr(environment, "relaymark_worker", None)
        if worker is not None:
            worker.close()

    def on_message(msg: Any, **_: Any) -> None:
        worker = getattr(environment, "relaymark_worker", None)
        if worker is not None:
            worker.on_message(read_by_worker(msg.data))

    runner.register_message(TO_WORKER, on_message)
    environment.events.test_start.add_listener(on_test_start)
    environment.events.test_stop.add_listener(on_test_stop)
    if isinstance(runner, WorkerRunner):
        _leave_ctrl_c_to_the_master(environment)


def _leave_ctrl_c_to_the_master(environment: Any) -> None:
    """A terminal interrupts all processes at once, but the master needs the workers to end the run in order."""
    seen = 0

    def on_interrupt(_number: int, _frame: Any) -> None:
        nonlocal seen
        seen += 1
        worker = getattr(environment, "relaymark_worker", None)
        if worker is None or worker.population.phase.over or seen > 1:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, on_interrupt)
