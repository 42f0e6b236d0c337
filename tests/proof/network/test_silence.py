"""Connections that die without a word: nothing arrives, nothing comes back, and neither side is told.

The kernel would give such a connection up after a quarter of an hour. The patience of the engine is made short here: what is
shown is that it ends, and what follows.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.engine.running import client_options, until
from tests.proof.network.proxy import Proxy
from tests.proof.network.shop import insist, judge, open_shop, order
from troth import Troth, Unreachable
from troth.gateway import connections, transactions
from troth.gateway import pool as pools
from troth.worker import keeper

IDS = [f"order-{n}" for n in range(5)]
listens = pytest.mark.skipif(os.environ.get("TROTH_TEST_NOTIFY") == "off", reason="nobody listens")


@pytest.fixture
def proxy(dsn: str) -> Iterator[Proxy]:
    with Proxy(dsn) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "SILENT_AFTER_S", 1.0)
    monkeypatch.setattr(pools, "CONNECT_S", 1.0)
    for each in (connections, transactions):
        monkeypatch.setattr(each, "GIVE_BACK_S", 0.5)


def test_how_long_silence_lasts_at_most() -> None:
    """Progress within half a minute of relief; the listener within ten seconds."""
    assert keeper.PROBE_EVERY_S + keeper.PROBE_TIMEOUT_S <= 10
    assert 20.0 + 5.0 <= 30, "SILENT_AFTER_S and GIVE_BACK_S, as they are where no test has shortened them"
    assert (pools.SILENT_AFTER_S, connections.GIVE_BACK_S) == (1.0, 0.5)


@pytest.mark.parametrize(
    "function", ["claim", "advance", "tick", "heartbeat", "begin", "commit_step", "commit"]
)
async def test_a_connection_falls_silent_at(dsn: str, proxy: Proxy, function: str) -> None:
    async with Troth(dsn, **client_options()) as client, open_shop(dsn, proxy.dsn):
        proxy.strike(function, "silence", times=2)
        handles = [await client.start(id, order, id) for id in IDS]
        await asyncio.gather(*(insist(client, id) for id in IDS))
        for each in handles:
            await each.result(60)
        await until(lambda: proxy.struck[function] > 0, "it fell silent")
    judge(dsn, IDS)


async def test_all_connections_fall_silent_and_work_goes_on_when_there_is_a_way_again(
    dsn: str, proxy: Proxy
) -> None:
    async with Troth(dsn, **client_options()) as client, open_shop(dsn, proxy.dsn) as (worker,):
        handles = [await client.start(id, order, id) for id in IDS]
        await until(lambda: proxy.calls["advance"] > 0, "they are under way")
        with capture_logs() as log:
            proxy.fall_silent()
            await until(
                lambda: {"postgres is away", "no heartbeat"} & {e["event"] for e in log}, "it is noticed"
            )
        proxy.heal()
        await asyncio.gather(*(insist(client, id) for id in IDS))
        for each in handles:
            await each.result(60)
        assert worker.id
    judge(dsn, IDS)


async def test_others_take_over_what_a_silent_worker_held(dsn: str, proxy: Proxy) -> None:
    """And when it is heard again, what it still has to say is fenced."""
    async with (
        Troth(dsn, **client_options()) as client,
        open_shop(dsn, proxy.dsn, dsn, lease=timedelta(seconds=1)),
    ):
        handles = [await client.start(id, order, id) for id in IDS]
        await until(lambda: proxy.calls["advance"] > 0, "the one behind the proxy has some")
        proxy.fall_silent()
        await asyncio.gather(*(insist(client, id) for id in IDS))
        for each in handles:
            await each.result(60)
        proxy.heal()
    judge(dsn, IDS)


async def test_a_worker_that_hears_nothing_any_more_can_be_stopped(dsn: str, proxy: Proxy) -> None:
    """Its calls under way are given up, and each of their connections would wait for a word about that."""
    async with Troth(dsn, **client_options()) as client, open_shop(dsn, proxy.dsn) as (worker,):
        await client.start("order-0", order, "order-0")
        await until(lambda: proxy.calls["advance"] > 0)
        before = proxy.calls.total()
        await until(lambda: proxy.calls.total() > before)
        proxy.fall_silent()
        worker.stop()
    assert (await _state(dsn, "order-0")) == "pending"


async def _state(dsn: str, id: str) -> str:
    async with Troth(dsn, notify=False) as client:
        return (await client.get(id)).state


async def test_a_wait_for_a_result_outlasts_silence(dsn: str, proxy: Proxy) -> None:
    async with Troth(proxy.dsn, **client_options()) as far, Troth(dsn, **client_options()) as near:
        handle = await far.create_promise(int, "p")
        waiting = asyncio.create_task(handle.result(60))
        seen = proxy.calls["get"]
        await until(lambda: proxy.calls["get"] > seen)
        proxy.fall_silent()
        await near.resolve("p", 7)
        await asyncio.sleep(0.1)
        assert not waiting.done()
        proxy.heal()
        assert await waiting == 7


async def test_a_call_that_is_given_up_in_silence_gives_its_connection_up(dsn: str, proxy: Proxy) -> None:
    async with Troth(proxy.dsn, **client_options()) as client:
        await client.create_promise(int, "p")
        proxy.fall_silent()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.resolve("p", 7)
        with pytest.raises(Unreachable, match=r"no answer to get within 1 s|cannot be reached"):
            await client.get("p")
        proxy.heal()
        assert (await client.resolve("p", 7)).accepted


# LISTEN.


@listens
@pytest.mark.parametrize("when", ["while it listens", "as it begins to"])
async def test_a_listener_that_died_in_silence_is_noticed_and_made_anew(
    dsn: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """By its next probe, which has no answer; and until then the worker looks by itself."""
    monkeypatch.setattr(keeper, "PROBE_EVERY_S", 0.3)
    monkeypatch.setattr(keeper, "PROBE_TIMEOUT_S", 0.3)
    probes: list[str] = []
    probe = pools.Ear.probe

    async def counted(self: Any, timeout_s: float) -> None:
        probes.append("asked")
        await probe(self, timeout_s)
        probes.append("answered")

    monkeypatch.setattr(pools.Ear, "probe", counted)
    if when == "as it begins to":
        proxy.strike("listen", "silence")
    with capture_logs() as log:
        async with (
            Troth(dsn, **client_options()) as client,
            open_shop(dsn, dsn, listen_dsn=proxy.dsn) as (worker,),
        ):
            if when == "while it listens":
                await until(lambda: worker._listening and len(probes) > 1)
                proxy.fall_silent()
                heard = probes.count("answered")
                await until(lambda: not worker._listening, "it is noticed")
                assert probes.count("answered") <= heard + 1, "no probe was answered after the silence began"
            handle = await client.start("order-0", order, "order-0")
            await insist(client, "order-0")
            await handle.result(60)  # found by looking
            await until(lambda: [e for e in log if "not listening" in e["event"]], "it is said")
            proxy.heal()
            await until(lambda: worker._listening, "it listens again")
    judge(dsn, ["order-0"])
