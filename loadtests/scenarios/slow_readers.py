"""Some read far less than they are sent; the others must not notice.

locust -f loadtests/scenarios/slow_readers.py --headless --host ws://127.0.0.1:8765 -u 100 -r 100 -t 30s
python loadtests/scenarios/slow_readers.py --help        # every option, Locust's and the scenario's
"""

import relaymark  # noqa: F401  # our packages, whatever the working folder holds
from loadtests.plugin import main, scenario

Participant = scenario("slow-readers")

if __name__ == "__main__":
    main(__file__)
