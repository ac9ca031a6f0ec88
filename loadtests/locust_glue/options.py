"""The load's options among Locust's own, on its command line and on its web page."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, get_args, get_type_hints

import msgspec
from cyclopts import Parameter

from loadtests.address import TargetError
from loadtests.options import PAGE, LoadOptions, cannot_write, read_thresholds, settings_of, target_of
from loadtests.results.thresholds import Threshold
from loadtests.settings import Settings
from loadtests.target.target import Target

_HINTS = get_type_hints(LoadOptions, include_extras=True)


def _help(name: str) -> str:
    return next(str(extra.help) for extra in get_args(_HINTS[name]) if isinstance(extra, Parameter))


def _type(name: str) -> Any:
    """Return an option's type, without the None of one that may be left out."""
    declared = get_args(_HINTS[name])[0]
    return (
        next((part for part in get_args(declared) if part is not NoneType), declared) if _optional(name) else declared
    )


def _optional(name: str) -> bool:
    return NoneType in get_args(get_args(_HINTS[name])[0])


def adder(given: LoadOptions) -> Callable[..., None]:
    """Return a listener for Locust's `init_command_line_parser` that adds the options, with what is `given` as defaults.

    All are text for Locust, which would otherwise refuse the first wrong one by itself; `read` tells of all at once.
    """

    def add(parser: ArgumentParser, **_: Any) -> None:
        group = parser.add_argument_group("relaymark")
        for field in fields(LoadOptions):
            value = getattr(given, field.name)
            option, several = f"--{field.name.replace('_', '-')}", get_args(_type(field.name))
            default = [str(part) for part in value or ()] if several else None if value is None else str(value)
            action: Any = group.add_argument(
                option,
                default=default,
                action="append" if several else "store",
                help=_help(field.name).replace("%", "%%"),
            )
            # As Locust's own parser does for what is added to it directly: the page then has a field for it.
            action.include_in_web_ui = field.name in PAGE
            action.is_secret = action.is_required = action.is_multiple = False

    return add


def read(namespace: Namespace) -> tuple[LoadOptions, list[str]]:
    """Return the options that Locust parsed, or that its page gave, and what cannot be read of them."""
    found: dict[str, Any] = {}
    problems: list[str] = []
    for field in fields(LoadOptions):
        value, wanted = getattr(namespace, field.name, None), _type(field.name)
        if value in (None, "", []):  # the page gives an empty text for nothing
            continue
        if get_args(wanted) == (float,):
            value = [part for text in value for part in text.split(",") if part.strip()]
        try:
            found[field.name] = msgspec.convert(value, wanted, strict=False)
        except msgspec.ValidationError:
            what = "needs numbers" if isinstance(value, list) else f"must be a number, not {value!r}"
            problems.append(f"--{field.name.replace('_', '-')} {what}.")
    return LoadOptions(**found), problems


class PlainTarget(NamedTuple):
    """What plain Locust runs: `settings` lack the address where the target is started here."""

    target: Target
    settings: Settings


def read_run(namespace: Namespace, scenario: str, participants: int) -> PlainTarget:
    """Return what Locust's options, its own and ours, ask for. Raises ValueError with every problem in it."""
    options, problems = read(namespace)
    target = target_of(namespace.host or "", options, problems, option="--host")
    base = Settings(
        scenario=scenario,
        url=target.url,
        dialect=target.dialect,
        participants=participants,
        duration_s=float(namespace.relaymark_duration_s),
        run=f"{time.time_ns():x}",
    )
    settings, found = settings_of(options, base)
    problems += found
    if not problems and target.url:
        try:
            settings.address.numeric()
        except TargetError as error:
            problems.append(f"--host: {error}")
    if problems:
        raise ValueError(" ".join(problems))
    return PlainTarget(target, settings)


def read_settings(namespace: Namespace, base: Settings) -> Settings:
    """Return `base` with what the fields of Locust's page say. Raises ValueError with every problem in it."""
    options, problems = read(namespace)
    settings, found = settings_of(options, base)
    if problems + found:
        raise ValueError(" ".join(problems + found))
    return settings


def check(namespace: Namespace, scenario: str) -> list[Threshold]:
    """Return the thresholds of Locust's options. Raises ValueError with every problem in it.

    Without a page, everything is known from the start; with one, it has fields for the settings, and is asked later.
    """
    thresholds, problems = read_thresholds(namespace.threshold or ())
    if namespace.out and (problem := cannot_write(Path(namespace.out))):
        problems.append(problem)
    if namespace.headless:
        try:
            read_run(namespace, scenario, namespace.num_users or 1)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError(" ".join(problems))
    return thresholds
