"""What a call of a SQL function is: a value that a gateway executes.

A `Call` says which function, with which arguments, and how its rows are read. It knows no driver: a gateway gives it
placeholders and runs it, blocking or not, on a pool or on a connection that the caller holds. So nothing above a
gateway is written twice, and what SQL answers is decoded in one place.

Arguments are sent as text, numbers, durations and arrays of them, and cast in the statement: a caller's own connection
may have any codec for jsonb without changing what arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import msgspec

from troth import limits
from troth.errors import InvalidArgument

T = TypeVar("T")
Row: TypeAlias = Sequence[Any]
Style: TypeAlias = Literal["dollar", "percent"]

_CAST = {
    "text": "text",
    "jsonb": "text::jsonb",
    "interval": "interval",
    "integer": "integer",
    "bigint": "bigint",
    "boolean": "boolean",
    "bytea": "bytea",
    "bytea[]": "bytea[]",
    "text[]": "text[]",
    "integer[]": "integer[]",
}


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call of one function: `arguments` are (name, SQL type, value), `columns` what is selected of a table."""

    function: str
    arguments: tuple[tuple[str, str, object], ...]
    read: Callable[[Sequence[Row]], T]
    columns: tuple[str, ...] = ()

    def text(self, schema: str, style: Style) -> str:
        """The statement, with placeholders as the driver writes them."""
        return _text(schema, self.function, tuple((n, t) for n, t, _ in self.arguments), self.columns, style)

    @property
    def values(self) -> tuple[object, ...]:
        """The arguments' values, in the order of the placeholders."""
        return tuple([value for _, _, value in self.arguments])


@lru_cache(maxsize=512)
def _text(
    schema: str, function: str, arguments: tuple[tuple[str, str], ...], columns: tuple[str, ...], style: Style
) -> str:
    given = ", ".join(
        f"p_{name} => {'%s' if style == 'percent' else f'${n}'}::{_CAST[kind]}"
        for n, (name, kind) in enumerate(arguments, 1)
    )
    call = f'"{schema}".{function}({given})'
    # names are ours, values are placeholders, and a schema's name was checked to be an identifier
    return f"select {', '.join(columns)} from {call}" if columns else f"select {call}::text"  # noqa: S608


def given(**arguments: tuple[str, object]) -> tuple[tuple[str, str, object], ...]:
    """The arguments that were given: what is None keeps the function's default."""
    return tuple([(name, kind, value) for name, (kind, value) in arguments.items() if value is not None])


def json(value: object) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def plain(text: bytes | None) -> str | None:
    return None if text is None else text.decode()


def document(kind: type[T]) -> Callable[[Sequence[Row]], T]:
    decoder = msgspec.json.Decoder(kind)
    return lambda rows: decoder.decode(rows[0][0])


def documents(kind: type[T]) -> Callable[[Sequence[Row]], list[T]]:
    decoder = msgspec.json.Decoder(kind)
    return lambda rows: [decoder.decode(row[0]) for row in rows]


def nothing(rows: Sequence[Row]) -> None:
    del rows


def number(rows: Sequence[Row]) -> int:
    return int(rows[0][0])


def duration(value: timedelta | None, what: str) -> timedelta | None:
    if value is None:
        return None
    if value < timedelta(0) or value > timedelta(days=limits.timeout_days_max):
        raise InvalidArgument(
            f"A {what} of {value} cannot be: it must lie between 0 and {limits.timeout_days_max} days."
        )
    return value
