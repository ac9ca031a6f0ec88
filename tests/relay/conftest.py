"""A relay without I/O for the tests of its core."""

from __future__ import annotations

import pytest
from scripted import Later, Net


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def late() -> tuple[Net, Later, Later]:
    """A net whose store answers when the test says so: (net, reads, writes)."""
    reads, writes = Later(), Later()
    return Net(read=reads.submit, write=writes.submit), reads, writes
