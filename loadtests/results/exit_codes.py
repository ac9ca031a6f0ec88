"""The exit codes of every command; README.md lists them."""

from __future__ import annotations

from typing import Final

EXIT_OK: Final = 0
EXIT_THRESHOLD: Final = 99
EXIT_CONFIGURATION: Final = 104
EXIT_INTERRUPTED: Final = 105
EXIT_INVALID: Final = 120
EXIT_INCONCLUSIVE: Final = 121
EXIT_TARGET: Final = 122
