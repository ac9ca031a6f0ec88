"""Pairs that chat: delivered and read receipts, typing before each message.

locust -f loadtests/scenarios/private_chat.py --headless --host ws://127.0.0.1:8765 -u 100 -r 100 -t 30s
python loadtests/scenarios/private_chat.py --help        # every option, Locust's and the scenario's
"""

import relaymark  # noqa: F401  # our packages, whatever the working folder holds
from loadtests.plugin import main, scenario

Participant = scenario("private-chat")

if __name__ == "__main__":
    main(__file__)
