"""The metrics of a run, and the names of their series: what is measured, with labels of a closed list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

METRICS: Final[Mapping[str, str]] = {
    "deliver": "from the sender's stamp to the recipient; basis intended or sent",
    "deliver_slow": "as deliver, from the intended send, to recipients who read slowly on purpose",
    "ack": "from publishing to the relay's acknowledgement",
    "join": "from connecting to being subscribed",
    "resume": "from connecting again to having caught up",
    "seal": "sealing one record",
    "open": "opening one record",
    "lag": "how late the generator sent, against its schedule",
    "loop_lag": "how late the generator's loop ran",
    "fanout_first": "from the intended send to the first recipient in a room",
    "fanout_median": "from the intended send to the median recipient in a room",
    "fanout_last": "from the intended send to the last recipient in a room",
    "echo": "round trip to an echo server: the floor of this rig",
}
"""The metrics of a run and what each measures."""

LABELS: Final = frozenset({"kind", "basis", "size", "suite"})


def series_name(metric: str, **labels: str) -> str:
    """Return the canonical name, labels sorted: `deliver{basis=intended,kind=message}`. ValueError if not known."""
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; there are {', '.join(METRICS)}")
    for label, value in labels.items():
        if label not in LABELS:
            raise ValueError(f"unknown label {label!r}; there are {', '.join(sorted(LABELS))}")
        if not value or not all(character.isalnum() or character in "_-." for character in value):
            raise ValueError(f"label {label}={value!r}: letters, digits, '_', '-' and '.' only")
    if not labels:
        return metric
    return f"{metric}{{{','.join(f'{label}={labels[label]}' for label in sorted(labels))}}}"


def parse_series_name(name: str) -> tuple[str, dict[str, str]]:
    """Return (metric, labels) of a name that `series_name` made. ValueError if it did not."""
    metric, brace, rest = name.partition("{")
    labels: dict[str, str] = {}
    if brace:
        labels = dict(part.partition("=")[::2] for part in rest.removesuffix("}").split(","))
    if series_name(metric, **labels) != name:
        raise ValueError(f"{name!r} is not a series name")
    return metric, labels


def size_decade(size: int) -> str:
    """Return the label of a room's size: "1-9", "10-99", "100-999", ..."""
    low = 10 ** (len(str(max(size, 1))) - 1)
    return f"{low}-{10 * low - 1}"
