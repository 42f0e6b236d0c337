"""Exception classes by name: which ones can come back, what they are called, and the builtin below them."""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path
from typing import TypeGuard, cast

from troth import limits
from troth.errors import StoredError


def type_name(cls: type) -> str:
    """The name that `known_class` finds the class by, if it can be found: `module.Class`, or `Class` of a builtin."""
    module = _main_name() if cls.__module__ == "__main__" else cls.__module__
    return cls.__qualname__ if module == "builtins" else f"{module}.{cls.__qualname__}"


@functools.lru_cache(maxsize=limits.decoders_cached_max)
def known_class(name: str) -> type[Exception] | None:
    path = name.split(".")
    if not all(part.isidentifier() for part in path):
        return None  # also what stands in a function, `f.<locals>.E`, and what was cut
    if len(path) == 1:
        path = ["builtins", *path]
    for split in range(len(path) - 1, 0, -1):
        module = _module(".".join(path[:split]))
        if module is not None:
            found: object = functools.reduce(_attribute, path[split:], module)
            return found if _can_come_back(found) else None
    return None


def _module(name: str) -> object | None:
    if name == _main_name():
        name = "__main__"
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit):  # noqa: BLE001 — whatever a module does when it is imported, its classes are not known
        return None


def _attribute(of: object, name: str) -> object | None:
    try:
        return getattr(of, name, None)
    except Exception:  # noqa: BLE001 — so may a module that makes its attributes up
        return None


def _can_come_back(found: object) -> TypeGuard[type[Exception]]:
    """Only exceptions that may be raised in a workflow: no futures carry a StopIteration."""
    never = (StoredError, StopIteration, StopAsyncIteration)
    return isinstance(found, type) and issubclass(found, Exception) and not issubclass(found, never)


def _main_name() -> str:
    """What the running program's own module is called where another program imports it; its classes go by that."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    path = Path(str(getattr(main, "__file__", None) or ""))
    return path.stem if path.suffix == ".py" and path.stem.isidentifier() else "__main__"


def builtin_below(cls: type[BaseException]) -> type[BaseException]:
    """The builtin exception whose layout the class has."""
    below: type = cls
    while below.__module__ != "builtins":
        assert below.__base__ is not None
        below = below.__base__
    return cast("type[BaseException]", below)
