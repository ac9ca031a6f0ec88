"""The Locust file of the engine's worker processes: participants of whatever scenario the master says."""

from loadtests.locust_glue.hooks import install

Participant = install(None)
