"""`docs/workflows.md`, `docs/steps.md`: what they show, happens."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest

from tests.docs.pages import Played
from troth import PromiseRejected, step
from troth.testing import Environment

Play = Callable[[str], Played]


@pytest.mark.troth(guard=False)  # in_a_thread is there to be refused
async def test_the_page_on_workflows(troth_env: Environment, play: Play) -> None:
    page = play("workflows.md")
    run = troth_env.run
    assert await run(page.remind, "milk", 10.0) == "Remember: milk"

    assert await run(page.all_prices, ["a", "bb"]) == [1, 2]
    assert await run(page.two_things) == "onetwo"
    assert {call.operation for call in troth_env.steps.of(page.say)} >= {"1~say", "second~say:2"}
    assert await run(page.first_price) == 2
    assert await run(page.patient) == "no answer in a minute"
    assert await run(page.at_most_two_at_once, ["a", "bb", "ccc"]) == 6

    with pytest.raises(PromiseRejected, match="A thread has no place in a workflow") as refused:
        await run(page.in_a_thread)
    assert refused.value.type == "troth.errors.WorkflowMisuse"
    assert await run(page.in_a_step) == "what stands in the file"

    assert await run(page.trial) == "30 days"
    assert (await run(page.draw, ["Ann"])).startswith("Ann (")
    assert await run(page.with_options, "abc") == 6
    assert await run(page.by_name, {"lidl", "aldi"}) == 8
    assert {"lidl~price", "aldi~price", "price-again"} <= {
        call.operation for call in troth_env.steps.of(page.price)
    }
    assert page.never_ran == []


async def test_the_page_on_steps(troth_env: Environment, play: Play) -> None:
    page = play("steps.md")
    run = troth_env.run
    assert await run(page.fulfil, "order-42") == "order-42: 3 on their way"
    assert await run(page.named, "o") == ["o: 3 on their way", "o: 4 on their way"]
    paths = {call.operation for call in troth_env.steps}
    assert {"reserve-stock", "ship-three", "ship"} <= paths

    begun = troth_env.clock.now()
    assert await run(page.pay, "o") == "paid"
    assert timedelta(seconds=3.5) < troth_env.clock.now() - begun < timedelta(seconds=30)
    page.answers.append("timeout")
    assert await run(page.pay_at_once, "o") == "try another bank"
    assert page.answers == []

    assert await run(page.impatient, "o") == 0
    assert await run(page.delivery, "order-45") == 4
    assert [each.rpartition(" ")[2] for each in page.delivered] == ["0", "1", "2", "3"]
    assert page.delivered[0].endswith("~deliver 0")

    page.answers.append("declined")
    assert await run(page.carefully, "o-1") == "declined: o-1"
    assert await run(page.listening) == "complain: about the weather"
    troth_env.replace(page.complain, all_well)
    assert await run(page.listening) == "all is well"

    worker = troth_env.worker([page.greetings])
    assert await run(page.greetings) == 2
    await worker.stop()  # closes what was provided
    with psycopg.connect(troth_env.dsn, autocommit=True) as db:
        db.execute("create table bookings (id text, amount int)")
        assert await run(page.booking, "order-7") == 3
        assert db.execute("select * from bookings").fetchall() == [("order-7", 3)]

    page.answers.append("timeout")
    order = await troth_env.start("order-46", page.pay, "order-46")
    await troth_env.run_until_idle()
    await page.block("settle_step")(troth_env.client)
    await troth_env.run_until_idle()
    assert await troth_env.result(order) == "in cash"
    assert page.never_ran == []


@step
async def all_well() -> None: ...
