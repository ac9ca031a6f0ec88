"""The load as Locust sees it. A scenario file needs one line:

    Participant = scenario("private-chat")

and then runs alone (`locust -f FILE --host ws://HOST:PORT`), with a web page, with `--processes`, or with a master and
workers on several hosts.

Every Locust user is one participant of the workload's plan; `-u` counts them. Locust deals its users out to the workers
in turn, so worker i of n gets the participants i, i + n, i + 2n, ...: which is which does not depend on timing.
"""

from __future__ import annotations

import sys

from locust import User
from locust.main import main as locust_main

from loadtests.locust_glue.hooks import install


def scenario(name: str) -> type[User]:
    """Return the Locust user class of scenario `name`, and hook it into Locust. A process has one scenario."""
    return install(name)


def main(file: str) -> None:
    """Run a scenario's file as `locust -f` does, so that --help, which Locust answers before it looks at any file, lists
    the scenario's options too."""
    sys.argv[1:1] = ["-f", file]
    locust_main()  # type: ignore[no-untyped-call]  # Locust's


__all__ = ["main", "scenario"]
