"""pytest-postgresql beside our plugin: its `noproc` on the run's server, databases copied from the migrated template."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pytest_postgresql import factories

from tests.support.postgres import Template
from troth import Context, Troth, Worker, workflow


@dataclass(frozen=True)
class Server:
    """What `postgresql_noproc(depends_on=...)` asks of another server fixture."""

    host: str
    port: str
    user: str
    password: str | None
    options: str
    maintenance_dbname: str
    template_dbname: str


@pytest.fixture(scope="session")
def migrated(postgres: Template) -> Server:
    """The run's server, with the migrated database as the one that others are copied from."""
    parts = conninfo_to_dict(postgres.dsn)
    return Server(
        str(parts["host"]),
        str(parts.get("port", 5432)),
        str(parts["user"]),
        None if parts.get("password") is None else str(parts["password"]),
        "",
        str(parts["dbname"]),
        postgres.database,
    )


borrowed_noproc = factories.postgresql_noproc(depends_on="migrated", dbname="troth_noproc")
borrowed = factories.postgresql("borrowed_noproc")


@workflow
async def greets(ctx: Context, name: str) -> str:
    await ctx.sleep(timedelta(milliseconds=1))
    return f"hello {name}"


async def test_a_database_of_pytest_postgresql_is_a_namespace_to_work_in(
    borrowed: psycopg.Connection[Any],
) -> None:
    info = borrowed.info
    async with Troth(make_conninfo(info.dsn, password=info.password)) as troth:
        worker = Worker(troth, [greets])
        life = asyncio.create_task(worker.run())
        assert await (await troth.start("w", greets, "ann")).result(60) == "hello ann"
        worker.stop()
        await life
    row = borrowed.execute("select state from troth.promises where id = 'w'").fetchone()
    assert row == ("resolved",)
