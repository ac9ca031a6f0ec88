"""A performer and viewers in one room, chat at a rate.

    locust -f loadtests/scenarios/room.py --headless --host ws://127.0.0.1:8765 -u 100 -r 100 -t 30s
"""

from loadtests.plugin import scenario

Participant = scenario("room")
