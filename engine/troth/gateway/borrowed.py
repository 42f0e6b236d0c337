"""The gateway into a transaction of the caller's: a start or a decision that commits with his own rows, or not at all.

Connections are told apart by what they can do and where their class comes from, so that neither SQLAlchemy nor Django is
imported here. Nothing on the connection is changed: no adapter, no row factory, no setting.
"""

from __future__ import annotations

from typing import Any, TypeVar

import asyncpg
import psycopg
from psycopg.rows import tuple_row

from troth.calls import Call, Style
from troth.errors import InvalidArgument, TrothError, Unreachable
from troth.gateway.failures import translated

T = TypeVar("T")
_PLACE = "of the connection that was given"


async def run_async(connection: Any, schema: str, call: Call[T]) -> T:
    """Execute a call on an asyncpg, psycopg or SQLAlchemy asynchronous connection (or SQLAlchemy session)."""
    try:
        if isinstance(connection, psycopg.AsyncConnection):
            async with connection.cursor(row_factory=tuple_row) as cursor:
                await cursor.execute(call.text(schema, "percent").encode(), call.values)
                return call.read(await cursor.fetchall())
        match _origin(connection):
            case "asyncpg":
                return call.read(await connection.fetch(call.text(schema, "dollar"), *call.values))
            case "sqlalchemy":
                if _is_session(connection):
                    connection = await connection.connection()
                style = _sqlalchemy_style(connection)
                rows = await connection.exec_driver_sql(call.text(schema, style), call.values)
                return call.read(rows.fetchall())
            case _:
                raise _unfit(connection, "an asyncpg, psycopg.AsyncConnection or SQLAlchemy async connection")
    except TrothError:
        raise
    except Exception as error:
        ours = _translated(error)
        if ours is None:
            raise
        raise ours from error


def run_blocking(connection: Any, schema: str, call: Call[T]) -> T:
    """Execute a call on a psycopg, SQLAlchemy (or its session) or Django connection."""
    try:
        if isinstance(connection, psycopg.Connection):
            with connection.cursor(row_factory=tuple_row) as cursor:
                cursor.execute(call.text(schema, "percent").encode(), call.values)
                return call.read(cursor.fetchall())
        match _origin(connection):
            case "sqlalchemy":
                if _is_session(connection):
                    connection = connection.connection()
                style = _sqlalchemy_style(connection)
                return call.read(connection.exec_driver_sql(call.text(schema, style), call.values).fetchall())
            case "django":
                with connection.cursor() as cursor:
                    cursor.execute(call.text(schema, "percent"), call.values)
                    return call.read(cursor.fetchall())
            case _:
                raise _unfit(connection, "a psycopg, SQLAlchemy or Django connection")
    except TrothError:
        raise
    except Exception as error:
        ours = _translated(error)
        if ours is None:
            raise
        raise ours from error


def _translated(error: Exception) -> TrothError | None:
    ours = translated(error, _PLACE)
    if isinstance(ours, Unreachable) and isinstance(error, asyncpg.InterfaceError):
        return InvalidArgument(
            f"The connection that was given cannot be used: {error}.",
            hint="Give one that is open, and make one call at a time on it.",
        )
    return ours


def _origin(connection: object) -> str:
    if hasattr(connection, "fetch") and hasattr(connection, "add_listener"):
        return "asyncpg"
    for kind in type(connection).__mro__:
        package = kind.__module__.partition(".")[0]
        if package in ("sqlalchemy", "django"):
            return package
    return ""


def _is_session(connection: object) -> bool:
    # asked of the class: a connection's attribute of that name may raise
    return hasattr(type(connection), "add") and hasattr(type(connection), "connection")


def _sqlalchemy_style(connection: Any) -> Style:
    return "dollar" if connection.dialect.paramstyle == "numeric_dollar" else "percent"


def _unfit(connection: object, wanted: str) -> InvalidArgument:
    kind = type(connection)
    return InvalidArgument(
        f"connection= is a {kind.__module__}.{kind.__qualname__}; expected {wanted}.",
        hint="Troth takes asynchronous connections, SyncTroth blocking ones.",
    )
