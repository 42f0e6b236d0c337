"""Workers whose clocks are wrong by an hour, and step while they work. What is true goes by the clock of Postgres alone."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import timedelta

import pytest

from tests.engine.running import client_options
from tests.proof.network.shop import insist, judge, open_shop, order
from troth import Troth

IDS = [f"order-{n}" for n in range(10)]
HOUR_S = 3600


class WallClock:
    """Stands in for `time.time`: off by so much, which may be changed."""

    def __init__(self, off_s: float) -> None:
        self.off_s = off_s
        self.asked = 0
        self._true = time.time

    def time(self) -> float:
        self.asked += 1
        return self._true() + self.off_s

    def time_ns(self) -> int:
        return int(self.time() * 1e9)


@pytest.mark.parametrize("off_s", [HOUR_S, -HOUR_S])
@pytest.mark.parametrize("steps", [False, True])
async def test_a_wall_clock_is_wrong(
    dsn: str, monkeypatch: pytest.MonkeyPatch, off_s: float, steps: bool
) -> None:
    """With `steps` it jumps between an hour early and an hour late, again and again."""
    rng = random.Random(int(off_s))
    wall = WallClock(off_s)
    monkeypatch.setattr(time, "time", wall.time)
    monkeypatch.setattr(time, "time_ns", wall.time_ns)
    async with Troth(dsn, **client_options()) as client, open_shop(dsn, dsn, dsn):
        handles = [await client.start(id, order, id) for id in IDS]
        deciding = [asyncio.create_task(insist(client, id)) for id in IDS]
        while steps and not all(each.done() for each in deciding):
            wall.off_s = rng.choice([-HOUR_S, 0, HOUR_S])
            await asyncio.sleep(0.01)
        await asyncio.gather(*deciding)
        for each in handles:
            await each.result(60)
        for id in IDS:
            at = [each.at for each in await client.journal(id)]
            assert at == sorted(at)
            (timer,) = [each for each in await client.journal(id) if each.kind == "timer"]
            before = [each.at for each in await client.journal(id) if each.seq == timer.issued]
            assert all(timer.at - each >= 20_000 for each in before), "no timer was early"
        info = await client.get("order-0")
        assert info.settled_at is not None
        assert info.settled_at - info.created_at < timedelta(seconds=HOUR_S / 2)
    judge(dsn, IDS)
