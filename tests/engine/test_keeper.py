"""The keeper: it keeps the lease while the worker's loop is busy, lets it go when that is blocked, and takes it up again."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

import troth
from tests.core.driving import STARTED_AT
from tests.engine.running import ROOT, Stage, until
from tests.support.sql import Sql, Worker
from troth import Context, workflow
from troth.core import Machine
from troth.worker.keeper import Ears, Keeper

Connection = psycopg.Connection[Any]


class Host:
    """A worker's loop in a thread of its own, with a keeper for the worker `w1`."""

    def __init__(self, dsn: str, held: Callable[[], dict[str, int]] = dict, **options: Any) -> None:
        self.release = threading.Event()
        self.heard: list[object] = []
        self._dsn = dsn
        self._held = held
        self._options: dict[str, Any] = {"beat_every_s": 0.1, **options}
        self._ready = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._live()), daemon=True)
        self.thread.start()
        assert self._ready.wait(60)

    async def _live(self) -> None:
        self.loop.close()
        self.loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self.keeper = Keeper(
            "w1",
            dsn=self._dsn,
            schema="troth",
            prepared=True,
            listen_dsn=None,
            held=self._held,
            ears=Ears(
                lambda: self.heard.append("hint"),
                lambda _: None,
                lambda news: self.heard.extend(each.answer for each in news),
                lambda worker, _: self.heard.append(("dead", worker)),
            ),
            **self._options,
        )
        self.keeper.start()
        self._ready.set()
        await self._over.wait()
        self.keeper.stop()
        await self.keeper.join()

    def block(self) -> None:
        """Keep the loop in a workflow's code until `release`."""

        async def main() -> None:
            while not self.release.is_set():
                pass

        self.loop.call_soon_threadsafe(lambda: Machine(main, started_at=STARTED_AT).start())

    def close(self) -> None:
        self.release.set()
        self.loop.call_soon_threadsafe(self._over.set)
        self.thread.join(60)
        assert not self.thread.is_alive()


@pytest.fixture
def host(dsn: str) -> Iterator[Callable[..., Host]]:
    hosts: list[Host] = []

    def make(**options: Any) -> Host:
        hosts.append(Host(dsn, **options))
        return hosts[-1]

    yield make
    for each in hosts:
        each.close()


def seen_at(db: Connection) -> Any:
    return (db.execute("select seen_at from worker where id = 'w1'").fetchone() or [None])[0]


async def beats(db: Connection, times: int = 3) -> None:
    for _ in range(times):
        before = seen_at(db)
        await until(lambda before=before: seen_at(db) > before)  # type: ignore[misc]


async def test_a_loop_that_is_busy_for_a_while_loses_nothing(
    db: Connection, host: Callable[..., Host]
) -> None:
    Worker(Sql(db)).claim()
    keeping = host()
    await beats(db)
    keeping.block()
    await beats(db, 5)
    keeping.release.set()
    await beats(db)


async def test_a_blocked_loop_lets_the_lease_go_and_takes_it_up_again(
    db: Connection, host: Callable[..., Host]
) -> None:
    Worker(Sql(db)).claim(lease=timedelta(seconds=60))
    keeping = host(blocked_named_after_s=0.2, blocked_leave_after_s=0.5)
    keeping.block()
    await until(lambda: keeping.keeper._watchdog.silent)
    keeping.keeper.beat()  # not even when it is asked to
    quiet = "select clock_timestamp() - seen_at > interval '0.8 s' from worker"
    await until(lambda: db.execute(quiet).fetchone() == (True,), "it beats no more")
    keeping.release.set()
    await beats(db)
    assert not keeping.keeper._watchdog.silent
    assert keeping.heard == []


async def test_whoever_was_taken_for_dead_meanwhile_hears_so_when_the_loop_goes_on(
    db: Connection, host: Callable[..., Host]
) -> None:
    sql = Sql(db)
    sql.start("a", "f")
    Worker(sql).claim(lease=timedelta(seconds=1))
    keeping = host(held=lambda: {"a": 1}, blocked_named_after_s=0.2, blocked_leave_after_s=0.4)
    await beats(db)
    keeping.block()

    def buried() -> bool:
        sql.tick()
        return sql.query("select died_at from worker where id = 'w1'")[0]["died_at"] is not None

    await until(buried)
    [task] = sql.query("select state, worker, attempts from task where id = 'a'")
    assert task == {"state": "ready", "worker": None, "attempts": 1}
    assert keeping.heard == []
    keeping.release.set()
    await until(lambda: keeping.heard)
    assert keeping.heard == [("dead", "w1")]


# S30, with processes of their own.


@workflow
async def waits(ctx: Context) -> str:
    await ctx.promise(str, "answer")
    return "done"


class Looping:
    """A worker process whose loop is blocked for ever by what it claims."""

    def __init__(self, dsn: str, log: Path, name: str) -> None:
        self.name = name
        self._log = log.open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.programs.looping", json.dumps({"dsn": dsn, "name": name})],
            cwd=ROOT,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{Path(troth.__file__).parents[1]}"},
        )

    def said(self) -> str:
        return Path(self._log.name).read_text()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()


@pytest.fixture
def looping(dsn: str, tmp_path: Path) -> Iterator[Callable[[str], Looping]]:
    started: list[Looping] = []

    def start(name: str) -> Looping:
        started.append(Looping(dsn, tmp_path / f"{name}.log", name))
        return started[-1]

    yield start
    for each in started:
        each.close()


async def test_s30_a_workflow_that_loops_is_named_others_go_on_and_it_ends_halted(
    stage: Stage, db: Connection, looping: Callable[[str], Looping]
) -> None:
    first = looping("first")
    await stage.troth.start("other", "waits")
    await stage.reaches("other", "suspended")
    await stage.troth.start("loop", "loops")
    await until(lambda: "is blocked" in first.said(), "the line is named")
    [named] = [line for line in first.said().splitlines() if "loop is blocked" in line][:1]
    assert "looping.py:" in named
    assert "by='workflow code'" in named
    assert "id=loop" in named

    # another worker, which knows only the other workflow, goes on with it, and ticks
    stage.work(waits)
    await stage.troth.resolve("other~answer", "x")
    assert await stage.troth.handle("other").result(60) == "done"
    task = (await stage.reaches("loop", "ready")).task
    assert task is not None
    assert (task.attempts, task.lane[-1]) == (1, "!"), "it comes back alone"
    assert "stays blocked" in first.said()
    assert first.process.poll() is None, "its process is still at it"

    db.execute("update task set attempts = 4 where id = 'loop'")  # as if so many more had met it
    last = looping("last")
    reason = await stage.reason("loop")
    assert reason["code"] == "attempts"
    assert "last" in reason["message"]
    assert "stays blocked" in last.said()
