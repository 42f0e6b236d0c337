"""start: created, attached, conflict, and everything that is refused at the door."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support.sql import Sql, Worker, refused
from troth.testing.clock import Clock


def test_a_start_is_answered_with_the_document_of_a_ready_workflow(sql: Sql) -> None:
    answer = sql.start(
        "order-42",
        "approve",
        {"order": "x"},
        queue="mail",
        priority=-3,
        tags={"customer": "7"},
        timeout=timedelta(days=1),
    )
    assert answer["answer"] == "created"
    assert (answer["id"], answer["state"], answer["latent"], answer["function"]) == (
        "order-42",
        "pending",
        False,
        "approve",
    )
    assert (answer["queue"], answer["args"], answer["tags"]) == ("mail", {"order": "x"}, {"customer": "7"})
    task = answer["task"]
    assert (task["state"], task["queue"], task["lane"], task["priority"], task["attempts"]) == (
        "ready",
        "mail",
        "approve",
        -3,
        0,
    )
    row = sql.query(
        "select timeout_at - created_at as timeout, expires_at = timeout_at as indexed from promise"
    )[0]
    assert row == {"timeout": timedelta(days=1), "indexed": True}


def test_the_same_start_attaches_and_what_is_not_compared_does_not_matter(sql: Sql) -> None:
    sql.start("a", "f", {"x": 1, "y": [1, 2]})
    again = sql.start(
        "a",
        "f",
        Jsonb({"y": [1, 2], "x": 1}),
        queue="other",
        delay=timedelta(hours=1),
        priority=9,
        tags={"a": "b"},
        timeout=timedelta(1),
    )
    assert again["answer"] == "attached"
    assert (again["queue"], again["task"]["priority"], again["task"]["state"]) == ("default", 0, "ready")
    assert sql.one("select count(*) from task") == 1


@pytest.mark.parametrize(
    ("first", "second"), [({}, []), (None, []), ([], {}), (None, {}), (Jsonb(None), None)]
)
def test_no_arguments_are_no_arguments(sql: Sql, first: Any, second: Any) -> None:
    sql.start("a", "f", first)
    assert sql.start("a", "f", second)["answer"] == "attached"


@pytest.mark.parametrize(
    ("function", "args", "sentence"),
    [
        ("g", {"x": 1}, "a is already there with another function: f, not g"),
        ("f", {"x": 2}, "a is already there with other arguments"),
        ("f", [1], "a is already there with other arguments"),
    ],
)
def test_another_function_or_other_arguments_are_a_conflict(
    sql: Sql, function: str, args: Any, sentence: str
) -> None:
    sql.start("a", "f", {"x": 1})
    with pytest.raises(psycopg.Error) as caught:
        sql.start("a", function, args)
    assert (caught.value.sqlstate, caught.value.diag.message_primary) == ("TR010", sentence)
    assert '"function": "f"' in (caught.value.diag.message_detail or "")
    attached = sql.start("a", function, args, on_conflict="attach")
    assert (attached["answer"], attached["function"], attached["args"]) == ("attached", "f", {"x": 1})


def test_a_latent_promise_under_the_id_is_a_conflict_even_when_attaching(sql: Sql) -> None:
    sql.create_promise("a")
    for how in ("error", "attach"):
        state, message = refused(lambda how=how: sql.start("a", "f", on_conflict=how))  # type: ignore[misc]
        assert (state, message) == ("TR010", "a is already there with no function: it is a latent promise")


def test_a_start_attaches_to_what_has_finished(sql: Sql, worker: Worker) -> None:
    sql.start("a", "f")
    worker.claim()
    worker.finish("a", 1, 0, {"ok": [None]})
    answer = sql.start("a", "f")
    assert (answer["answer"], answer["state"], answer["value"]) == ("attached", "resolved", {"ok": [None]})
    assert "task" not in answer
    assert sql.task("a") is None


def test_attaching_to_an_overdue_workflow_settles_it(sql: Sql, clock: Clock) -> None:
    sql.start("a", "f", timeout=timedelta(seconds=5))
    clock.advance(timedelta(seconds=5))
    answer = sql.start("a", "f")
    assert (answer["answer"], answer["state"], answer["settler"]) == ("attached", "timedout", "timeout")


def test_the_queue_of_a_start_without_one_is_what_workers_registered(sql: Sql) -> None:
    sql.register([{"name": "f", "version": 1, "queue": "old"}, {"name": "f", "version": 2, "queue": "new"}])
    assert sql.start("a", "f")["queue"] == "new"
    assert sql.start("b", "f", queue="mine")["queue"] == "mine"
    assert sql.start("c", "unknown")["queue"] == "default"


def test_a_delayed_start_is_suspended_until_its_time(sql: Sql, worker: Worker, clock: Clock) -> None:
    answer = sql.start("a", "f", delay=timedelta(minutes=1))
    assert answer["task"]["state"] == "suspended"
    assert worker.claim() == []
    sql.tick()
    assert worker.claim() == []
    clock.advance(timedelta(minutes=1))
    assert sql.tick()["timers"] == 1
    (claimed,) = Worker(sql, "w2").claim()
    assert (claimed["task"], claimed["journal"], claimed["last_seq"]) == ("a", [], 0)
    assert sql.query("select * from wait") == []


def test_a_delay_of_zero_is_none(sql: Sql) -> None:
    assert sql.start("a", "f", delay=timedelta(0))["task"]["state"] == "ready"


@pytest.mark.parametrize("args", [1, "text", True, None])
def test_sealed_arguments_may_be_any_json(sql: Sql, args: Any) -> None:
    answer = sql.start("a", "f", Jsonb(args), headers={"codec": "aes"}, digest=b"\1\2")
    assert answer["args_headers"] == {"codec": "aes"}
    assert (
        sql.start("a", "f", Jsonb("another sealing"), headers={"codec": "aes"}, digest=b"\1\2")["answer"]
        == "attached"
    )
    assert (
        refused(lambda: sql.start("a", "f", Jsonb(args), headers={"codec": "aes"}, digest=b"\3"))[0]
        == "TR010"
    )
    assert refused(lambda: sql.start("a", "f", {}))[0] == "TR010"


GOOD: dict[str, Any] = {"id": "a", "function": "f"}


@pytest.mark.parametrize(
    ("state", "wrong"),
    [
        ("TR001", {"id": None}),
        ("TR001", {"id": ""}),
        ("TR001", {"id": "."}),
        ("TR001", {"id": ".."}),
        ("TR001", {"id": " a"}),
        ("TR001", {"id": "a/b"}),
        ("TR001", {"id": "a%20b"}),
        ("TR001", {"id": "grüße"}),
        ("TR001", {"id": "a\n"}),
        ("TR001", {"id": "a~b"}),
        ("TR001", {"id": "x" * 129}),
        ("TR002", {"function": None}),
        ("TR002", {"function": ""}),
        ("TR002", {"function": "f@2"}),
        ("TR002", {"function": "f~"}),
        ("TR002", {"function": "f!"}),
        ("TR002", {"function": "42"}),
        ("TR002", {"function": "f" * 101}),
        ("TR002", {"queue": "a b"}),
        ("TR002", {"args": Jsonb(1)}),
        ("TR002", {"priority": 32768}),
        ("TR002", {"priority": -32769}),
        ("TR002", {"priority": None}),
        ("TR002", {"delay": timedelta(seconds=-1)}),
        ("TR002", {"delay": timedelta(days=36501)}),
        ("TR002", {"timeout": timedelta(seconds=-1)}),
        ("TR002", {"timeout": timedelta(days=36501)}),
        ("TR002", {"tags": ["a"]}),
        ("TR002", {"tags": {"a": 1}}),
        ("TR002", {"tags": {"k" * 201: "v"}}),
        ("TR002", {"tags": {"k": "v" * 201}}),
        ("TR002", {"tags": {str(n): "" for n in range(33)}}),
        ("TR002", {"on_conflict": "ignore"}),
        ("TR002", {"on_conflict": None}),
        ("TR003", {"args": {"x": "y" * 2**20}}),
        ("TR003", {"headers": {"x": "y" * 2**20}}),
    ],
    ids=lambda each: str(each)[:40],
)
def test_refused_at_the_door(sql: Sql, state: str, wrong: dict[str, Any]) -> None:
    assert refused(lambda: sql.call("start", **(GOOD | wrong)))[0] == state
    assert sql.one("select count(*) from promise") == 0


@pytest.mark.parametrize(
    "right",
    [
        {"id": "x" * 128},
        {"id": "-._:@!$&'()*+,;="},
        {"priority": 32767},
        {"delay": timedelta(days=36500)},
        {"tags": {str(n): "v" * 200 for n in range(32)}},
        {"args": {"x": "y" * (2**20 - 100)}},
    ],
    ids=lambda each: str(each)[:40],
)
def test_accepted_at_the_brim(sql: Sql, right: dict[str, Any]) -> None:
    answer = sql.call("start", **(GOOD | right))
    assert answer["answer"] == "created"
    assert sql.get([answer["id"]])[0]["id"] == answer["id"]
    # with a tag it is not told at one look: every check has its say
    assert sql.call("start", **(GOOD | {"tags": {"a": "b"}} | right))["answer"] == "attached"


def nested(depth: int, leaf: Any) -> Any:
    """Lists inside each other, `depth` of them, with the leaf inside the innermost."""
    value = [] if leaf is ... else [leaf]
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize("leaf", [1, ...], ids=["leaf", "empty"])
def test_a_payload_has_a_hundred_levels_and_no_more(sql: Sql, leaf: Any) -> None:
    assert sql.start("a", "f", nested(100, leaf))["answer"] == "created"
    assert refused(lambda: sql.start("b", "f", nested(101, leaf)))[0] == "TR004"


def test_a_start_may_stand_in_a_transaction_of_any_isolation_level(
    sql: Sql, another: Callable[..., Sql]
) -> None:
    for level in ("read committed", "repeatable read", "serializable"):
        other = another()
        with other.connection.transaction():
            other.query(f"set transaction isolation level {level}")
            assert other.start(level.replace(" ", "-"), "f")["answer"] == "created"
            assert other.start(level.replace(" ", "-"), "f")["answer"] == "attached"


def test_an_old_snapshot_never_attaches_to_what_it_cannot_see(sql: Sql, another: Callable[..., Sql]) -> None:
    other = another()
    with pytest.raises(psycopg.errors.SerializationFailure), other.connection.transaction():  # noqa: PT012
        other.query("set transaction isolation level repeatable read")
        other.one("select count(*) from promise")
        sql.start("a", "f", {"x": 1})
        other.start("a", "f", {"x": 2})
