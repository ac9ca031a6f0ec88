"""Microbenchmarks of the relay's and the load's parts, run by pyperf: `python -m benchmarks.micro --help`."""
