"""Pairs that chat: delivered and read receipts, typing before each message.

    locust -f loadtests/scenarios/private_chat.py --headless --host ws://127.0.0.1:8765 -u 100 -r 100 -t 30s
"""

from loadtests.plugin import scenario

Participant = scenario("private-chat")
