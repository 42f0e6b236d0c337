"""`docs/changing-code.md`, `docs/workers.md`, `docs/errors.md` and both READMEs: what they show, happens."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest

import troth
from tests.docs.pages import HOME, Played
from troth import Troth, Worker
from troth.testing import Environment

Play = Callable[[str], Played]
PATIENCE_S = 60.0


@asynccontextmanager
async def deployed(client: Troth, *workflows: Any) -> AsyncIterator[None]:
    """A worker that has just these, until the next deployment."""
    worker = Worker(client, workflows, poll=timedelta(milliseconds=50))
    working = asyncio.create_task(worker.run())
    yield
    worker.stop()
    await working


async def reaches(client: Troth, state: str, *ids: str) -> None:
    """Wait until these workflows are in a state, of their tasks or at their end."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    for id in ids:
        found = await client.get(id)
        while state not in (found.state, found.task and found.task.state):
            assert asyncio.get_running_loop().time() < deadline, f"{id} is not {state}: {found}"
            await asyncio.sleep(0.02)
            found = await client.get(id)


@pytest.mark.troth(replays=False)  # each of them ran with other code
async def test_the_page_on_changing_code(
    troth_env: Environment, play: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    page = play("changing-code.md")
    client = troth_env.client
    naive, patched = page.files["sell_naive"].sell, page.files["sell_patched"].sell

    async with deployed(client, page.sell, page.deliver_1):
        for n in (1, 2, 3):
            await client.start(f"sell-{n}", page.sell, "hat")
        await client.start("post", page.deliver_1, "letter")
        await reaches(client, "suspended", "sell-1", "sell-2", "sell-3", "post")
        await client.start("sold-1", page.sell, "hat")
        await reaches(client, "suspended", "sold-1")
        await client.resolve("sold-1~approval", True)
        await reaches(client, "resolved", "sold-1")

    await client.resolve("sell-2~approval", True)
    async with deployed(client, naive):
        await reaches(client, "halted", "sell-2")
        await client.start("sold-2", naive, "hat")
        await reaches(client, "suspended", "sold-2")
        await client.resolve("sold-2~approval", True)
        await reaches(client, "resolved", "sold-2")

    async with deployed(client, patched, page.deliver_2):
        await page.block("promise.task.reason")(client)
        assert "nondeterminism" in capsys.readouterr().out
        await client.resolve("sell-1~approval", True)
        await client.resolve("sell-3~approval", False)
        await client.resolve("post~picked", True)
        await reaches(client, "resolved", "sell-1", "sell-2", "sell-3")
        await client.start("sell-4", "sell", "cap")
        await client.start("parcel", "deliver", "parcel")
        await reaches(client, "resolved", "parcel")
        await reaches(client, "suspended", "sell-4")
        await client.resolve("sell-4~approval", True)
        await reaches(client, "resolved", "sell-4")
        await page.block(".fork(")(client)
        assert "paid for hat" in capsys.readouterr().out
    results = [await client.handle(id, str).result() for id in ("sell-1", "sell-2", "sell-3", "parcel")]
    assert results == ["paid for hat", "paid for hat", "refused", "parcel by drone"]
    paths = [entry.operation for entry in await client.journal("sell-4")]
    assert paths == ["check-for-fraud:patch", "check", "reserve", "approval", "charge"]
    assert (await client.get("post")).pending, "no worker has deliver@1"

    await page.block("import_journal")(client)
    task = (await client.get("copy-of-sell-1")).task
    assert task is not None
    assert task.reason is not None
    assert (task.state, task.reason.code) == ("halted", "imported")

    troth_env.worker([patched, page.every_day, page.deliver_1, page.deliver_2])
    assert await troth_env.run(page.every_day, 2) == ["paid for subscription"] * 2
    assert await client.handle("post", str).result() == "letter by post"
    assert page.never_ran == []


async def test_the_page_on_workers(troth_env: Environment, play: Play) -> None:
    page = play("workers.md")
    assert await troth_env.run(page.job, 4) == 8
    await troth_env.start("night", page.night_job, 3)
    assert (await troth_env.client.get("night")).queue == "night"
    await troth_env.run_until_idle()
    with psycopg.connect(troth_env.dsn) as db:
        for statement in page.sql("troth.tasks"):
            assert db.execute(statement).fetchall() == []
    vars(page.files["docs_workers"])["Troth"] = lambda: Troth(troth_env.dsn)
    await page.guarded()
    assert page.never_ran == []


async def test_the_page_on_errors(
    troth_env: Environment, play: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    page = play("errors.md")
    client = troth_env.client
    assert await troth_env.run(page.order, "unicorn") == "no unicorn left"
    assert await troth_env.run(page.order, "hat") == "hat"
    async with deployed(client, page.strict_order):
        await page.block("except PromiseRejected")(client)
        assert "OutOfStock unicorn None" in capsys.readouterr().out
    assert page.never_ran == []


def test_the_page_on_errors_has_them_all() -> None:
    text = (HOME / "docs" / "errors.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([\w]*) ?\| (\d+) \|", text, re.MULTILINE)
    public = [getattr(troth, name) for name in troth.__all__]
    errors = [each for each in public if isinstance(each, type) and issubclass(each, troth.TrothError)]
    assert sorted(rows) == sorted((each.__name__, each.sqlstate or "", str(each.status)) for each in errors)


async def test_the_first_minute(troth_env: Environment, play: Play) -> None:
    page = play("README.md")
    assert await troth_env.run(page.hello, "Ann") == "HELLO, ANN!"
    assert await troth_env.run(page.add, [1, 2]) == 3
    assert page.never_ran == []
