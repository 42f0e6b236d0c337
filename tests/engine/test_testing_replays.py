"""`check_replays` and the guard find workflows that do not do the same every time, and pass those that do."""

from __future__ import annotations

import random
import re
from collections import Counter
from typing import Any

import pytest

from tests.engine.testing_programs import careless
from tests.engine.testing_programs.orders import approve, race, remind, with_two_branches
from troth import Context, Workflow, workflow
from troth.core.names import Scope
from troth.testing import Environment, GuardFound, ReplayDiffers
from troth.testing.replays import PREFIXES_MAX, prefixes_of

unchecked = pytest.mark.troth(replays=False, guard=False)


@pytest.fixture(autouse=True)
def afresh() -> None:
    careless.CALLS = 0
    careless.SEEN.clear()
    careless.RATES["eur"] = 1.0


async def test_good_workflows_pass(troth_env: Environment) -> None:
    await troth_env.run(remind, 3)
    await troth_env.run(race)
    await troth_env.run(with_two_branches, "order")
    waiting = await troth_env.start("waiting", approve, "order")
    await troth_env.run_until_idle()
    seen = await troth_env.check_replays(hash_seed=1)
    entries = [
        len(await troth_env.client.journal(id))
        for id in ("remind-1", "race-2", "with_two_branches-3", waiting.id)
    ]
    # every prefix, the whole once more to compare them with, and the process with the other seed
    assert seen.runs == sum(each + 1 + 1 + 1 for each in entries)
    assert (seen.workflows, seen.left_out) == (4, {})


async def test_every_prefix_is_taken_of_a_short_journal() -> None:
    assert prefixes_of(0) == [0]
    assert prefixes_of(5) == [0, 1, 2, 3, 4, 5]
    long = prefixes_of(10_000)
    assert len(long) <= PREFIXES_MAX + 1
    assert long[:50] == list(range(50))
    assert long[-1] == 10_000
    assert long == sorted(set(long))


@unchecked
@pytest.mark.parametrize(
    ("careless_one", "args", "message"),
    [
        (careless.by_counter, (), r"(?s)does not do what its journal says.*operation  ship.*arguments"),
        (careless.by_chance, (), r"(?s)does not do what its journal says.*operation  ship"),
        (careless.by_memory, ("eur",), r"(?s)does not do what its journal says.*operation  look_up"),
        (careless.by_shared_state, (), r"(?s)ends otherwise than it did.*returned 2\.0.*returned 3\.0"),
        (careless.by_uuid, (), "ends otherwise than it did"),
    ],
)
async def test_what_differs_from_the_journal_is_found(
    troth_env: Environment, careless_one: Workflow[..., Any], args: tuple[str, ...], message: str
) -> None:
    await troth_env.run(careless_one, *args)
    with pytest.raises(ReplayDiffers, match=message):
        await troth_env.check_replays()


@unchecked
async def test_a_difference_before_the_journal_knows_is_found(troth_env: Environment) -> None:
    """Nothing of it is recorded yet: only running it twice tells."""

    @workflow
    async def undecided(ctx: Context) -> None:
        await ctx.promise(bool, "go")
        await ctx.run(careless.ship, f"parcel {random.random()}")

    async def refuse(what: str) -> None:
        raise SystemExit

    troth_env.replace(careless.ship, refuse)
    await troth_env.start("undecided", undecided)
    await troth_env.run_until_idle()
    await troth_env.client.resolve("undecided~go", True)
    # the step ends its process each time, so the task is parked and the step has no outcome
    idle = await troth_env.run_until_idle()
    assert idle["undecided"].state == "halted"
    with pytest.raises(ReplayDiffers) as caught:
        await troth_env.check_replays()
    told = str(caught.value)
    assert "undecided (undecided) does not do the same every time" in told
    assert "after event 1 of 1 (promise go resolved)" in told
    assert "the first run asked for  step ship('parcel 0." in told
    assert "a second run   asked for  step ship('parcel 0." in told
    assert "test_testing_replays.py:" in told


@unchecked
@pytest.mark.parametrize(
    ("careless_one", "called"),
    [
        (careless.by_the_clock, "time.time"),
        (careless.by_todays_date, "datetime.now"),
        (careless.by_chance, "random.randrange"),
        (careless.by_uuid, "uuid.uuid4"),
        (careless.by_environment, "os.environ"),
    ],
)
async def test_the_guard_names_the_line(
    troth_env: Environment, careless_one: Workflow[..., Any], called: str
) -> None:
    await troth_env.run(careless_one)
    with pytest.raises(
        GuardFound, match=rf"careless\.py:\d+: workflow code called {called}, which"
    ) as caught:
        troth_env.check_guard()
    assert "Use " in str(caught.value)


@unchecked
async def test_sets_of_strings_are_found_in_another_process(troth_env: Environment) -> None:
    await troth_env.run(careless.by_set_order)
    await troth_env.check_replays()  # this process has one order for ever
    found: list[str] = []
    for seed in (1, 2):  # one of them might be the order of this process
        try:
            await troth_env.check_replays(hash_seed=seed)
        except ReplayDiffers as error:
            found.append(str(error))
    assert found
    for text in found:
        assert re.search(r"(?s)by_set_order-1 .*under PYTHONHASHSEED=\d.*ship", text)


async def test_what_cannot_be_imported_is_left_out_and_said(troth_env: Environment) -> None:
    @workflow
    async def local(ctx: Context) -> None:
        await ctx.run(careless.ship, "parcel")

    await troth_env.run(local)
    seen = await troth_env.check_replays(hash_seed=1)
    assert "cannot be imported by another process" in seen.left_out["local-1"]


async def test_unknown_workflows_are_left_out_and_said(troth_env: Environment) -> None:
    await troth_env.run(remind, 1)
    troth_env._hands[0].registry = type(troth_env._hands[0].registry)([approve])
    seen = await troth_env.check_replays()
    assert seen.left_out == {"remind-1": "no worker of this test knows remind@1"}


@unchecked
async def test_a_counter_shared_by_runs_in_the_engine_itself_is_found(
    troth_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine broken on purpose: names are counted by the process, not by where an operation stands."""
    counted: Counter[str] = Counter()

    def path(self: Scope, name: str) -> str:
        counted[name] += 1
        return f"{self.prefix}{name}:{counted[name]}"

    monkeypatch.setattr(Scope, "path", path)
    await troth_env.run(with_two_branches, "order")
    with pytest.raises(ReplayDiffers, match="does not do what its journal says"):
        await troth_env.check_replays()
