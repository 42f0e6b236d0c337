"""What an exception is besides its message: arguments and attributes, as far as they are plain JSON, and members."""

from __future__ import annotations

import base64
import math
import re
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from troth.errors import TrothError
from troth.remote.classes import builtin_below

parts_bytes_max: Final = 16 * 1024
"""Arguments and attributes of an exception, as JSON."""
parts_depth_max: Final = 10
_coded_bytes_max: Final = 4 * 1024
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
_CODING: Final = (UnicodeDecodeError, UnicodeEncodeError)


def plain_parts(error: BaseException, text: str, bytes_max: int) -> tuple[list[Any] | None, dict[str, Any]]:
    """The arguments (None where they say no more than the text, or cannot be stored) and the attributes."""
    try:
        args, state = _state(error)
    except Exception:  # noqa: BLE001 — a class may do anything at all
        return None, {}
    said: list[Any] | None = None
    # nothing is compared before it is known to be plain: comparing runs code of users
    if _is_plain(args, bytes_max) and json_bytes(args) <= bytes_max and args != [text] and (args or text):
        said = args
        bytes_max -= json_bytes(args)
    attributes: dict[str, Any] = {}
    usual = usual_attributes(type(error), text)
    for name, value in state.items():
        if type(name) is not str or name in ("__notes__", "args") or not _is_plain([name, value], bytes_max):
            continue
        cost = json_bytes({name: value})
        if cost <= bytes_max and not (name in usual and usual[name] == value):
            attributes[name] = value
            bytes_max -= cost
    return said, attributes


def _state(error: BaseException) -> tuple[list[Any], dict[Any, Any]]:
    """What makes the instance: as the builtin class below it would pickle it, and its slots. Runs no code of users."""
    if members_of(error) is not None:
        args, own = [cast("Any", error).message], dict(error.__dict__)
    else:
        _, given, *rest = cast("tuple[Any, ...]", builtin_below(type(error)).__reduce__(error))
        args, own = list(given), dict(rest[0] or {}) if rest else {}
    state: object = object.__getstate__(error)
    if isinstance(state, tuple):
        own.update(cast("tuple[Any, dict[str, Any]]", state)[1])
    return _bytes_as_text(args) if isinstance(error, _CODING) else args, own


def _is_plain(value: object, bytes_max: int) -> bool:
    """Whether a value is JSON and comes back from Postgres as just what it is. Looks no further than the bound."""
    ahead: list[tuple[object, int]] = [(value, 0)]
    while ahead and bytes_max > 0:
        part, depth = ahead.pop()
        bytes_max -= len(part) if isinstance(part, str) else 1
        if depth > parts_depth_max or bytes_max < 0:
            return False
        if type(part) is list:
            inner = cast("list[object]", part)
        elif type(part) is dict:
            pairs = cast("dict[object, object]", part)
            inner = [*pairs, *pairs.values()]
            if not all(type(key) is str for key in pairs):
                return False
        elif _is_plain_leaf(part):
            continue
        else:
            return False
        bytes_max -= len(inner)
        if bytes_max > 0:
            ahead.extend((each, depth + 1) for each in inner)
    return not ahead


def _is_plain_leaf(part: object) -> bool:
    if type(part) is str:
        return _UNSTORABLE.search(part) is None
    if type(part) is float:
        return math.isfinite(part) and (part != 0 or math.copysign(1, part) > 0)
    return part is None or type(part) is bool or (type(part) is int and part.bit_length() < 64)


def json_bytes(value: object) -> int:
    """The length of a value as JSON; without end where it is none."""
    try:
        return len(msgspec.json.encode(value))
    except (TypeError, ValueError, RecursionError):  # an ErrorInfo written by hand may hold anything
        return sys.maxsize


def _bytes_as_text(args: list[Any]) -> list[Any]:
    """The arguments of an error of coding, with what it could not code, which is just what JSON cannot hold, as base64.

    Where that is long it is left out: the error still says where and why.
    """
    match args:
        case [encoding, str() | bytes() as given, *where]:
            data = given.encode("utf-8", "surrogatepass") if isinstance(given, str) else given
            kept = data if len(data) <= _coded_bytes_max else b""
            return [encoding, base64.b64encode(kept).decode(), *where]
        case _:
            return args


def arguments_of(cls: type[Exception], args: Sequence[Any]) -> tuple[Any, ...]:
    """Stored arguments as the class takes them."""
    if not issubclass(cls, _CODING):
        return tuple(args)
    encoding, given, *where = args
    data = base64.b64decode(given)
    return (
        encoding,
        (data if issubclass(cls, UnicodeDecodeError) else data.decode("utf-8", "surrogatepass")),
        *where,
    )


def set_attribute(error: Exception, name: str, value: object) -> None:
    """Set a slot, or what stands in `__dict__`, past properties and whatever the class does when it is set."""
    where = next((vars(each)[name] for each in type(error).__mro__ if name in vars(each)), None)
    if isinstance(where, types.MemberDescriptorType):
        object.__setattr__(error, name, value)
    else:
        error.__dict__[name] = value


def usual_attributes(cls: type[BaseException], text: str) -> Mapping[str, Any]:
    """What every error of ours has: not stored where it says no more than the message, as SQL never stores it."""
    return {"message": text, "detail": None, "hint": None} if issubclass(cls, TrothError) else {}


def members_of(error: BaseException) -> Sequence[BaseException] | None:
    """The members of a group; None where it is none."""
    return cast("Any", error).exceptions if isinstance(error, BaseExceptionGroup) else None
