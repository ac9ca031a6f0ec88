"""Everyone in a room types at once: states, which may be replaced and dropped.

locust -f loadtests/scenarios/typing_storm.py --headless --host ws://127.0.0.1:8765 -u 100 -r 100 -t 30s
python loadtests/scenarios/typing_storm.py --help        # every option, Locust's and the scenario's
"""

import relaymark  # noqa: F401  # our packages, whatever the working folder holds
from loadtests.plugin import main, scenario

Participant = scenario("typing-storm")

if __name__ == "__main__":
    main(__file__)
