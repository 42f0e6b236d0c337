"""A Postgres that is there and does not do as it is told: no connection left, statements cut short, read-only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from tests.engine.running import client_options, until
from tests.proof.network.servers import DISCONNECT, begin, do, live_through
from troth import DatabaseError, Troth
from troth.dev import Postgres
from troth.gateway.pool import Pool

Told = Any

pytestmark = pytest.mark.usefixtures("unhurried")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Postgres]:
    server = begin(tmp_path / ".troth", fsync="off", max_connections=25)
    yield server
    server.stop()


async def test_no_connection_is_left(server: Postgres, record_property: Told) -> None:
    """Somebody has them all, and the workers' own were cut; when he lets go, all goes on."""
    held: list[psycopg.Connection[Any]] = []
    free = server.dsn

    async def trouble() -> None:
        do(free, DISCONNECT)
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                held.append(psycopg.connect(free))

    async def relief() -> None:
        while held:
            held.pop().close()

    with capture_logs() as log:
        record_property("seconds", await live_through(free, trouble, relief, log, ("max_connections",)))


SETTINGS = {
    "statement_timeout": ("1ms", "statement timeout"),
    "default_transaction_read_only": ("on", "read-only transaction"),
}


@pytest.mark.parametrize("setting", SETTINGS)
async def test_statements_are_refused(server: Postgres, setting: str, record_property: Told) -> None:
    value, said = SETTINGS[setting]
    database = "alter database postgres"

    async def trouble() -> None:
        do(server.dsn, f"{database} set {setting} = '{value}'", DISCONNECT)

    async def relief() -> None:
        do(
            server.dsn,
            f"set {setting} = default; set {setting} = 0",
            f"{database} reset {setting}",
            DISCONNECT,
        )

    with capture_logs() as log:
        record_property("seconds", await live_through(server.dsn, trouble, relief, log, (said,)))


@pytest.mark.parametrize("code", ["25006", "53100", "53200", "57014", "58030"])
async def test_a_wait_for_a_result_sits_out_what_passes(
    dsn: str, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """Read-only, a full disk, no memory, a cut short statement, an input/output error: three looks of a wait are refused."""
    refused: list[str] = []
    run = Pool.run

    async def refuses(self: Pool, call: Any, **options: Any) -> Any:
        task = asyncio.current_task()
        if call.function == "settled" and task and task.get_name() == "troth lookout" and len(refused) < 3:
            refused.append(code)
            raise DatabaseError("refused", code=code)
        return await run(self, call, **options)

    monkeypatch.setattr(Pool, "run", refuses)
    async with Troth(dsn, **client_options()) as client:
        handle = await client.create_promise(int, "p")
        waiting = asyncio.create_task(handle.result(60))
        await until(lambda: len(refused) == 3 or waiting.done())
        await client.resolve("p", 7)
        assert await waiting == 7
    assert len(refused) == 3
