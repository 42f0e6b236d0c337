"""The blocking gateway: one psycopg connection, opened when first needed, shared by threads in turns."""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import psycopg
from psycopg.rows import tuple_row

from troth.calls import Call
from troth.errors import TrothError, Unreachable
from troth.gateway.failures import parse_dsn, place_of, translated

T = TypeVar("T")


class Blocking:
    """Executes calls on a connection of its own, one at a time."""

    def __init__(self, dsn: str, schema: str, *, prepared: bool = True) -> None:
        self.place = place_of(dsn)
        self.schema = schema
        self._parts = parse_dsn(dsn)
        self._prepared = prepared
        self._connection: psycopg.Connection[Any] | None = None
        self._turn = threading.Lock()

    def run(self, call: Call[T]) -> T:
        """Execute a call, once more on a new connection if the one it met was broken."""
        with self._turn:
            try:
                return self._run(call)
            except Unreachable:
                self._drop()
            return self._run(call)

    def _run(self, call: Call[T]) -> T:
        try:
            connection = self._connection or self._open()
            with connection.cursor(row_factory=tuple_row) as cursor:
                cursor.execute(call.text(self.schema, "percent").encode(), call.values)
                return call.read(cursor.fetchall())
        except TrothError:
            raise
        except Exception as error:
            ours = translated(error, self.place)
            if ours is None:
                raise
            raise ours from error

    def _open(self) -> psycopg.Connection[Any]:
        parts: dict[str, Any] = {"connect_timeout": "10", "application_name": "troth", **self._parts}
        self._connection = psycopg.connect(
            "", autocommit=True, prepare_threshold=5 if self._prepared else None, **parts
        )
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Close the connection."""
        with self._turn:
            self._drop()
