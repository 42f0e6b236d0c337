"""S81: a request that waits costs nothing once nobody listens, whichever server it came through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import httpx
import pytest
from granian.constants import Interfaces
from granian.server.embed import Server
from litestar import Litestar

from tests.support.ports import free_port
from troth import Troth


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 — the condition is looked at, nothing tells of it
            await asyncio.sleep(0.01)


class Looks:
    """Counts the waits under way."""

    def __init__(self, troth: Troth, monkeypatch: pytest.MonkeyPatch) -> None:
        self.under_way = 0
        wait = troth.lookout.wait

        async def counted(*arguments: Any) -> Any:
            self.under_way += 1
            try:
                return await wait(*arguments)
            finally:
                self.under_way -= 1

        monkeypatch.setattr(troth.lookout, "wait", counted)


async def test_a_client_that_goes_away_frees_its_wait(
    app: Litestar, troth: Troth, monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    looks = Looks(troth, monkeypatch)
    server = Server(app, port=unused_port, interface=Interfaces.ASGI, log_enabled=False)
    serving = asyncio.create_task(server.serve())
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{unused_port}", trust_env=False, timeout=60
        ) as api:
            await created(api)
            asking = [
                asyncio.create_task(each)
                for each in (
                    api.get("/promises/p?wait=60"),
                    api.post("/workflows/approve?wait=60", json={"id": "o"}),
                )
            ]
            await until(lambda: looks.under_way == 2)
            for each in asking:
                each.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            await until(lambda: looks.under_way == 0)
    finally:
        cast("Any", server).stop()
        await serving


async def created(api: httpx.AsyncClient) -> None:
    for _ in range(200):
        try:
            await api.post("/promises", json={"id": "p"})
        except httpx.TransportError:
            await asyncio.sleep(0.05)
        else:
            return
    raise AssertionError("the server did not start")


async def test_a_hundred_waits_cost_few_connections(
    api: httpx.AsyncClient, troth: Troth, db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Looks(troth, monkeypatch)
    await api.post("/promises", json={"id": "p"})
    waiting = [asyncio.create_task(api.get("/promises/p?wait=60")) for _ in range(100)]
    await until(lambda: looks.under_way == 100)
    ((connections,),) = db.execute(
        "select count(*) from pg_stat_activity where application_name = 'troth' and datname = current_database()"
    ).fetchall()
    await api.post("/promises/p/resolve", json={"value": 1})
    assert {(await each).json()["value"] for each in waiting} == {1}
    assert connections <= 10


@pytest.fixture
def unused_port() -> int:
    return free_port()
