"""The asynchronous gateway: a small pool of asyncpg connections, opened when first needed.

No connection is held while user code runs. `prepared=False` suits a pooler in transaction mode: no statement is kept by
name. A connection that broke is replaced; the call that met it is repeated once where the caller says that it may be
(every verb of a client is idempotent). One that gives no answer where Postgres would have given it long ago counts as broken:
a way that fell silent is told to nobody, and the kernel gives it up after a quarter of an hour.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import asyncpg

from troth.calls import Call
from troth.errors import TrothError, Unreachable
from troth.gateway.connections import Connection, Connections
from troth.gateway.failures import parse_dsn, place_of, translated

CONNECT_S: Final = 10.0
SILENT_AFTER_S: Final = 20.0
"""How long an answer may take of a function that waits for nobody's rows, or not for long."""
WAITING_FOR_NOBODY: Final = frozenset(
    {"claim", "advance", "heartbeat", "tick", "leave", "journal", "get", "settled", "start_together"},
)
HINT_S: Final = 2.0
"""How long a hint may take to arrive."""

T = TypeVar("T")


class Pool:
    """Executes calls on connections of its own. Close it when done; it must stay in one event loop."""

    def __init__(self, dsn: str, schema: str, *, size: int = 10, prepared: bool = True) -> None:
        self.place = place_of(dsn)
        self.schema = schema
        self._url = asyncpg_url(dsn)
        self._size = size
        self._prepared = prepared
        self._connections: Connections | None = None

    async def run(self, call: Call[T], *, again: bool = True) -> T:
        """Execute a call. `again` repeats it once on a new connection if the one it met was broken."""
        try:
            return await self._run(call)
        except Unreachable:
            if not again:
                raise
        return await self._run(call)

    async def _run(self, call: Call[T]) -> T:
        try:
            connections = self._connections
            if connections is None:
                connections = self._connections = Connections(self._connect, self._size)
            connection = await connections.take()
            try:
                rows = await self._fetch(connection, call)
            except asyncio.CancelledError:
                connections.give_up(connection)
                raise
            except BaseException:
                connections.give_back(connection)
                raise
            connections.give_back(connection)
            return call.read(rows)
        except TrothError:
            raise
        except Exception as error:
            ours = translated(error, self.place)
            if ours is None:
                raise
            raise ours from error

    async def _fetch(self, connection: Connection, call: Call[Any]) -> list[Any]:
        patience_s = SILENT_AFTER_S if call.function in WAITING_FOR_NOBODY else None
        try:
            rows: list[Any] = await connection.fetch(
                call.text(self.schema, "dollar"), *call.values, timeout=patience_s
            )
        except TimeoutError as error:
            connection.terminate()
            raise Unreachable(
                f"Postgres {self.place} gave no answer to {call.function} within {patience_s:g} s.",
                hint="The connection is dropped. Look at the network between, and at what the server is busy with.",
            ) from error
        return rows

    async def _connect(self) -> Connection:
        return await asyncpg.connect(
            self._url,
            timeout=CONNECT_S,
            statement_cache_size=100 if self._prepared else 0,
            server_settings={"application_name": "troth"},
        )

    async def close(self) -> None:
        """Close all connections, waiting for calls under way."""
        connections, self._connections = self._connections, None
        if connections is not None:
            await connections.close()


class Deaf(Exception):
    """Somebody stands between who takes a LISTEN and hands no NOTIFY back."""


class Ear:
    """A connection that listens on one channel and calls back at each hint."""

    def __init__(self, dsn: str, channel: str, heard: Callable[[], None]) -> None:
        self._url = asyncpg_url(dsn)
        self._place = place_of(dsn)
        self._channel = channel
        self._heard = heard
        self._hint = asyncio.Event()
        self._connection: asyncpg.Connection[Any] | None = None

    async def open(self) -> None:
        """Connect and listen. Raises `Unreachable`, or `Deaf` behind a pooler that hands on no hints."""
        try:
            self._connection = await asyncpg.connect(
                self._url,
                timeout=CONNECT_S,
                statement_cache_size=0,
                server_settings={"application_name": "troth listener"},
            )
            await asyncio.wait_for(self._connection.add_listener(self._channel, self._on_notice), CONNECT_S)
            served_by = await self._connection.fetchval("select pg_backend_pid()", timeout=CONNECT_S)
            if served_by != self._connection.get_server_pid():
                await self._try()
        except Deaf:
            raise
        except Exception as error:
            ours = translated(error, self._place)
            if ours is None:
                raise
            raise ours from error

    async def _try(self) -> None:
        """There is a pooler: only a hint that arrives tells whether hints do."""
        other = await asyncpg.connect(self._url, timeout=CONNECT_S, statement_cache_size=0)
        try:
            self._hint.clear()
            await other.execute(f"select pg_notify('{self._channel}', '')", timeout=CONNECT_S)
            await asyncio.wait_for(self._hint.wait(), HINT_S)
        except TimeoutError:
            raise Deaf(
                f"A pooler at {self._place.removeprefix('at ')} takes LISTEN and hands no NOTIFY back: give the client a "
                "listen_dsn that leads to Postgres itself."
            ) from None
        finally:
            other.terminate()

    def _on_notice(self, connection: object, pid: int, channel: str, payload: object) -> None:
        del connection, pid, channel, payload
        self._hint.set()
        self._heard()

    async def probe(self, timeout_s: float) -> None:
        """Ask the server for a sign of life on this very connection. Raises if there is none in time."""
        if self._connection is None:
            raise Unreachable("The listener is not connected.")
        try:
            await asyncio.wait_for(self._connection.execute("select 1"), timeout_s)
        except Exception as error:
            ours = translated(error, self._place)
            if ours is None:
                raise
            raise ours from error

    def close(self) -> None:
        """Drop the connection at once."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


_TAKEN: Final = frozenset(
    {
        *("host", "port", "dbname", "user", "password", "passfile", "service", "application_name", "options"),
        *(
            "target_session_attrs",
            "krbsrvname",
            "gsslib",
            "sslmode",
            "sslcert",
            "sslkey",
            "sslrootcert",
            "sslcrl",
        ),
        *("sslpassword", "sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version"),
    }
)
"""The parameters of a DSN that mean the same to asyncpg; it would send any other (keepalives, ...) to the server."""


def asyncpg_url(dsn: str) -> str:
    """A DSN as asyncpg takes it: a URL, whatever form it had."""
    parts = parse_dsn(dsn)
    if dsn.startswith(("postgresql://", "postgres://")) and _TAKEN.issuperset(parts):
        return dsn
    query = {key: value for key, value in parts.items() if key in _TAKEN and key != "dbname"}
    return f"postgresql:///{quote(parts.get('dbname', ''), safe='')}?{urlencode(query)}"
