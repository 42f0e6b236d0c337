"""Workers that die at an instruction: nothing is lost, nothing is done twice that was recorded, and another goes on."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.engine.running import Stage, WorkerProcess, until

Spawn = Callable[..., WorkerProcess]
Effects = Callable[[], list[str]]

EMAIL = ["email order-1~approval"]
# the call at which the worker dies, whether that is after the decision, and how often the e-mail goes out
POINTS = {
    "s09_before_the_step_runs": ("after:claim:1", False, 1),
    "s10_after_its_effect_before_its_checkpoint": ('before:advance:1:"kind":"step"', False, 2),
    "s11_after_its_checkpoint_before_the_suspension": ('split:advance:1:"kind":"step"', False, 1),
    "s12_after_the_promise_is_created": ('after:advance:1:"kind":"promise"', False, 1),
    "s13_once_it_is_suspended": ('after:advance:1:"then":"suspend"', False, 1),
    "s14_between_decision_and_wake": ("after:claim:2", True, 1),
    "s15_before_the_end_is_written": ('before:advance:1:"then":"finish"', True, 1),
    "s15_after_the_end_is_written": ('after:advance:1:"then":"finish"', True, 1),
}


@pytest.mark.parametrize("point", POINTS)
async def test_s09_to_s15_a_worker_dies_at(stage: Stage, spawn: Spawn, effects: Effects, point: str) -> None:
    kill_at, decided, emails = POINTS[point]
    handle = await stage.troth.start("order-1", "approve_order", order="o")
    first = spawn(kill_at=kill_at)
    if decided:
        await stage.reaches("order-1", "suspended")
        assert (await stage.troth.resolve("order-1~approval", True)).answer == "settled"
        assert await first.death() == -signal.SIGKILL
        spawn()
    else:
        assert await first.death() == -signal.SIGKILL
        before = await stage.troth.get("order-1")
        spawn()
        await until(lambda: len(effects()) >= emails)
        await stage.reaches("order-1", "suspended")
        assert (await stage.troth.resolve("order-1~approval", True)).answer == "settled"
        assert before.id == "order-1"
    assert await handle.result(60) == "o: approved"
    assert effects() == EMAIL * emails
    journal = await stage.troth.journal("order-1")
    assert [(each.seq, each.operation) for each in journal] == [(1, "send_email"), (2, "approval")]
    assert {each.id for each in await stage.troth.tree("order-1")} == {"order-1", "order-1~approval"}
