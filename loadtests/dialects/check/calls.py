"""What can be checked of a dialect without another end: its calls, its features."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from random import Random
from typing import Any, Final

from loadtests.dialects.base import Failed
from loadtests.dialects.check.conversation import (
    RECEIVE,
    SEALED,
    STREAM,
    ContractBroken,
    Subject,
    attach_to,
    connection,
    received,
    show,
    text_of,
)
from loadtests.dialects.fault import told

_FORMS: Final[dict[str, tuple[tuple[Any, ...], dict[str, Any]]]] = {
    "opening": ((), {}),
    "receive": ((b"",), {}),
    "subscribe": ((attach_to(RECEIVE),), {"after": None, "epoch": None}),
    "unsubscribe": ((1,), {}),
    "publish": ((1, 2, b""), {"durable": True, "slot": 0}),
    "ack": ((1, 2), {}),
    "time": ((1,), {}),
    "close": ((1000,), {}),
}


def calls_take_what_they_are_given(subject: Subject, random: Random) -> None:
    """Each call can be made as the harness makes it."""
    for name, (values, named) in _FORMS.items():
        try:
            inspect.signature(getattr(subject.dialect, name)).bind(None, *values, **named)
        except (TypeError, ValueError) as error:
            words = ", ".join([*(["..."] if values else []), *(f"{key}=..." for key in named)])
            raise ContractBroken(
                f"that {name}({words}) can be called",
                str(error),
                "give it the parameters of loadtests/dialects/base.py",
            ) from error


def features_fit_together(subject: Subject, random: Random) -> None:
    features = subject.dialect.features
    if features.resumes and not features.numbers:
        raise ContractBroken(
            "numbers=True where resumes=True", "numbers=False", "a place to resume from is a number: say resumes=False"
        )
    if features.idempotent and not features.acknowledges:
        raise ContractBroken(
            "acknowledges=True where idempotent=True",
            "acknowledges=False",
            "only what is acknowledged is ever sent again: say idempotent=False",
        )


def calls_before_their_time_raise(subject: Subject, random: Random) -> None:
    attach = attach_to(RECEIVE)
    dialect = connection(subject.dialect, attach)
    calls: dict[str, Callable[[], bytes]] = {
        "subscribe before Ready": lambda: dialect.subscribe(attach),
        "publish to a stream that is not subscribed": lambda: dialect.publish(STREAM, 1, SEALED),
        "ack of a stream that is not subscribed": lambda: dialect.ack(STREAM, 1),
        "unsubscribe of a stream that is not subscribed": lambda: dialect.unsubscribe(STREAM),
    }
    for what, call in calls.items():
        raises_lookup_error(what, call)


def refused_upgrades_are_named(subject: Subject, random: Random) -> None:
    dialect = connection(subject.dialect, attach_to(RECEIVE))
    events = received(dialect, b"HTTP/1.1 403 Forbidden\r\n\r\n")
    if [type(event) for event in events] != [Failed] or "403 Forbidden" not in text_of(events):
        raise ContractBroken(
            "one Failed that says 403 Forbidden", show(events), "pass on what the WebSocket says: Failed is an event"
        )


def raises_lookup_error(what: str, call: Callable[[], bytes]) -> None:
    try:
        data = call()
    except LookupError:
        return
    except Exception as error:
        came = told(error)
    else:
        came = show(data)
    raise ContractBroken(
        f"LookupError from {what}", came, "look the stream up in a dict of those that are subscribed; base.py says when"
    )
