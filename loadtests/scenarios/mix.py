"""Rooms of all sizes and private chats, nothing but messages: what relays are compared by.

locust -f loadtests/scenarios/mix.py --headless --host ws://127.0.0.1:8765 -u 100 -r 100 -t 30s
python loadtests/scenarios/mix.py --help        # every option, Locust's and the scenario's
"""

import relaymark  # noqa: F401  # our packages, whatever the working folder holds
from loadtests.plugin import main, scenario

Participant = scenario("mix")

if __name__ == "__main__":
    main(__file__)
