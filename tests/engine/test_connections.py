"""Connections go from hand to hand: whatever becomes of a call, its connection is there for the next one, or its place is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import psycopg
import pytest

from tests.engine.running import until
from troth.gateway import connections as gateway
from troth.gateway.connections import Connection, Connections

GUARD_S = 60


@pytest.fixture
def opens(dsn: str) -> Callable[[], Any]:
    return lambda: asyncpg.connect(dsn, server_settings={"application_name": "of ours"})


@pytest.fixture
async def pair(opens: Callable[[], Any]) -> AsyncIterator[Connections]:
    """Two at most."""
    connections = Connections(opens, 2)
    yield connections
    await asyncio.wait_for(connections.close(), GUARD_S)


async def test_they_go_from_hand_to_hand(pair: Connections) -> None:
    first, second = await pair.take(), await pair.take()
    waiting = [asyncio.ensure_future(pair.take()) for _ in range(3)]
    await asyncio.sleep(0)
    pair.give_back(second)
    assert await waiting[0] is second
    waiting[1].cancel()
    pair.give_back(first)
    assert await waiting[2] is first
    assert waiting[1].cancelled()
    pair.give_back(first)
    pair.give_back(second)
    assert await pair.take() is second
    pair.give_back(second)


async def test_who_gives_up_waiting_when_it_is_his_turn_hands_it_on(pair: Connections) -> None:
    taken = [await pair.take(), await pair.take()]
    waiting = [asyncio.ensure_future(pair.take()) for _ in range(2)]
    await asyncio.sleep(0)
    pair.give_back(taken[0])
    waiting[0].cancel()
    assert await asyncio.wait_for(waiting[1], GUARD_S) is taken[0]
    await asyncio.wait(waiting)
    for each in taken:
        pair.give_back(each)


async def test_the_place_of_a_broken_one_is_for_who_waits(pair: Connections) -> None:
    taken = [await pair.take(), await pair.take()]
    waiting = [asyncio.ensure_future(pair.take()) for _ in range(2)]
    await asyncio.sleep(0)
    for each in taken:
        each.terminate()
        pair.give_back(each)
    for another in await asyncio.wait_for(asyncio.gather(*waiting), GUARD_S):
        assert await another.fetchval("select 1") == 1
        pair.give_back(another)


async def test_one_that_broke_while_nobody_used_it_is_not_given(pair: Connections) -> None:
    one = await pair.take()
    pair.give_back(one)
    one.terminate()
    taken = await asyncio.wait_for(asyncio.gather(pair.take(), pair.take()), GUARD_S)
    assert one not in taken
    for each in taken:
        pair.give_back(each)


async def test_a_place_is_left_where_none_could_be_opened() -> None:
    async def refuse() -> Connection:
        raise OSError("refused")

    none = Connections(refuse, 1)
    for _ in range(3):
        with pytest.raises(OSError, match="refused"):
            await asyncio.wait_for(none.take(), GUARD_S)
    await asyncio.wait_for(none.close(), GUARD_S)


async def test_a_call_that_was_given_up_ends_in_the_server_too(
    pair: Connections, db: psycopg.Connection[Any]
) -> None:
    one = await pair.take()
    pid = one.get_server_pid()
    active = "select count(*) from pg_stat_activity where pid = %s and state = 'active'"
    call = asyncio.ensure_future(one.fetch("select pg_sleep(600)"))
    await until(lambda: db.execute(active, (pid,)).fetchall() == [(1,)])
    call.cancel()
    await asyncio.wait([call])
    pair.give_up(one)
    other = await pair.take()
    again = await asyncio.wait_for(pair.take(), GUARD_S)
    assert again is one
    assert await again.fetchval("select pg_backend_pid()") == pid
    assert db.execute(active, (pid,)).fetchall() == [(0,)]
    pair.give_back(again)
    pair.give_back(other)


async def test_what_nobody_takes_is_closed(
    pair: Connections, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "IDLE_S", 0.05)
    taken = [await pair.take(), await pair.take()]
    for each in taken:
        pair.give_back(each)
    ours = "select count(*) from pg_stat_activity where application_name = 'of ours'"
    await until(lambda: db.execute(ours).fetchall() == [(0,)])
    assert all(each.is_closed() for each in taken)
    pair.give_back(await pair.take())


async def test_the_end_waits_for_what_is_taken(opens: Callable[[], Any]) -> None:
    two = Connections(opens, 2)
    taken = await two.take()
    two.give_back(await two.take())
    closing = asyncio.ensure_future(two.close())
    await asyncio.sleep(0.05)
    assert not closing.done()
    assert await taken.fetchval("select 1") == 1
    two.give_back(taken)
    await asyncio.wait_for(closing, GUARD_S)
    assert taken.is_closed()
