"""A pooler in transaction mode in the path: each statement may be served by another session, and no NOTIFY comes back."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.engine.running import client_options, until
from tests.proof.network.shop import insist, judge, open_shop, order
from tests.support.cli import troth
from tests.support.pooler import BINARY, pooler, through
from tests.support.postgres import Template
from troth import Troth

IDS = [f"order-{n}" for n in range(20)]
Pooled = Callable[[str], str]

pytestmark = pytest.mark.skipif(
    not BINARY.exists() and os.environ.get("CI") != "true", reason="pgbouncer is not installed"
)


@pytest.fixture(scope="module")
def pooled(postgres: Template) -> Iterator[Pooled]:
    with (
        tempfile.TemporaryDirectory(prefix="troth-pooler-") as place,
        pooler(postgres.dsn, Path(place)) as port,
    ):
        yield lambda dsn: through(dsn, port)


async def test_everything_runs_through_a_pooler(dsn: str, pooled: Pooled) -> None:
    way = pooled(dsn)
    async with (
        Troth(way, **client_options(), prepared=False) as client,
        open_shop(dsn, way, way, prepared=False, listen_dsn=dsn) as workers,
    ):
        if client_options()["notify"]:
            await until(lambda: all(each._listening for each in workers), "they listen past the pooler")
        for id in IDS:
            await client.start(id, order, id)
        await asyncio.gather(*(insist(client, id) for id in IDS))
        for id in IDS:
            await client.handle(id).result(60)
    judge(dsn, IDS)


@pytest.mark.skipif(os.environ.get("TROTH_TEST_NOTIFY") == "off", reason="nobody listens")
async def test_a_worker_says_that_hints_do_not_come_through(dsn: str, pooled: Pooled) -> None:
    way = pooled(dsn)
    with capture_logs() as log:
        async with Troth(dsn) as client, open_shop(dsn, way, prepared=False) as (worker,):
            await until(
                lambda: [e for e in log if e["event"].startswith("hints do not arrive")], "it is said"
            )
            assert not worker._listening, "so it does not rely on them"
            await client.start("order-0", order, "order-0")
            await insist(client, "order-0")
            await client.handle("order-0").result(60)
    [said] = [each for each in log if each["event"].startswith("hints do not arrive")]
    assert "listen_dsn" in said["error"]
    judge(dsn, ["order-0"])


def test_the_doctor_says_that_hints_do_not_come_through(dsn: str, pooled: Pooled) -> None:
    told = troth("doctor", dsn=pooled(dsn))
    assert "A NOTIFY did not arrive within 2 s." in told.out
    assert "listen_dsn" in told.out
