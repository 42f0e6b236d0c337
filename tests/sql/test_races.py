"""Races with real connections and threads: each pair of moves that meet in practice, many rounds, and what must be true after.

Every round is begun by a barrier, so that the two meet; the invariants are looked at behind each test as ever.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import psycopg
import pytest

from tests.support.sql import Row, Sql, Worker, call, promise, step, turn, until_blocked, wait
from troth.testing.clock import Clock

ROUNDS = 100


def meet(rounds: int, *sides: Callable[[int], Any]) -> list[tuple[Any, ...]]:
    """Run the sides side by side, round by round; what each answered."""
    barrier = Barrier(len(sides))

    def run(side: Callable[[int], Any]) -> list[Any]:
        answers = []
        for n in range(rounds):
            barrier.wait(timeout=60)
            answers.append(side(n))
        return answers

    with ThreadPoolExecutor(len(sides)) as pool:
        return list(zip(*pool.map(run, sides), strict=True))


@pytest.fixture
def held(sql: Sql, worker: Worker) -> list[str]:
    """Names of workflows that w1 holds, epoch 1, each with its promise made."""
    names = [f"w{n:03}" for n in range(ROUNDS)]
    sql.start_many([{"id": each, "function": "f"} for each in names])
    worker.claim(ROUNDS)
    worker.advance(*(turn(each, 1, 0) for each in names), operations=[promise(each, "p") for each in names])
    return names


def sent_again(call: Callable[[], Row]) -> Row:
    """What a worker does with `busy`."""
    until = time.monotonic() + 60
    while (answer := call())["answer"] == "busy":
        assert time.monotonic() < until
    return answer


def test_settle_and_suspend(sql: Sql, held: list[str], another: Callable[..., Sql]) -> None:
    """The lost wake-up: after both, the task is ready or its holder knows."""
    settler, holder = another(), Worker(another())

    def suspend(n: int) -> str:
        answer: str = sent_again(lambda: holder.advance(turn(held[n], 1, 0, "suspend"))[held[n]])["answer"]
        return answer

    outcomes = meet(ROUNDS, lambda n: settler.resolve(f"{held[n]}~p", n)["answer"], suspend)
    assert {first for first, _ in outcomes} == {"settled"}
    after = Counter(
        (answer, row["state"])
        for (_, answer), row in zip(outcomes, sql.query("select state from task order by id"), strict=True)
    )
    assert set(after) <= {("ok", "ready"), ("news", "claimed")}
    assert {len(sql.events(each)) for each in held} == {1}


def test_settle_and_subscribe(sql: Sql, worker: Worker, another: Callable[..., Sql]) -> None:
    """A promise made beforehand is settled while a workflow comes to wait for it."""
    names = [f"w{n:03}" for n in range(ROUNDS)]
    sql.start_many([{"id": each, "function": "f"} for each in names])
    worker.claim(ROUNDS)
    for each in names:
        sql.create_promise(f"{each}~p")
    settler, holder = another(), Worker(another())

    def subscribe(n: int) -> Row:
        return sent_again(
            lambda: holder.advance(turn(names[n], 1, 0, "suspend"), operations=[promise(names[n], "p")])[
                names[n]
            ]
        )

    outcomes = meet(ROUNDS, lambda n: settler.resolve(f"{names[n]}~p", n)["answer"], subscribe)
    assert {first for first, _ in outcomes} == {"settled"}
    for (_, answer), row in zip(outcomes, sql.query("select state from task order by id"), strict=True):
        assert (row["state"], bool(answer["entries"])) in {("ready", False), ("claimed", True)}
    assert {tuple(sql.events(each)) for each in names} == {((1, "p", "resolved"),)}


def test_claim_and_claim(sql: Sql, another: Callable[..., Sql]) -> None:
    sql.start_many([{"id": f"w{n:03}", "function": "f", "priority": n % 3} for n in range(400)])
    workers = [Worker(another(), f"c{n}") for n in range(4)]
    outcomes = meet(
        50, *(lambda _, worker=worker: [row["task"] for row in worker.claim(3)] for worker in workers)
    )
    claimed = [task for each in outcomes for part in each for task in part]
    assert len(claimed) == len(set(claimed)) == 400
    assert sql.query("select distinct epoch, attempts, state from task") == [
        {"epoch": 1, "attempts": 1, "state": "claimed"}
    ]
    assert all(len(part) <= 3 for each in outcomes for part in each)


def test_sweep_and_finish(sql: Sql, worker: Worker, clock: Clock, another: Callable[..., Sql]) -> None:
    names = [f"w{n:03}" for n in range(50)]
    sql.start_many([{"id": each, "function": "f"} for each in names])
    for n in range(50):
        Worker(sql, f"v{n:02}").claim(1)
    holder, sweeper = Worker(another()), another()
    epochs = {row["id"]: row["worker"] for row in sql.query("select id, worker from task")}
    clock.advance(timedelta(seconds=14))
    for name in names[1::2]:
        sql.heartbeat(epochs[name], [name], [1])
    clock.advance(timedelta(seconds=2))  # every second one is silent too long
    outcomes = meet(50, lambda n: holder.finish(names[n], 1, 0, n), lambda _: sweeper.tick()["workers"])
    for name, (answer, _) in zip(names, outcomes, strict=True):
        assert answer in {"ok", "busy", "fenced"}
        task = sql.task(name)
        if answer == "ok":
            assert (task, sql.state(name)) == (None, "resolved")
        else:
            assert task is not None
            assert task["state"] in {"ready", "claimed"}


def test_cancel_and_the_start_of_a_child(sql: Sql, held: list[str], another: Callable[..., Sql]) -> None:
    """Whoever comes second knows of the first: no child is left pending below an ended workflow."""
    canceler, holder = another(), Worker(another())
    error = {"type": "canceled", "message": "m"}

    def child(n: int) -> Row:
        return sent_again(
            lambda: holder.advance(turn(held[n], 1, 0), operations=[promise(held[n], "child")])[held[n]]
        )

    outcomes = meet(ROUNDS, lambda n: canceler.cancel(held[n])["answer"], child)
    assert {first for first, _ in outcomes} == {"requested"}
    for name, (_, answer) in zip(held, outcomes, strict=True):
        made = sql.state(f"{name}~child") is not None
        assert (answer["answer"], made) in {("ok", True), ("news", False)}
        assert (
            holder.advance(turn(name, 1, 1, "finish", state="canceled", error=error))[name]["answer"] == "ok"
        )
    while sql.tick()["closed"]:
        pass
    assert sql.query("select id from promise where state = 'pending'") == []


def test_force_and_the_start_of_a_child(sql: Sql, held: list[str], another: Callable[..., Sql]) -> None:
    """A parent that is ended from outside while it makes children: none is left that nobody will end."""
    operator, holder, ticker = another(), Worker(another()), another()

    def child(n: int) -> str:
        answer: str = sent_again(
            lambda: holder.advance(
                turn(held[n], 1, 0, "suspend"), operations=[call(held[n], f"c{m}") for m in range(3)]
            )[held[n]]
        )["answer"]
        return answer

    outcomes = meet(
        ROUNDS, lambda n: operator.cancel_force(held[n])["answer"], child, lambda _: ticker.tick(10)["closed"]
    )
    assert {first for first, _, _ in outcomes} == {"settled"}
    assert {second for _, second, _ in outcomes} <= {"ok", "fenced"}
    for name, (_, answer, _) in zip(held, outcomes, strict=True):
        assert (sql.state(f"{name}~c0") is not None) == (answer == "ok")
    while sql.tick()["closed"]:
        pass
    assert sql.query("select id from promise where state = 'pending' union all select id from closing") == []


def test_closing_and_the_ends_of_the_children(sql: Sql, worker: Worker, another: Callable[..., Sql]) -> None:
    """Children end by themselves, are given up and are closed, all at once; each has one end, and its parent is told it."""
    sql.start("w", "f")
    worker.claim()
    names = [f"w~c{n:03}" for n in range(ROUNDS)]
    worker.advance(turn("w", 1, 0), operations=[call("w", each[2:]) for each in names])
    assert len(worker.claim(ROUNDS // 2)) == ROUNDS // 2
    parent, holder, tickers = Worker(another()), Worker(another()), [another(), another()]

    seen = 0

    def give_up(n: int) -> str:
        nonlocal seen
        until = time.monotonic() + 60
        while time.monotonic() < until:
            answer = parent.advance(
                turn("w", 1, seen, close=n == ROUNDS // 2), cancels=[{"task": "w", "promise": names[n]}]
            )["w"]
            if answer["answer"] == "ok":
                return "ok"
            seen = answer["last_seq"] or seen
        raise AssertionError("busy for ever")

    def end(n: int) -> str:
        return str(
            sent_again(lambda: holder.advance(turn(names[n], 1, 0, "finish", state="resolved"))[names[n]])[
                "answer"
            ]
        )

    outcomes = meet(
        ROUNDS, give_up, end, *(lambda _, ticker=each: ticker.tick(7)["closed"] for each in tickers)
    )
    assert {first for first, *_ in outcomes} == {"ok"}
    while sql.query("select id from closing"):
        sql.tick()
    pending = sql.query("select id from promise where state = 'pending' and parent = 'w' order by id")
    for each in pending:  # those have begun, and were asked, once
        assert sql.events(each["id"]) == [(1, "~cancel", "canceled")]
        worker.advance(
            turn(each["id"], 1, 1, "finish", state="canceled", error={"type": "canceled", "message": "m"})
        )
    told = [(name, state) for _, name, state in sql.events("w")]
    assert sorted(told) == [(each[2:], str(sql.state(each))) for each in names]


def test_a_child_ends_while_its_parent_suspends(
    sql: Sql, held: list[str], another: Callable[..., Sql]
) -> None:
    worker = Worker(sql)
    worker.advance(*(turn(each, 1, 0) for each in held), operations=[call(each, "c") for each in held])
    assert len(worker.claim(ROUNDS)) == ROUNDS
    parent, child = Worker(another()), Worker(another())

    def suspend(n: int) -> str:
        return str(sent_again(lambda: parent.advance(turn(held[n], 1, 0, "suspend"))[held[n]])["answer"])

    def end(n: int) -> str:
        name = f"{held[n]}~c"
        return str(
            sent_again(lambda: child.advance(turn(name, 1, 0, "finish", state="resolved"))[name])["answer"]
        )

    outcomes = meet(ROUNDS, suspend, end)
    rows = sql.query("select state from task order by id")
    assert {(first, second, each["state"]) for (first, second), each in zip(outcomes, rows, strict=True)} <= {
        ("ok", "ok", "ready"),
        ("news", "ok", "claimed"),
    }
    assert {tuple(sql.events(each)) for each in held} == {((1, "c", "resolved"),)}


def test_two_that_call_one_child(sql: Sql, held: list[str], another: Callable[..., Sql]) -> None:
    """Two workflows call the same given ID at once: one child, two that wait."""
    sides = [Worker(another()), Worker(another())]

    def ask(side: int) -> Callable[[int], str]:
        def run(n: int) -> str:
            name = held[2 * n + side]
            until = time.monotonic() + 60
            while time.monotonic() < until:
                try:
                    answer = sides[side].advance(
                        turn(name, 1, 0, "suspend"), operations=[call(name, "c", promise=f"shared-{n}")]
                    )[name]
                except psycopg.errors.LockNotAvailable:
                    continue
                if answer["answer"] != "busy":
                    return str(answer["answer"])
            raise AssertionError("busy for ever")

        return run

    outcomes = meet(ROUNDS // 2, ask(0), ask(1))
    assert set(outcomes) == {("ok", "ok")}
    assert sql.query(
        "select count(*)::int as n, promise like 'shared-%%' as shared from wait group by promise, 2 having count(*) = 2"
    ) == [{"n": 2, "shared": True}] * (ROUNDS // 2)
    assert sql.one("select sum(children)::int from task") == ROUNDS + ROUNDS // 2


def test_s37_timeout_and_settle(sql: Sql, worker: Worker, another: Callable[..., Sql]) -> None:
    """Within a millisecond of the timeout, 200 times: one outcome each, the stored one is what the code is told."""
    names = [f"w{n:03}" for n in range(200)]
    sql.start_many([{"id": each, "function": "f"} for each in names])
    worker.claim(200)
    settler, ticker = another(), another()
    answers = []
    for batch in range(4):
        mine = names[50 * batch : 50 * (batch + 1)]
        worker.advance(
            *(turn(each, 1, 0, "suspend") for each in mine),
            operations=[promise(each, "p", timeout=60_000 + 1_000 * n) for n, each in enumerate(mine)],
        )
        due = sql.one("select min(extract(epoch from expires_at))::float8 from promise")

        def await_due(n: int, due: float = due) -> None:
            time.sleep(max(0.0, due + n / 1000 - time.time()))

        def settle(n: int, mine: Sequence[str] = mine) -> str:
            await_due(n)
            answer: str = settler.resolve(f"{mine[n]}~p", "in time")["answer"]
            return answer

        def tick(n: int) -> int:
            await_due(n)
            promises: int = ticker.tick()["promises"]
            return promises

        answers += [first for first, _ in meet(50, settle, tick)]
    sql.tick()
    assert set(answers) <= {"settled", "conflict"}
    for name, answer in zip(names, answers, strict=True):
        state = "resolved" if answer == "settled" else "timedout"
        assert (sql.state(f"{name}~p"), sql.events(name)) == (state, [(1, "p", state)])


def test_start_and_start(sql: Sql, another: Callable[..., Sql]) -> None:
    sessions = [another() for _ in range(3)]
    outcomes = meet(
        ROUNDS, *(lambda n, s=session: s.start(f"w{n}", "f", {"n": n})["answer"] for session in sessions)
    )
    assert {tuple(sorted(each)) for each in outcomes} == {("attached", "attached", "created")}
    assert sql.one("select count(*) from task") == ROUNDS


def test_start_and_purge(sql: Sql, another: Callable[..., Sql]) -> None:
    """A start meets the one before it, or finds its place free; it never attaches to what is being removed."""
    starter, remover = another(), another()
    canceler = another()

    def start(_: int) -> str:
        answer = starter.start("w", "f")
        canceler.cancel("w")
        assert answer["function"] == "f"
        return str(answer["answer"])

    outcomes = meet(300, start, lambda _: remover.purge(timedelta(0)))
    answers = Counter(first for first, _ in outcomes)
    assert set(answers) <= {"created", "attached"}
    assert answers["created"] > 1, "they did meet"


def test_advance_and_a_callers_open_transaction(
    sql: Sql, held: list[str], another: Callable[..., Sql]
) -> None:
    caller, holder = another(), Worker(another())
    with caller.connection.transaction():
        caller.settle_many([{"id": f"{each}~p", "verb": "resolve"} for each in held[::10]])
        answers = holder.advance(
            *(turn(each, 1, 0) for each in held), outcomes=[step(each, "s") for each in held]
        )
        assert Counter(each["answer"] for each in answers.values()) == {"busy": 10, "ok": 90}
        assert {task for task, answer in answers.items() if answer["answer"] == "busy"} == set(held[::10])
        assert sql.one("select count(*) from checkpoint") == 90
    answers = holder.advance(
        *(turn(each, 1, 0) for each in held[::10]), outcomes=[step(each, "s") for each in held[::10]]
    )
    assert {each["answer"] for each in answers.values()} == {"news"}
    assert {tuple(name for _, name, _ in sql.events(each)) for each in held[::10]} == {("p", "s")}


def test_two_batches_in_opposite_orders(sql: Sql, held: list[str], another: Callable[..., Sql]) -> None:
    """settle_many takes its locks in the order of all: no deadlock, and every promise has one winner."""
    sessions = [another(), another()]
    for each in sessions:
        each.query("set deadlock_timeout = '50ms'")
    batches = [held[n : n + 10] for n in range(0, ROUNDS, 10)]

    def settle(side: int) -> Callable[[int], list[str]]:
        def run(n: int) -> list[str]:
            items = [
                {"id": f"{each}~p", "verb": "resolve", "value": side} for each in batches[n][:: 1 - 2 * side]
            ]
            return [each["answer"] for each in sessions[side].settle_many(items)][:: 1 - 2 * side]

        return run

    outcomes = meet(10, settle(0), settle(1))
    pairs = Counter(
        tuple(sorted(pair)) for first, second in outcomes for pair in zip(first, second, strict=True)
    )
    assert pairs == {("conflict", "settled"): ROUNDS}


def test_ends_and_awaiters(sql: Sql, worker: Worker, another: Callable[..., Sql]) -> None:
    """x comes to wait for y while y ends: x is told, now or by being ready."""
    pairs = [(f"x{n:02}", f"y{n:02}") for n in range(50)]
    sql.start_many([{"id": each, "function": "f"} for pair in pairs for each in pair])
    worker.claim(100)
    first, second = Worker(another()), Worker(another())

    def come(n: int) -> Row:
        x, y = pairs[n]
        return sent_again(lambda: first.advance(turn(x, 1, 0, "suspend"), operations=[wait(x, "its", y)])[x])

    def end(n: int) -> str:
        y = pairs[n][1]
        until = time.monotonic() + 60
        while (answer := second.finish(y, 1, 0, n)) == "busy":
            assert time.monotonic() < until
        return answer

    outcomes = meet(50, come, end)
    assert {answer for _, answer in outcomes} == {"ok"}
    for (x, _), (answer, _) in zip(pairs, outcomes, strict=True):
        task = sql.task(x)
        assert task is not None
        assert (task["state"], bool(answer["entries"])) in {("ready", False), ("claimed", True)}
        assert sql.events(x) == [(1, "its", "resolved")]


def test_two_tickers_and_a_settler(sql: Sql, clock: Clock, another: Callable[..., Sql]) -> None:
    sql.start_many([{"id": f"d{n}", "function": "f", "delay": 1} for n in range(100)])
    for n in range(100):
        sql.create_promise(f"p{n}", timeout=timedelta(seconds=1))
    clock.advance(timedelta(seconds=1))
    tickers, settler = [another(), another()], another()

    def tick(session: Sql) -> Callable[[int], tuple[int, int]]:
        def run(_: int) -> tuple[int, int]:
            answer = session.tick(10)
            return answer["promises"], answer["timers"]

        return run

    outcomes = meet(25, tick(tickers[0]), tick(tickers[1]), lambda n: settler.resolve(f"p{4 * n}")["answer"])
    while sql.tick(100)["promises"]:
        pass
    assert {settled for _, _, settled in outcomes} == {"conflict"}
    assert sum(timers for each in outcomes for _, timers in each[:2]) <= 100
    assert sql.query("select distinct state from promise where function is null") == [{"state": "timedout"}]
    assert sql.query("select distinct state from task") == [{"state": "ready"}]


@pytest.mark.parametrize(("verb", "state"), [("resolve", "resolved"), ("cancel", "canceled")])
def test_who_waits_is_looked_for_under_the_lock(
    sql: Sql, worker: Worker, another: Callable[..., Sql], verb: str, state: str
) -> None:
    """A wait is committed while a settler stands before its promise, and somebody else is at the awaiter's row.

    The settler must stand in line there too: had he looked for waits before, he would write an event that is not next.
    """
    sql.start("w", "f")
    worker.claim()
    sql.create_promise("p")
    subscriber, holder, settler = another(), Worker(another()), another()
    with ThreadPoolExecutor(1) as pool:
        with holder.sql.connection.transaction():
            holder.sql.query("select from task where id = 'w' for no key update")
            with subscriber.connection.transaction():
                subscriber.query("select from promise where id = 'p' for no key update")
                settling = pool.submit(getattr(settler, verb), "p")
                until_blocked(sql)
                # what `advance` would do of a worker that holds both rows
                subscriber.query(
                    "insert into wait (task, operation, kind, promise, issued) values ('w', 'its', 'wait', 'p', 0)"
                )
            time.sleep(0.05)
            until_blocked(sql)
            assert holder.advance(turn("w", 1, 0), outcomes=[step("w", "s")])["w"]["answer"] == "ok"
        assert settling.result()["answer"] == "settled"
    assert sql.events("w") == [(1, "s", "resolved"), (2, "its", state)]


def test_a_decision_beside_one_that_is_being_committed_waits_for_it(
    sql: Sql, another: Callable[..., Sql]
) -> None:
    sql.create_promise("p")
    first, second = another(), another()
    with ThreadPoolExecutor(1) as pool:
        with first.connection.transaction():
            assert first.resolve("p", 1)["answer"] == "settled"
            deciding = pool.submit(second.resolve, "p", 2)
            until_blocked(sql)
        answer = deciding.result()
    assert (answer["answer"], answer["promise"]["value"]) == ("conflict", 1)


def test_a_decision_touches_no_wait_before_it_holds_the_task(
    sql: Sql, worker: Worker, another: Callable[..., Sql]
) -> None:
    """Who holds a task may drop its waits: if the decider had them by then, each would stand before what the other has."""
    sql.start("w", "f")
    worker.claim()
    approval = worker.wait_for("w")
    holder, decider = another(), another()
    with ThreadPoolExecutor(1) as pool:
        with holder.connection.transaction():
            holder.query("select from task where id = 'w' for no key update")
            deciding = pool.submit(decider.resolve, approval)
            until_blocked(sql)
            assert holder.query("select operation from wait where task = 'w' for update nowait") == [
                {"operation": "approval"}
            ]
        assert deciding.result()["answer"] == "settled"
