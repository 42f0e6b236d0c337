"""Connections that break: at each call, before it is sent, behind it, or with the answer on its way; and all of them at once."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator

import pytest

from tests.engine.running import client_options, until
from tests.proof.network.proxy import Accident, Proxy
from tests.proof.network.shop import insist, judge, open_shop, order
from troth import Troth, Unreachable

ORDERS = 5


@pytest.fixture
def proxy(dsn: str) -> Iterator[Proxy]:
    with Proxy(dsn) as proxy:
        yield proxy


STRUCK = {
    "claim": "worker",
    "advance": "worker",
    "tick": "worker",
    "heartbeat": "worker",
    "begin": "worker",
    "commit_step": "worker",
    "commit": "worker",
    "start": "client",
    "resolve": "client",
    "get": "client",
}


@pytest.mark.parametrize("accident", ["before", "sent", "answered"])
@pytest.mark.parametrize("function", STRUCK)
async def test_a_connection_breaks_at(dsn: str, proxy: Proxy, function: str, accident: Accident) -> None:
    """Three times, and never twice in a row for the client, who repeats a call once by himself."""
    ids = [f"order-{n}" for n in range(ORDERS)]
    async with Troth(proxy.dsn, **client_options()) as client, open_shop(dsn, proxy.dsn):
        proxy.strike(function, accident, times=3 if STRUCK[function] == "worker" else 1)
        handles = [await client.start(id, order, id) for id in ids]
        await asyncio.gather(*(insist(client, id) for id in ids))
        for each in handles:
            await each.result(60)
        await until(lambda: proxy.struck[function] > 0, "the accident happened")
    judge(dsn, ids)


@pytest.mark.parametrize("seed", range(3))
async def test_all_connections_break_again_and_again(dsn: str, proxy: Proxy, seed: int) -> None:
    """Twenty-five times, whenever some calls have gone through, every third time with nobody let in for a while."""
    rng = random.Random(seed)
    ids = [f"order-{n}" for n in range(4 * ORDERS)]
    async with Troth(dsn, **client_options()) as client, open_shop(dsn, proxy.dsn, proxy.dsn):
        deciding = []
        for n in range(25):
            if n < len(ids):
                await client.start(ids[n], order, ids[n])
                deciding.append(asyncio.create_task(insist(client, ids[n])))
            before, some = proxy.calls.total(), rng.randint(1, 12)
            await until(lambda before=before, some=some: proxy.calls.total() >= before + some, "calls go on")  # type: ignore[misc]
            proxy.cut(refuse=n % 3 == 2)
            await asyncio.sleep(0.1 * (n % 3 == 2))
            proxy.heal()
        for id in ids:
            await client.handle(id).result(60)
        await asyncio.gather(*deciding)
    assert proxy.connected >= 25
    judge(dsn, ids)


async def test_each_packet_takes_its_time(dsn: str, proxy: Proxy) -> None:
    """30 ms each way: more is under way at once, and nothing else changes."""
    proxy.delay_s = 0.03
    ids = [f"order-{n}" for n in range(4 * ORDERS)]
    async with Troth(proxy.dsn, **client_options()) as client, open_shop(dsn, proxy.dsn, proxy.dsn):
        for id in ids:
            await client.start(id, order, id)
        await asyncio.gather(*(insist(client, id) for id in ids))
        for id in ids:
            await client.handle(id).result(60)
    judge(dsn, ids)


@pytest.mark.parametrize("accident", ["before", "sent", "answered"])
async def test_what_a_client_was_told_is_so_and_what_it_was_not_told_it_learns(
    dsn: str, proxy: Proxy, accident: Accident
) -> None:
    """Both tries of a start break: the caller gets an error, says it again, and there is one workflow."""
    async with Troth(proxy.dsn, **client_options()) as client:
        proxy.strike("start", accident, times=2)
        with pytest.raises(Unreachable):
            await client.start("o", order, "o")
        proxy.strike("create_promise", accident, times=1)
        handle = await client.start("o", order, "o")
        await client.create_promise(int, "p")
        proxy.strike("resolve", accident, times=1)
        answer = await client.resolve("p", 7)
        assert answer.answer == ("settled" if accident == "before" else answer.answer)
        assert answer.accepted
        assert await client.handle("p", int).result(60) == 7
        assert (await client.get(handle.id)).task is not None
        assert len(list(itertools.islice(await client.search(limit=10), 10))) == 2
