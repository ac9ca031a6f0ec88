"""Finds a dialect by what a target's address says: a name of ours, FILE.py:Class, or an installed package's entry point.

Workers find it by the same text as the master, so a file must be there on each of their hosts.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Final

from loadtests.dialects.base import Attach, Dialect, Features, Place
from loadtests.dialects.fault import told

GROUP: Final = "relaymark.dialects"
"""Group of the entry points under which a package offers dialects."""
NAMES: Final = {
    "reference": "reference:Reference",
    "nats": "nats:Nats",
    "jetstream": "jetstream:JetStream",
    "mqtt": "mqtt:Mqtt",
    "redis": "redis:Redis",
    "redis-streams": "redis_streams:RedisStreams",
    "centrifugo": "centrifugo:Centrifugo",
    "nchan": "nchan:Nchan",
    "raw": "raw:Raw",
    "socketio": "socketio:SocketIo",
    "nostr": "nostr:Nostr",
    "stomp": "stomp:Stomp",
    "xmpp": "xmpp:Xmpp",
}
"""Ours: the module below loadtests.dialects, imported only when it is asked for, and the class."""
METHODS: Final = ("opening", "receive", "subscribe", "unsubscribe", "publish", "ack", "time", "close")
_STREAM: Final = Attach(stream=0, name=bytes(32), use=1, capability=b"")


class DialectError(ValueError):
    """There is no such dialect, or it cannot be used; one sentence with the remedy."""


def find(spec: str) -> type[Dialect]:
    """Return the dialect's class. Raises DialectError for one that does not import, lacks something, or raises."""
    found = _imported(spec)
    features = getattr(found, "features", None)
    if not isinstance(features, Features):
        raise DialectError(
            f"The dialect {spec} has no features: give the class `features: ClassVar[Features] = Features(...)`"
            " (loadtests/dialects/base.py)."
        )
    missing = [name for name in METHODS if not callable(getattr(found, name, None))]
    if missing:
        raise DialectError(f"The dialect {spec} lacks {', '.join(missing)}: see loadtests/dialects/base.py for each.")
    dialect: type[Dialect] = found
    try:
        opening = dialect(Place(host="127.0.0.1:80", attach=_STREAM if features.one_stream else None)).opening()
    except Exception as error:
        raise DialectError(f"The dialect {spec} raises when it is made or opened: {told(error)}.") from error
    if not isinstance(opening, bytes):
        raise DialectError(f"The dialect {spec} gives no bytes in opening(), but {type(opening).__name__}.")
    return dialect


def class_in_file(spec: str, what: str = "dialect") -> type:
    """Return the class that FILE.py:Class names. Raises DialectError; `what` is what the text calls it."""
    file, _, name = spec.rpartition(":")
    return _class_of(_from_file(Path(file), f"The {what} {spec}"), name, f"The {what} {spec}")


def _imported(spec: str) -> type:
    if spec.rpartition(":")[0].endswith(".py"):
        return class_in_file(spec)
    if spec in NAMES:
        module, _, name = NAMES[spec].partition(":")
        return _class_of(_imported_module(f"loadtests.dialects.{module}", spec), name, f"The dialect {spec}")
    entries = [entry for entry in entry_points(group=GROUP) if entry.name == spec]
    if not entries:
        raise DialectError(
            f"There is no dialect {spec!r}: use {', '.join(NAMES)}, FILE.py:Class, or a name that an installed package"
            f" offers as an entry point in the group {GROUP}."
        )
    try:
        found = entries[0].load()
    except Exception as error:
        raise DialectError(f"The dialect {spec} does not import: {told(error)}.") from error
    return _a_class(found, f"The dialect {spec}")


def _from_file(file: Path, called: str) -> ModuleType:
    if not file.is_file():
        raise DialectError(f"{called}: there is no file {file}.")
    # Named by its place: two files of one name are two modules, and none takes the name of an installed one.
    name = f"relaymark_dialect_{abs(hash(str(file.resolve()))):x}"
    if name in sys.modules:
        return sys.modules[name]
    loader = importlib.util.spec_from_file_location(name, file)
    assert loader is not None
    assert loader.loader is not None
    module = importlib.util.module_from_spec(loader)
    sys.modules[name] = module
    # Modules beside it are found, and hide nothing that is installed.
    if (folder := str(file.resolve().parent)) not in sys.path:
        sys.path.append(folder)
    try:
        loader.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise DialectError(f"{called} does not import: {told(error)}.") from error
    return module


def _imported_module(name: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DialectError(f"The dialect {spec} needs more than is installed: {error}.") from error


def _class_of(module: ModuleType, name: str, called: str) -> type:
    found = getattr(module, name, None)
    if found is None:
        there = [
            key for key, one in vars(module).items() if isinstance(one, type) and one.__module__ == module.__name__
        ]
        has = f"it has {', '.join(there)}" if there else "it has none"
        raise DialectError(f"{called}: its file has no class {name}; {has}.")
    return _a_class(found, called)


def _a_class(found: object, called: str) -> type:
    if not isinstance(found, type):
        raise DialectError(f"{called} is no class.")
    return found
