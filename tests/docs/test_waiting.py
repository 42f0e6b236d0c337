"""`docs/promises.md`, `docs/children.md`, `docs/cancellation.md`: what they show, happens."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest

from tests.docs.pages import Played
from troth import Handle, PromiseCanceled
from troth.testing import Environment

Play = Callable[[str], Played]


async def test_the_page_on_promises(
    troth_env: Environment, play: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    page = play("promises.md")
    client = troth_env.client
    orders = {f"order-{n}": await troth_env.start(f"order-{n}", page.approve, f"{n}") for n in (42, 43)}
    decisions = [await troth_env.start(f"order-{n}", page.decide) for n in (44, 45, 46, 47, 48)]
    defaults = await troth_env.start("order-49", page.with_a_default)
    reminded = [await troth_env.start(f"order-{n}", page.remind_once) for n in (50, 51)]
    shown = (await troth_env.run_until_idle())["order-44"]
    assert shown.promises == ["order-44~decision"]

    with psycopg.connect(troth_env.dsn, autocommit=True) as db:
        answers = [db.execute(each).fetchone() for each in page.sql("order-43~approval")]
    assert [answer[0]["answer"] for answer in answers if answer] == ["settled", "settled"]
    assert (await client.get("order-43~approval")).settler == "ann"
    await client.resolve("order-42~approval", False)
    await client.resolve("order-50~approval", True)
    capsys.readouterr()
    await page.block("settlement =")(client)
    assert capsys.readouterr().out == "settled\n"

    await troth_env.advance(timedelta(hours=1))
    await client.resolve("order-51~approval", True)
    await troth_env.advance(timedelta(days=7))
    assert await troth_env.result(orders["order-42"]) == "42: refused"
    assert await troth_env.result(orders["order-43"]) == "43: approved"
    assert [await troth_env.result(each) for each in decisions] == [
        "rejected: too dear",
        "yes, says ann",
        "rejected: too dear",
        "called off: no longer needed",
        "nobody answered in a week",
    ]
    assert await troth_env.result(defaults) is False
    assert [await troth_env.result(each) for each in reminded] == [True, True]
    assert troth_env.steps.times(page.ask, "order-51") == 1

    await client.create_promise(bool, "order-52~approval")
    await client.resolve("order-52~approval", True)
    early = await troth_env.start("order-52", page.approve, "52")
    await troth_env.run_until_idle()
    assert await troth_env.result(early) == "52: approved"

    await page.block("create_promise")(client)
    assert await troth_env.run(page.when_open, "o") == "o: open"
    assert page.never_ran == []


async def test_the_page_on_children(troth_env: Environment, play: Play) -> None:
    page = play("children.md")
    run = troth_env.run
    names = (
        "count_all count_page strict careful send_invoice sell sell_and_wait refresh slow does_not_wait waits "
        "loses_patience in_tens"
    )
    troth_env.worker([getattr(page, name) for name in names.split()])
    assert await run(page.count_all, 4) == 60
    assert await run(page.careful, 7) == "page 7"
    assert await run(page.careful, 101) == "no page 101"

    invoice = await run(page.sell, "o")
    assert (await troth_env.client.get(invoice)).pending
    await troth_env.advance(60)
    assert await troth_env.client.handle(invoice, str).result(0) == "invoice for o"
    assert await run(page.sell_and_wait, "p") == "invoice for p"

    assert [await run(page.refresh, 3), await run(page.refresh, 3)] == [30, 30]
    assert troth_env.steps.times(page.count, "page-3") == 1

    left = await troth_env.start("left", page.does_not_wait)
    await troth_env.advance(timedelta(seconds=1))
    assert await troth_env.result(left) == "left"
    assert (await troth_env.client.get("left~slow")).state == "canceled"
    assert await run(page.waits) == "waited"
    passed_on = await troth_env.start("passed-on", page.waits)
    await troth_env.advance(timedelta(seconds=1))
    await troth_env.client.cancel("passed-on")
    await troth_env.advance(timedelta(seconds=1))
    assert await troth_env.result(passed_on) == "waited"
    assert (await troth_env.client.get("passed-on~slow")).state == "canceled"
    impatient = await troth_env.start("impatient", page.loses_patience)
    await troth_env.advance(timedelta(minutes=2))
    assert await troth_env.result(impatient) == "too slow"
    assert await run(page.in_tens, 25) == sum(range(25)) * 10
    assert page.never_ran == []


async def test_the_page_on_cancellation(troth_env: Environment, play: Play) -> None:
    page = play("cancellation.md")
    client, start = troth_env.client, troth_env.start
    trip, polite, careful = (
        await start("trip-1", page.trip),
        await start("polite", page.polite),
        await start("careful", page.careful_trip),
    )
    whole, hopeless = await start("whole", page.whole_trip), await start("trip-9", page.trip)
    happy = [await start("h1", page.trip), await start("h2", page.polite), await start("h3", page.whole_trip)]
    await troth_env.run_until_idle()
    for each in (trip, polite, careful, whole):
        assert (await client.cancel(each.id, "fell ill")).answer == "requested"
    await client.resolve("h1~flight", "LH1")
    await client.resolve("h2~word", "bye")
    await client.resolve("h3~all-well", True)
    await page.block("force=True")(client)
    await troth_env.run_until_idle()

    assert await troth_env.result(polite) == "I was about to leave anyway"
    assert [await troth_env.result(each) for each in happy] == ["hotel and LH1", "bye", "travelling"]
    assert [call.args[0] for call in troth_env.steps.of(page.undo, "trip-1")] == ["hotel"]
    assert [call.args[0] for call in troth_env.steps.of(page.undo, "whole")] == ["car", "flight", "hotel"]
    assert troth_env.steps.times(page.undo, "trip-9") == 0
    for each in (trip, whole, hopeless):
        await ended_canceled(troth_env, each)

    assert (await client.cancel("careful", "hurry")).answer == "requested"
    await troth_env.run_until_idle()
    assert (await careful.status()).pending
    await client.resolve("careful~key-returned", True)
    await troth_env.run_until_idle()
    await ended_canceled(troth_env, careful)
    assert troth_env.steps.times(page.undo, "careful") == 1

    hasty = await start("hasty", page.hasty_trip)
    await troth_env.advance(timedelta(minutes=3))
    await client.resolve("hasty~1~key-returned", True)
    await troth_env.run_until_idle()
    assert await troth_env.result(hasty) == "stayed at home"
    assert (await client.cancel("h1")).answer == "conflict"
    assert (await client.cancel("trip-1")).answer == "already"
    assert page.never_ran == []


async def ended_canceled(troth_env: Environment, handle: Handle[str]) -> None:
    with pytest.raises(PromiseCanceled):
        await troth_env.result(handle)
