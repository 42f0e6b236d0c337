"""The options of an operation, checked when they are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, Self, get_args

import msgspec

from troth import limits
from troth.context.requests import Close, Isolation
from troth.errors import InvalidArgument, InvalidId
from troth.registry import check_name
from troth.retry import Retry

_LONGEST: Final = timedelta(days=limits.timeout_days_max)
_ID: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:@!$&'()*+,;=")


@dataclass(frozen=True, slots=True)
class Options:
    """See `Context.options`."""

    name: str | None = None
    id: str | None = None
    queue: str | None = None
    priority: int = 0
    delay: timedelta | None = None
    retry: Retry | None = None
    timeout: timedelta | None = None
    default: object = msgspec.UNSET
    title: str | None = None
    tags: Mapping[str, str] | None = None
    close: Close = "cancel"
    isolation: Isolation | None = None
    compare: bool = True

    def changed(self, given: Mapping[str, Any], default: object) -> Self:
        """These with the given ones, of which None changes nothing. Raises `InvalidArgument` or `InvalidId`."""
        changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        for key in ("timeout", "delay"):
            if key in changes:
                changes[key] = _span(changes[key], key)
        _check(changes)
        if default is not msgspec.UNSET:
            changes["default"] = default
        return replace(self, **changes)


def micros(span: timedelta | None) -> int | None:
    """A duration as it crosses the wire."""
    return None if span is None else span // timedelta(microseconds=1)


def _span(given: Any, what: str) -> timedelta:
    try:
        span = given if isinstance(given, timedelta) else timedelta(seconds=given)
    except (TypeError, ValueError, OverflowError):
        raise InvalidArgument(
            f"A {what} of {given!r} cannot be.", hint="Give seconds or a timedelta."
        ) from None
    if not timedelta(0) <= span <= _LONGEST:
        raise InvalidArgument(f"A {what} of {span} cannot be: 0 to {limits.timeout_days_max} days.")
    return span


def _check(changes: Mapping[str, Any]) -> None:
    if "queue" in changes:
        check_name(changes["queue"], "queue")
    id = changes.get("id")
    if id is not None and (
        not isinstance(id, str)
        or not 1 <= len(id) <= limits.id_start_length_max
        or not _ID.issuperset(id)
        or id in (".", "..")
    ):
        raise InvalidId(
            f"{id!r:.150} cannot be the ID of a workflow.",
            hint=f"Use 1 to {limits.id_start_length_max} letters, digits and -._:@!$&'()*+,;= characters.",
        )
    for key, known in (("close", Close), ("isolation", Isolation)):
        if key in changes and changes[key] not in get_args(known):
            raise InvalidArgument(
                f"{key}={changes[key]!r} cannot be: use one of {', '.join(get_args(known))}."
            )
    priority = changes.get("priority", 0)
    if not isinstance(priority, int) or not -32_768 <= priority <= 32_767:
        raise InvalidArgument(f"A priority of {priority!r} cannot be: -32768 to 32767, lower goes first.")
    retry = changes.get("retry")
    if retry is not None and not isinstance(retry, Retry):
        raise InvalidArgument(f"retry={retry!r} cannot be.", hint="Give a troth.Retry(...).")
