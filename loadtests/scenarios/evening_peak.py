"""All of it together: rooms of Zipf-distributed sizes, private chats, tips, media, at a diurnal rate.

locust -f loadtests/scenarios/evening_peak.py --headless --host ws://127.0.0.1:8765 -u 100 -r 100 -t 30s
python loadtests/scenarios/evening_peak.py --help        # every option, Locust's and the scenario's
"""

import relaymark  # noqa: F401  # our packages, whatever the working folder holds
from loadtests.plugin import main, scenario

Participant = scenario("evening-peak")

if __name__ == "__main__":
    main(__file__)
