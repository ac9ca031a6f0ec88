"""Sealed files in chunks beside chat, from the middle of the run on: what they do to chat's latency.

locust -f loadtests/scenarios/media.py --headless --host ws://127.0.0.1:8765 -u 100 -r 100 -t 30s
python loadtests/scenarios/media.py --help        # every option, Locust's and the scenario's
"""

import relaymark  # noqa: F401  # our packages, whatever the working folder holds
from loadtests.plugin import main, scenario

Participant = scenario("media")

if __name__ == "__main__":
    main(__file__)
