"""The pairs whose every order is tried: those in which engines of this kind have lost, doubled or wedged something."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tests.proof.races import ground as grounds
from tests.proof.races.calls import VERBS, Do
from tests.proof.races.ground import Ground, Names, pass_time
from tests.proof.races.schedules import Pair
from tests.support.sql import Sql, Worker, call, promise, step, turn, wait


def _outside(sql: Sql, names: Names) -> Ground:
    """`w` is held, and there is a promise that it does not wait for yet."""
    ground = grounds.held(sql, names)
    sql.create_promise(f"{names.w}~o")
    return ground


def _awaiter(sql: Sql, names: Names) -> Ground:
    """`w` is held, and so is `y`, which does not wait for it yet."""
    ground = grounds.held(sql, names)
    sql.start(f"y{names.w}", "f", queue=f"y-{names.w}")
    assert len(Worker(sql, names.holder).claim(1, [f"y-{names.w}"], lease=grounds.LEASE)) == 1
    return ground


def _child_held(sql: Sql, names: Names) -> Ground:
    """`w` has ended, its child is under way."""
    ground = grounds.held(sql, names)
    assert len(Worker(sql, names.newcomer).claim(5, [names.queue], lease=grounds.LEASE)) == 1
    assert Worker(sql, names.holder).finish(names.w, 1, 0) == "ok"
    return ground


def _said(task: str, then: str | None, worker: str | None = None, **given: Any) -> Any:
    return lambda sql, ground: str(
        Worker(sql, worker or ground.names.holder).advance(turn(task, 1, 0, then), **given)[task]["answer"]
    )


def _come(task: str, on: str) -> Do:
    """Wait for a promise and suspend, in one turn."""

    def do(sql: Sql, ground: Ground) -> str:
        name, awaited = task.format(w=ground.names.w), on.format(w=ground.names.w)
        rows = Worker(sql).advance(turn(name, 1, 0, "suspend"), operations=[wait(name, "it", awaited)])
        return str(rows[name]["answer"]) + ("+entries" if rows[name]["entries"] else "")

    return do


def _subscribe(sql: Sql, ground: Ground) -> str:
    return _come("{w}", "{w}~o")(sql, ground)


def _child(sql: Sql, ground: Ground) -> str:
    w = ground.names.w
    rows = Worker(sql).advance(
        turn(w, 1, 0),
        operations=[call(w, "c2", queue=ground.names.queue), promise(w, "p2")],
    )
    return str(rows[w]["answer"])


def _finish_child(sql: Sql, ground: Ground) -> str:
    return Worker(sql).finish(ground.names.c, 1, 0)


def _late(sql: Sql, ground: Ground) -> str:
    """The time of what is due in an hour comes, and somebody looks."""
    pass_time(sql)
    sql.tick(1000)
    return "done"


def _both(sql: Sql, ground: Ground, order: int) -> str:
    names = [ground.names.p, ground.names.c, f"{ground.names.x}"][::order]
    rows = sql.settle_many([{"id": each, "verb": "cancel", "reason": str(order)} for each in names])
    return "+".join(str(each["answer"]) for each in rows[::order])


def _forwards(sql: Sql, ground: Ground) -> str:
    return _both(sql, ground, 1)


def _backwards(sql: Sql, ground: Ground) -> str:
    return _both(sql, ground, -1)


def _take_over(sql: Sql, ground: Ground) -> str:
    """The holder goes, another one claims what it held and records what its own step brought."""
    sql.leave(ground.names.holder)
    worker, w = Worker(sql, ground.names.newcomer), ground.names.w
    if not any(each["task"] == w for each in worker.claim(5, [ground.names.queue], lease=grounds.LEASE)):
        return "held"
    return str(worker.advance(turn(w, 2, 0), outcomes=[step(w, "s9")])[w]["answer"])


def _purge_and_start(sql: Sql, ground: Ground) -> str:
    sql.purge(timedelta(0))
    answer = str(sql.start(ground.names.w, "f", queue=ground.names.queue)["answer"])
    return "held" if answer == "attached" else answer


def _beneath(sql: Sql, ground: Ground) -> str:
    """A promise is made beforehand, below a workflow that has ended (and may run again once it is purged)."""
    return str(sql.create_promise(f"{ground.names.w}~q")["answer"])


def _start_both(sql: Sql, ground: Ground) -> str:
    """What has ended, and what is new and stands behind it in the order of all."""
    items = [
        {"id": each, "function": "f", "queue": ground.names.queue}
        for each in (ground.names.w, f"{ground.names.w}z")
    ]
    return "+".join(str(each["answer"]) for each in sql.start_many(items))


def _purge_and_start_both(sql: Sql, ground: Ground) -> str:
    sql.purge(timedelta(0))
    return _start_both(sql, ground)


def _settle_outside(sql: Sql, ground: Ground) -> str:
    return str(sql.resolve(f"{ground.names.w}~o", 1)["answer"])


def _appear(sql: Sql, ground: Ground) -> str:
    """A promise is made beforehand under the name of an operation, and settled at once."""
    name = f"{ground.names.w}~o"
    return f"{sql.create_promise(name)['answer']}+{sql.resolve(name, 1)['answer']}"


def _make_and_wait(sql: Sql, ground: Ground) -> str:
    w = ground.names.w
    rows = Worker(sql).advance(turn(w, 1, 0, "suspend"), operations=[promise(w, "o")])
    return str(rows[w]["answer"]) + ("+entries" if rows[w]["entries"] else "")


def _settle_by_an_old_snapshot(sql: Sql, ground: Ground) -> str:
    """A settle whose transaction has looked at the world before."""
    with sql.connection.transaction():
        sql.query("set transaction isolation level repeatable read")
        sql.query("select count(*) from wait")
        sql.query("select _pause('looked')")
        return _settle_outside(sql, ground)


def _later_turn(sql: Sql, ground: Ground) -> str:
    """Ten minutes pass, and the holder records what a step brought."""
    pass_time(sql, timedelta(minutes=10))
    w = ground.names.w
    return str(Worker(sql, ground.names.holder).advance(turn(w, 1, 0), outcomes=[step(w, "s")])[w]["answer"])


def _verb(name: str) -> Do:
    return VERBS[name].do


PURGE = _verb("purge")
TICK_DEAD = _verb("tick: dead workers")

PAIRS = {
    pair.name: pair
    for pair in (
        Pair("settle x subscribe and suspend", _outside, _settle_outside, _subscribe, waitless=(1,)),
        Pair(
            "promise that appears x subscribe and suspend",
            grounds.held,
            _appear,
            _make_and_wait,
            behind=("", "_judge("),
        ),
        Pair("settle x suspend", grounds.held, _verb("resolve"), _verb("suspend"), waitless=(1,)),
        Pair(
            "old snapshot x subscribe and suspend",
            _outside,
            _settle_by_an_old_snapshot,
            _subscribe,
            waitless=(1,),
        ),
        Pair("settle x later turn", grounds.held, _verb("resolve"), _later_turn, waitless=(1,)),
        Pair("claim x settle", grounds.ready, _verb("claim"), _verb("resolve"), waitless=(0,), early=(0,)),
        Pair("claim x dead worker", grounds.orphaned, _verb("claim"), TICK_DEAD, waitless=(0, 1)),
        Pair("suspend x dead worker", grounds.orphaned, _verb("suspend"), TICK_DEAD, waitless=(0, 1)),
        Pair("finish x dead worker", grounds.orphaned, _verb("finish"), TICK_DEAD, waitless=(0, 1)),
        Pair(
            "heartbeat x dead worker",
            grounds.orphaned,
            _verb("heartbeat"),
            TICK_DEAD,
            waitless=(0, 1),
            mixed=frozenset({("nothing", "done"), ("lost", "done")}),
        ),
        Pair("timeout x settle", grounds.waiting, _late, _verb("resolve"), waitless=(0,)),
        Pair("cancel x finish", grounds.held, _verb("cancel"), _verb("finish"), waitless=(1,)),
        Pair("child x cancel by force", grounds.held, _child, _verb("cancel_force"), waitless=(0,)),
        Pair("child x cancel", grounds.held, _child, _verb("cancel"), waitless=(0,)),
        Pair(
            "closing x end of a child", _child_held, _verb("tick: closings"), _finish_child, waitless=(0, 1)
        ),
        Pair(
            "purge x a promise beneath",
            grounds.ended,
            PURGE,
            _beneath,
            last=PURGE,
            behind=("_look_over(v_families, v_before, v_held)", ""),
        ),
        Pair("purge x start", grounds.ended, PURGE, _verb("start"), last=PURGE),
        Pair("purge x purge and start", grounds.ended, PURGE, _purge_and_start, last=PURGE, early=(0,)),
        Pair(
            "starts x purge and the same starts",
            grounds.ended,
            _start_both,
            _purge_and_start_both,
            last=PURGE,
            # each call comes behind the other's first half
            mixed=frozenset({("created+created", "attached+attached")}),
        ),
        Pair("purge x fork", grounds.ended, PURGE, _verb("fork"), last=PURGE, early=(1,)),
        Pair("batch x batch", grounds.suspended, _forwards, _backwards),
        Pair("end x awaiter", _awaiter, _verb("finish"), _come("y{w}", "{w}"), waitless=(0, 1)),
        Pair("call x the same call again", grounds.held, _verb("create"), _verb("create"), waitless=(0, 1)),
        Pair("late step x another holder", grounds.held, _verb("commit_step"), _take_over, waitless=(0, 1)),
        Pair("suspend x halt", grounds.held, _verb("suspend"), _verb("halt"), waitless=(0,)),
    )
}
