"""Connections for `ctx.transaction`: user code's SQL and the record of its outcome, in one transaction.

They are a pool of their own with a named limit, since user code holds them for as long as it runs. Whatever goes wrong, the
connection is rolled back or dropped before another may have it. Our own part of it waits for nobody's rows, so a server that
gives no answer to it counts as gone; how long user code may take is its step's timeout.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, TypeAlias

import asyncpg

from troth.calls import Call
from troth.codec import Sealed
from troth.errors import InvalidArgument, Unreachable
from troth.gateway import pool as pools
from troth.gateway.connections import GIVE_BACK_S
from troth.gateway.failures import place_of, translated
from troth.gateway.pool import asyncpg_url
from troth.model import Committed

Isolation: TypeAlias = Literal["read_committed", "repeatable_read", "serializable"]

BUSY_FIRST_S: Final = 0.01
BUSY_LONGEST_S: Final = 0.2
BUSY_GIVEN_UP_S: Final = 5.0
"""How long a finished transaction waits for its task's row, which somebody's open transaction holds, before it rolls back."""


class Conflicted(Exception):
    """Postgres could not serialize the transaction, or ended a deadlock by it, or its task's row was held for too long."""


class InDoubt(Exception):
    """The connection broke, or was not to be had: whether the transaction was committed is for the journal to say."""


class NotRecorded(Exception):
    """The outcome was not accepted: the task is with another, or the step has its outcome already."""

    def __init__(self, answer: str) -> None:
        super().__init__(answer)
        self.answer = answer


class Transactions:
    """Runs functions in transactions of their own, at most `size` at once."""

    def __init__(self, dsn: str, schema: str, *, size: int, prepared: bool = True) -> None:
        self.place = place_of(dsn)
        self._schema = schema
        self._url = asyncpg_url(dsn)
        self._size = size
        self._prepared = prepared
        self._pool: asyncpg.Pool[Any] | None = None
        self._opening = asyncio.Lock()

    async def run(
        self,
        work: Callable[[Any], Awaitable[Sealed]],
        commit: Callable[[Sealed], Call[Committed]],
        isolation: Isolation,
    ) -> tuple[Committed, Sealed]:
        """Call `work` with a connection, record what it brought with the call that `commit` makes, and commit both.

        Raises what `work` raises, what Postgres found wrong at the commit, `Conflicted`, `NotRecorded` or `InDoubt`; all but
        the last have rolled back.
        """
        try:
            pool = self._pool or await self._open()
            connection = await pool.acquire()
        except Exception as error:
            if self._is_away(error):
                raise InDoubt(str(error)) from error
            raise
        try:
            return await self._transact(connection, work, commit, isolation)
        finally:
            await asyncio.shield(_given_back(pool, connection))

    async def _transact(
        self,
        connection: Any,
        work: Callable[[Any], Awaitable[Sealed]],
        commit: Callable[[Sealed], Call[Committed]],
        isolation: Isolation,
    ) -> tuple[Committed, Sealed]:
        transaction = connection.transaction(isolation=isolation)
        try:
            async with asyncio.timeout(pools.SILENT_AFTER_S):
                await transaction.start()
        except Exception as error:
            if self._is_away(error):
                raise InDoubt(str(error)) from error
            raise
        try:
            value = await work(connection)
            if not connection.is_in_transaction():
                raise InvalidArgument(
                    "The function of a ctx.transaction ended its transaction itself.",
                    hint="Leave commit and rollback to Troth: raise to roll back.",
                )
            committed = await self._record(connection, commit(value))
        except BaseException as error:
            lost = _is_lost(connection)
            if not lost and connection.is_in_transaction():
                await asyncio.shield(_rolled_back(connection, transaction))
            if lost and isinstance(error, Exception):
                # nothing of it is left, and nobody can say whether `work` failed by itself
                raise InDoubt(str(error)) from error
            if _is_conflict(error):
                raise Conflicted(str(error)) from error
            raise
        try:
            async with asyncio.timeout(pools.SILENT_AFTER_S):
                await transaction.commit()
        except Exception as error:
            if _is_conflict(error):
                raise Conflicted(str(error)) from error
            if _is_lost(connection) or self._is_away(error):
                raise InDoubt(str(error)) from error
            raise
        except BaseException as error:  # canceled in the middle of it
            _drop(connection)
            raise InDoubt("the commit was interrupted") from error
        return committed, value

    async def _record(self, connection: Any, call: Call[Committed]) -> Committed:
        pause, waited = BUSY_FIRST_S, 0.0
        while True:
            try:
                rows = await connection.fetch(
                    call.text(self._schema, "dollar"), *call.values, timeout=pools.SILENT_AFTER_S
                )
            except TimeoutError:
                _drop(connection)
                raise
            committed = call.read(rows)
            if committed.answer == "ok":
                return committed
            if committed.answer != "busy":
                raise NotRecorded(committed.answer)
            if waited >= BUSY_GIVEN_UP_S:
                raise Conflicted("its task's row was held by another transaction")
            await asyncio.sleep(pause)
            waited += pause
            pause = min(pause * 2, BUSY_LONGEST_S)

    async def _open(self) -> asyncpg.Pool[Any]:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=0,
                    max_size=self._size,
                    max_inactive_connection_lifetime=60.0,
                    statement_cache_size=100 if self._prepared else 0,
                    timeout=pools.CONNECT_S,
                    server_settings={"application_name": "troth transactions"},
                )
            return self._pool

    def _is_away(self, error: BaseException) -> bool:
        return isinstance(translated(error, self.place), Unreachable)

    async def close(self) -> None:
        """Close all connections; whatever is still under way is rolled back."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()


def _is_lost(connection: Any) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:  # it broke, and its pool has taken it back
        return True


def _is_conflict(error: BaseException) -> bool:
    return isinstance(error, asyncpg.SerializationError | asyncpg.DeadlockDetectedError)


async def _rolled_back(connection: Any, transaction: Any) -> None:
    try:
        async with asyncio.timeout(GIVE_BACK_S):
            await transaction.rollback()
    except TimeoutError:
        _drop(connection)
    except Exception:  # noqa: BLE001 — the function ended it itself, and began another one perhaps
        try:
            await connection.execute("rollback", timeout=GIVE_BACK_S)
        except Exception:  # noqa: BLE001 — a connection that cannot even roll back is of no use to anybody
            _drop(connection)


async def _given_back(pool: asyncpg.Pool[Any], connection: Any) -> None:
    try:
        await pool.release(connection, timeout=GIVE_BACK_S)
    except Exception:  # noqa: BLE001 — it broke: the pool makes a new one
        _drop(connection)


def _drop(connection: Any) -> None:
    with contextlib.suppress(asyncpg.InterfaceError):  # it broke, and its pool has taken it back
        connection.terminate()
