"""Sealed files in chunks beside chat: what they do to chat's latency.

    locust -f loadtests/scenarios/media.py --headless --host ws://127.0.0.1:8765 -u 100 -r 100 -t 30s
"""

from loadtests.plugin import scenario

Participant = scenario("media")
