"""Where the programs of relays are found."""

from __future__ import annotations

import os
import shutil


def which(name: str) -> str | None:
    """Return the path of a program, also where a distribution puts daemons and an ordinary user's PATH does not look."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
