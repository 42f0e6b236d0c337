"""resolve, reject, cancel, settle_many: who wins, what is told, what is refused. Late and double settles are answers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support.sql import Sql, Worker, promise, refused, turn
from troth.testing.clock import Clock


@pytest.mark.parametrize("value", [True, 0, "", [], {"a": None}, Jsonb(None), None], ids=repr)
def test_a_resolution_is_stored_as_it_is(sql: Sql, value: Any) -> None:
    sql.create_promise("p")
    answer = sql.resolve("p", value, actor="ann")
    assert (answer["answer"], answer["promise"]["state"], answer["promise"]["settler"]) == (
        "settled",
        "resolved",
        "ann",
    )
    plain = None if isinstance(value, Jsonb) else value
    assert answer["promise"].get("value") == plain
    assert sql.query("select actor, verb, before, after from audit") == [
        {"actor": "ann", "verb": "resolve", "before": "pending", "after": "resolved"}
    ]


def test_the_settler_without_an_actor_is_the_role_of_the_session(sql: Sql) -> None:
    sql.create_promise("p")
    assert sql.reject("p")["promise"]["settler"] == sql.one("select session_user::text")


def test_the_same_outcome_again_is_a_success_and_another_a_conflict_that_shows_the_winner(sql: Sql) -> None:
    sql.create_promise("p")
    sql.resolve("p", {"a": 1, "b": [1]}, actor="ann")
    answer = sql.resolve("p", {"b": [1], "a": 1}, actor="bob")
    assert (answer["answer"], answer["promise"]["settler"]) == ("already", "ann")
    for answer in (
        sql.resolve("p", {"a": 2}),
        sql.resolve("p", {"a": 1, "b": [1]}, headers={"codec": "x"}),
        sql.reject("p", {"a": 1, "b": [1]}),
        sql.cancel("p"),
    ):
        assert (answer["answer"], answer["promise"]["state"], answer["promise"]["value"]) == (
            "conflict",
            "resolved",
            {"a": 1, "b": [1]},
        )
    assert sql.one("select count(*) from audit") == 1


def test_sealed_values_are_compared_by_their_digest(sql: Sql) -> None:
    sql.create_promise("p")
    sql.resolve("p", "nonce-1", headers={"codec": "aes"}, digest=b"\7")
    assert sql.resolve("p", "nonce-2", headers={"codec": "aes"}, digest=b"\7")["answer"] == "already"
    assert sql.resolve("p", "nonce-1", headers={"codec": "aes"}, digest=b"\x08")["answer"] == "conflict"
    assert sql.resolve("p", "nonce-1", headers={"codec": "aes"})["answer"] == "already"


def test_a_rejection_keeps_its_error(sql: Sql) -> None:
    sql.create_promise("p")
    error = {"type": "Denied", "message": "no budget"}
    assert sql.reject("p", error)["promise"]["error"] == error
    assert sql.reject("p", error)["answer"] == "already"


def test_unknown_and_not_latent_are_answers(sql: Sql) -> None:
    sql.start("w", "f")
    for verb in (sql.resolve, sql.reject, sql.cancel):
        assert verb("nobody") == {"answer": "unknown", "promise": None}
        assert verb(None) == {"answer": "unknown", "promise": None}
    for verb in (sql.resolve, sql.reject):
        answer = verb("w")
        assert (answer["answer"], answer["promise"]["state"]) == ("not_latent", "pending")


def test_from_its_timeout_on_nobody_settles_a_promise(sql: Sql, clock: Clock) -> None:
    sql.create_promise("p", timeout=timedelta(seconds=30))
    sql.create_promise("q", timeout=timedelta(seconds=30), default="later", has_default=True)
    clock.advance(timedelta(seconds=30))
    for verb in (sql.resolve, sql.reject, sql.cancel):
        answer = verb("p")
        assert (answer["answer"], answer["promise"]["state"]) == ("conflict", "timedout")
    answer = sql.resolve("q", "later")
    assert (answer["answer"], answer["promise"]["value"], answer["promise"]["settler"]) == (
        "conflict",
        "later",
        "timeout",
    )
    assert sql.one("select count(*) from promise where settled_at = timeout_at") == 2
    assert sql.one("select count(*) from audit") == 0


def test_just_before_its_timeout_everybody_may(sql: Sql, clock: Clock) -> None:
    sql.create_promise("p", timeout=timedelta(seconds=30))
    clock.advance(timedelta(seconds=25))
    assert sql.resolve("p", 1)["answer"] == "settled"


@pytest.mark.parametrize("actor", ["timeout", "worker", "workflow"])
def test_nobody_settles_in_the_name_of_the_engine(sql: Sql, actor: str) -> None:
    sql.create_promise("p", timeout=timedelta(days=1))
    sql.start("w", "f")
    for call in (
        lambda: sql.resolve("p", 1, actor=actor),
        lambda: sql.reject("p", 1, actor=actor),
        lambda: sql.cancel("p", actor=actor),
        lambda: sql.settle_many([{"id": "p", "verb": "resolve"}], actor=actor),
        lambda: sql.settle_many([{"id": "p", "verb": "cancel"}], actor=actor),
        lambda: sql.halt("w", actor=actor),
        lambda: sql.resume("w", actor=actor),
    ):
        assert refused(call)[0] == "TR002"
    assert sql.state("p") == "pending"


@pytest.mark.parametrize(
    ("state", "verb", "arguments"),
    [
        ("TR003", "resolve", {"value": "x" * 2**20}),
        ("TR003", "resolve", {"headers": {"x": "x" * 2**20}}),
        ("TR003", "resolve", {"actor": "a" * 1001}),
        ("TR003", "reject", {"error": "x" * 2**20}),
        ("TR003", "cancel", {"reason": "x" * 1001}),
        ("TR003", "cancel", {"actor": "x" * 1001}),
        ("TR004", "resolve", {}),
    ],
    ids=lambda each: str(each)[:30],
)
def test_refused_at_the_door(sql: Sql, state: str, verb: str, arguments: dict[str, Any]) -> None:
    if state == "TR004":
        deep: Any = []
        for _ in range(100):
            deep = [deep]
        arguments = {"value": deep}
    sql.create_promise("p")
    assert refused(lambda: sql.call(verb, "p", **arguments))[0] == state
    assert sql.state("p") == "pending"


# cancel


def test_a_latent_promise_is_canceled_at_once(sql: Sql) -> None:
    sql.create_promise("p")
    answer = sql.cancel("p", "not needed", actor="ann")
    assert answer["answer"] == "settled"
    assert answer["promise"]["error"] == {"type": "canceled", "message": "not needed"}
    assert sql.cancel("p", "another reason")["answer"] == "already"
    assert sql.query("select verb, after from audit") == [{"verb": "cancel", "after": "canceled"}]


@pytest.mark.parametrize("delay", [None, timedelta(hours=1)])
def test_s58_a_workflow_that_never_ran_is_canceled_at_once(
    sql: Sql, worker: Worker, delay: timedelta | None
) -> None:
    sql.start("w", "f", delay=delay)
    assert sql.cancel("w")["promise"]["state"] == "canceled"
    assert (sql.task("w"), sql.query("select * from wait"), worker.claim()) == (None, [], [])
    assert sql.tick()["timers"] == 0


def test_a_workflow_that_has_begun_is_told(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.wait_for("w")
    answer = sql.cancel("w", "stop", actor="ann")
    assert (answer["answer"], answer["promise"]["state"], answer["promise"]["task"]["state"]) == (
        "requested",
        "pending",
        "ready",
    )
    assert sql.cancel("w", "stop again")["answer"] == "requested"
    assert sql.events("w") == [(1, "~cancel", "canceled")]
    assert sql.query("select actor, verb, after from audit") == [
        {"actor": "ann", "verb": "cancel", "after": "requested"}
    ]
    (claimed,) = worker.claim()
    assert [entry["kind"] for entry in claimed["journal"]] == ["cancel"]
    assert claimed["journal"][0]["error"] == {"type": "canceled", "message": "stop"}


def test_the_holder_of_a_canceled_workflow_gets_news(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f")
    worker.claim()
    sql.cancel("w")
    assert sql.heartbeat("w1", ["w"], [1]) == [{"task": "w", "epoch": 1, "answer": "news"}]
    answer = worker.advance(turn("w", 1, 0, "finish", state="resolved"))["w"]
    assert (answer["answer"], [entry["operation"] for entry in answer["entries"]]) == ("news", ["~cancel"])
    error = {"type": "canceled", "message": "done"}
    assert worker.advance(turn("w", 1, 1, "finish", state="canceled", error=error))["w"]["answer"] == "ok"
    assert sql.cancel("w")["answer"] == "already"


def test_s59_a_finished_workflow_is_not_canceled(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.finish("w", 1, 0, 5)
    assert sql.cancel("w")["answer"] == "conflict"
    assert sql.get(["w"])[0]["value"] == 5


def test_a_halted_workflow_is_told_when_it_goes_on(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f")
    worker.claim()
    sql.halt("w")
    assert sql.cancel("w")["answer"] == "requested"
    task = sql.task("w")
    assert task is not None
    assert task["state"] == "halted"
    sql.resume("w")
    assert len(worker.claim()[0]["journal"]) == 1


def test_what_an_ended_workflow_left_open_is_canceled_by_whoever_touches_it(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.advance(turn("w", 1, 0), operations=[promise("w", "a"), promise("w", "b")])
    worker.finish("w", 1, 0)
    answer = sql.resolve("w~a", 1)
    assert (answer["answer"], answer["promise"]["state"], answer["promise"]["settler"]) == (
        "conflict",
        "canceled",
        "workflow",
    )
    assert sql.cancel("w~b")["answer"] == "already"


# settle_many


def test_many_are_answered_one_by_one_in_the_order_given(sql: Sql, worker: Worker) -> None:
    for each in "pqr":
        sql.create_promise(each)
    sql.start("w", "f")
    answers = sql.settle_many(
        [
            {"id": "r", "verb": "resolve", "value": 1},
            {"id": "p", "verb": "reject", "error": {"type": "E", "message": "m"}},
            {"id": "nobody", "verb": "resolve"},
            {"id": "w", "verb": "resolve"},
            {"id": "q", "verb": "cancel", "reason": "why not"},
            {"id": "r", "verb": "resolve", "value": 1},
            {"id": "r", "verb": "resolve", "value": 2},
            {"verb": "cancel"},
        ],
        actor="ann",
    )
    assert [each["answer"] for each in answers] == [
        "settled", "settled", "unknown", "not_latent", "settled", "already", "conflict", "unknown",
    ]  # fmt: skip
    assert [sql.state(each) for each in "pqr"] == ["rejected", "canceled", "resolved"]
    assert sql.one("select count(*) from audit where actor = 'ann'") == 3


def test_json_null_and_nothing_are_the_same_value(sql: Sql) -> None:
    sql.create_promise("p")
    items = [{"id": "p", "verb": "resolve", "value": None}, {"id": "p", "verb": "resolve"}]
    assert [each["answer"] for each in sql.settle_many(items)] == ["settled", "already"]


def test_a_workflow_that_waits_for_several_gets_them_in_one_go(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.advance(turn("w", 1, 0, "suspend"), operations=[promise("w", each) for each in "abc"])
    sql.settle_many([{"id": f"w~{each}", "verb": "resolve", "value": each} for each in "cab"])
    assert sql.events("w") == [(1, "c", "resolved"), (2, "a", "resolved"), (3, "b", "resolved")]
    assert [each["value"] for each in worker.claim()[0]["journal"]] == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("state", "items"),
    [
        ("TR002", None),
        ("TR002", {"id": "p"}),
        ("TR002", ["p"]),
        ("TR002", [{"id": "p"}]),
        ("TR002", [{"id": "p", "verb": "delete"}]),
        ("TR003", [{"id": "p", "verb": "resolve", "value": "x" * 2**20}]),
        ("TR030", [{}] * 10001),
    ],
    ids=lambda each: str(each)[:30],
)
def test_a_malformed_item_refuses_the_whole_call(sql: Sql, state: str, items: Any) -> None:
    sql.create_promise("p")
    if isinstance(items, list) and len(items) == 1:
        items = [{"id": "p", "verb": "resolve"}, *items]
    assert refused(lambda: sql.settle_many(items))[0] == state
    assert sql.state("p") == "pending"


def test_a_callers_transaction_survives_every_answer(sql: Sql) -> None:
    with sql.connection.transaction():
        sql.query("create temporary table mine (x int) on commit drop")
        sql.create_promise("p")
        for _ in range(2):
            sql.resolve("p", 1)
            sql.resolve("p", 2)
            sql.resolve("nobody")
        sql.query("insert into mine values (1)")
        assert sql.connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    assert sql.state("p") == "resolved"
