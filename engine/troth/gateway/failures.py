"""What a driver raised, said in Troth's own errors: by SQLSTATE, never by message.

A lost or refused connection is `Unreachable` and names host, port and database, never the password. SQLAlchemy and Django
wrap their driver's error; the one inside counts.
"""

from __future__ import annotations

from typing import Final

import asyncpg
import psycopg
from psycopg import conninfo

from troth.errors import InvalidArgument, TrothError, Unreachable, from_sqlstate

CONNECTION_ERRORS: Final = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    psycopg.OperationalError,
    psycopg.InterfaceError,
)
"""What a driver raises when the connection is at fault and not the call."""

_AT_FAULT: Final = ("08", "57P", "28", "3D")
_TOO_MANY: Final = "53300"
_UNSENT: Final = ("22000", "22021", "22P05")
"""What no text of Postgres can hold (NUL), and what asyncpg could not encode."""


def translated(error: BaseException, place: str) -> TrothError | None:
    """Our error for a driver's, or None if it is not a driver's. `place` says which Postgres, for people."""
    inner = _driver_error(error)
    if inner is None:
        return None
    sqlstate = getattr(inner, "sqlstate", None)
    if sqlstate in _UNSENT or (sqlstate is None and isinstance(inner, ValueError | psycopg.DataError)):
        return InvalidArgument(
            f"An argument cannot be sent to Postgres: {_reason(inner)}.",
            hint="Give what the function declares, and text without NUL and half surrogate pairs.",
        )
    if sqlstate is not None and not sqlstate.startswith(_AT_FAULT) and sqlstate != _TOO_MANY:
        diagnostics = inner.diag if isinstance(inner, psycopg.Error) else None
        if diagnostics is not None:
            message, detail, hint = (
                diagnostics.message_primary,
                diagnostics.message_detail,
                diagnostics.message_hint,
            )
        else:
            message, detail, hint = (getattr(inner, name, None) for name in ("message", "detail", "hint"))
        return from_sqlstate(sqlstate, message or str(inner), detail, hint)
    if sqlstate is None and isinstance(inner, asyncpg.PostgresError):
        return from_sqlstate(None, str(inner))
    return Unreachable(f"Postgres {place} cannot be reached: {_reason(inner)}.", hint=_advice(sqlstate))


def _driver_error(error: BaseException | None) -> BaseException | None:
    met: set[int] = set()
    while error is not None and id(error) not in met:
        met.add(id(error))
        if isinstance(error, (*CONNECTION_ERRORS, asyncpg.PostgresError, psycopg.Error, UnicodeError)):
            return error
        error = getattr(error, "orig", None) or error.__cause__
    return None


def _reason(error: BaseException) -> str:
    # libpq asks further questions in the lines below
    text = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return " ".join(text.split())[:300].rstrip(".")


def _advice(sqlstate: str | None) -> str:
    if sqlstate == _TOO_MANY:
        return "It has no connection left: raise max_connections, or put fewer clients on it."
    if sqlstate is not None and sqlstate.startswith("28"):
        return "Check user and password of the DSN."
    if sqlstate is not None and sqlstate.startswith("3D"):
        return "Create the database, or mend its name in the DSN."
    return "Check the DSN, and that the server runs."


def parse_dsn(dsn: str) -> dict[str, str]:
    """A DSN's parts, whether it is a URL or keywords. Raises `InvalidArgument` if it is neither."""
    try:
        parts = conninfo.conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        # what the parser says quotes the DSN, with the password in it
        raise InvalidArgument(
            "This is not a DSN.",
            hint="Write postgresql://user:password@host:port/database, or host=... dbname=...",
        ) from None
    if any(port and not port.isdigit() for port in str(parts.get("port") or "").split(",")):
        raise InvalidArgument(
            "The port in the DSN is no number.", hint="Write postgresql://user@host:5432/database."
        )
    return {key: str(value) for key, value in parts.items() if value is not None}


def place_of(dsn: str) -> str:
    """Which Postgres a DSN means, for people: without user and password."""
    parts = parse_dsn(dsn)
    host = parts.get("host", "localhost")
    return f"at {host}:{parts.get('port', '5432')} (database {parts.get('dbname', parts.get('user', '?'))})"
