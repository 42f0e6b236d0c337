"""create_promise, start_many, get, search, tree, journal: what is made and what is shown."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.support.sql import Sql, Worker, promise, refused, step, turn, wait
from troth import limits
from troth.testing.clock import Clock


def test_a_latent_promise_is_created_once_and_attached_to_ever_after(sql: Sql) -> None:
    made = sql.create_promise("p", timeout=timedelta(days=7), tags={"k": "v"}, title="Approve?")
    assert (made["answer"], made["latent"], made["state"], made["title"], made["tags"]) == (
        "created", True, "pending", "Approve?", {"k": "v"},
    )  # fmt: skip
    again = sql.create_promise("p", timeout=timedelta(days=1), title="Other")
    assert (again["answer"], again["title"], again["timeout_at"]) == (
        "attached",
        "Approve?",
        made["timeout_at"],
    )
    sql.resolve("p", 5)
    settled = sql.create_promise("p")
    assert (settled["answer"], settled["value"]) == ("attached", 5)


def test_a_default_resolves_at_the_timeout(sql: Sql, clock: Clock) -> None:
    sql.create_promise(
        "p", timeout=timedelta(days=7), default={"ok": False}, has_default=True, headers={"h": 1}
    )
    sql.create_promise("n", timeout=timedelta(days=7), default=Jsonb(None), has_default=True)
    clock.advance(timedelta(days=7))
    assert sql.tick()["promises"] == 2
    (n, p) = sorted(sql.get(["p", "n"]), key=lambda each: str(each["id"]))
    assert (p["state"], p["value"], p["headers"], p["settler"]) == (
        "resolved",
        {"ok": False},
        {"h": 1},
        "timeout",
    )
    assert (n["state"], "value" in n, p["settled_at"]) == ("resolved", False, p["timeout_at"])


def test_a_workflow_under_the_id_is_a_conflict(sql: Sql) -> None:
    sql.start("w", "f")
    assert refused(lambda: sql.create_promise("w")) == (
        "TR010",
        "w is already there: a workflow of function f",
    )


@pytest.mark.parametrize(
    ("state", "wrong"),
    [
        ("TR001", {"id": ""}),
        ("TR001", {"id": "x" * 256}),
        ("TR001", {"id": "a b"}),
        ("TR002", {"timeout": timedelta(seconds=-1)}),
        ("TR002", {"timeout": timedelta(days=36501)}),
        ("TR002", {"has_default": True}),
        ("TR002", {"tags": 5}),
        ("TR003", {"title": "t" * 201}),
        ("TR003", {"default": "x" * 2**20, "has_default": True, "timeout": timedelta(1)}),
        ("TR003", {"headers": {"x": "x" * 2**20}}),
    ],
    ids=lambda each: str(each)[:40],
)
def test_refused_at_the_door(sql: Sql, state: str, wrong: dict[str, Any]) -> None:
    assert refused(lambda: sql.call("create_promise", **({"id": "p"} | wrong)))[0] == state
    assert sql.one("select count(*) from promise") == 0


def test_an_id_of_255_characters_with_paths_is_one(sql: Sql) -> None:
    assert sql.create_promise("w~" + "x" * 253)["answer"] == "created"


# start_many


def test_many_starts_are_answered_one_by_one_in_the_order_given(sql: Sql) -> None:
    sql.start("there", "f", {"x": 1})
    answers = sql.start_many(
        [
            {
                "id": "b",
                "function": "f",
                "args": {"x": 1},
                "queue": "q",
                "priority": 4,
                "tags": {"t": "1"},
                "timeout": 60,
            },
            {"id": "a", "function": "f", "delay": 1.5},
            {"id": "there", "function": "f", "args": {"x": 1}},
            {"id": "there", "function": "g"},
            {"id": "b", "function": "f", "args": {"x": 1}},
            {"id": "no~", "function": "f"},
            {"id": "c", "function": "f", "delay": "soon"},
            {"id": "d", "function": "f", "delay": -1},
            {"id": "e", "function": "f", "priority": 10**12},
            {"id": "g", "function": "f", "args": "x" * 2**20, "headers": {}},
            {"id": "h", "function": "f", "digest": "zz"},
            {"id": "i", "function": "f", "args": None, "tags": None, "headers": None},
            {"function": "f"},
            {"id": "j", "function": "f", "timeout": "NaN"},
        ]
    )
    assert [each["answer"] for each in answers] == [
        "created", "created", "attached", "conflict", "attached", "refused", "refused", "refused", "refused", "refused",
        "refused", "created", "refused", "refused",
    ]  # fmt: skip
    assert [each["sqlstate"] for each in answers if each["answer"] == "refused"] == [
        "TR001", "TR002", "TR002", "TR002", "TR003", "TR002", "TR001", "TR002",
    ]  # fmt: skip
    assert all(each["message"] for each in answers if each["answer"] == "refused")
    assert answers[3]["function"] == "f"
    assert answers[:2] == [{"id": "b", "answer": "created"}, {"id": "a", "answer": "created"}]
    b, a = sorted(sql.get(["a", "b"]), key=lambda each: each["id"], reverse=True)
    assert (b["queue"], b["task"]["priority"], b["tags"]) == ("q", 4, {"t": "1"})
    assert (answers[4]["answer"], answers[4]["tags"], a["task"]["state"]) == (
        "attached",
        {"t": "1"},
        "suspended",
    )
    assert sql.one("select count(*) from task") == 4


@pytest.mark.parametrize(
    ("state", "items"), [("TR002", None), ("TR002", {}), ("TR002", [1]), ("TR030", [{}] * 10001)]
)
def test_a_batch_that_is_none(sql: Sql, state: str, items: Any) -> None:
    assert refused(lambda: sql.start_many(items))[0] == state


# get


def test_get_shows_each_known_promise_once(sql: Sql) -> None:
    sql.start("w", "f")
    sql.create_promise("p")
    assert sorted(each["id"] for each in sql.get(["p", "nobody", "w", "p"])) == ["p", "w"]
    assert sql.get([]) == sql.get(None) == []


def test_whoever_looks_at_an_overdue_promise_settles_it(sql: Sql, clock: Clock) -> None:
    sql.create_promise("p", timeout=timedelta(seconds=1))
    clock.advance(timedelta(seconds=1))
    assert sql.search(prefix="p")[0]["overdue"] is True
    assert sql.get(["p"])[0]["state"] == "timedout"


def test_who_may_not_settle_it_shows_it_as_overdue(
    sql: Sql, clock: Clock, another: Callable[..., Sql]
) -> None:
    sql.create_promise("p", timeout=timedelta(seconds=1))
    clock.advance(timedelta(seconds=1))
    reader = another()
    for begin in ("set transaction read only", "set transaction isolation level repeatable read"):
        with reader.connection.transaction():
            reader.query(begin)
            (shown,) = reader.get(["p"])
        assert (shown["state"], shown["overdue"]) == ("pending", True)
    holder = another()
    with holder.connection.transaction():
        holder.query("select from promise for update")
        (shown,) = sql.get(["p"])
        assert (shown["state"], shown["overdue"]) == ("pending", True)
    assert sql.get(["p"])[0]["state"] == "timedout"


def test_an_overdue_promise_whose_awaiter_is_held_waits_its_turn(
    sql: Sql, worker: Worker, clock: Clock, another: Callable[..., Sql]
) -> None:
    sql.start("w", "f")
    worker.claim()
    worker.advance(turn("w", 1, 0, "suspend"), operations=[promise("w", "a", timeout=1_000_000)])
    clock.advance(timedelta(seconds=1))
    holder = another()
    with holder.connection.transaction():
        holder.query("select from task for update")
        assert sql.get(["w~a"])[0]["overdue"] is True
        assert sql.tick()["promises"] == 0
    assert sql.tick()["promises"] == 1
    assert sql.events("w") == [(1, "a", "timedout")]


# search


@pytest.fixture
def many(sql: Sql, worker: Worker) -> Sql:
    for n in range(6):
        sql.start(
            f"w{n}", "fg"[n % 2], queue="mail" if n < 2 else None, tags={"n": str(n), "odd": str(n % 2)}
        )
    for n in range(3):
        sql.create_promise(f"p{n}", tags={"n": str(n)})
    sql.resolve("p0", 1)
    sql.cancel("w5")
    return sql


def ids(found: list[dict[str, Any]]) -> list[str]:
    return [each["id"] for each in found]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ({}, "p0 p1 p2 w0 w1 w2 w3 w4 w5"),
        ({"state": "pending"}, "p1 p2 w0 w1 w2 w3 w4"),
        ({"state": "resolved"}, "p0"),
        ({"state": "canceled"}, "w5"),
        ({"state": "timedout"}, ""),
        ({"latent": True}, "p0 p1 p2"),
        ({"latent": False}, "w0 w1 w2 w3 w4 w5"),
        ({"latent": True, "state": "pending"}, "p1 p2"),
        ({"latent": False, "state": "pending"}, "w0 w1 w2 w3 w4"),
        ({"queue": "mail"}, "w0 w1"),
        ({"queue": "mail", "state": "pending"}, "w0 w1"),
        ({"function": "g"}, "w1 w3 w5"),
        ({"function": "g", "state": "pending"}, "w1 w3"),
        ({"prefix": "p"}, "p0 p1 p2"),
        ({"prefix": "w", "state": "pending", "after": "w1"}, "w2 w3 w4"),
        ({"prefix": "w3", "after": "p"}, "w3"),
        ({"tags": {"n": "1"}}, "p1 w1"),
        ({"tags": {"n": "1"}, "state": "pending"}, "p1 w1"),
        ({"tags": {"n": "1", "odd": "1"}}, "w1"),
    ],
    ids=str,
)
def test_search_by(many: Sql, by: dict[str, Any], expected: str) -> None:
    assert ids(many.search(**by)) == expected.split()


@pytest.mark.parametrize("state", [None, "pending"])
def test_pages_follow_each_other_without_gap_or_overlap(many: Sql, state: str | None) -> None:
    whole, after, pages = ids(many.search(state=state)), None, []
    while page := ids(many.search(state=state, limit=2, after=after)):
        assert len(page) <= 2
        pages += page
        after = page[-1]
    assert pages == whole


@pytest.mark.parametrize(
    "wrong", [{"state": "done"}, {"limit": 0}, {"limit": 1001}, {"limit": None}, {"tags": []}], ids=str
)
def test_a_search_that_is_none(sql: Sql, wrong: dict[str, Any]) -> None:
    assert refused(lambda: sql.search(**wrong))[0] == "TR002"


# tree, journal


def test_a_tree_is_a_promise_and_what_was_made_below_it(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f")
    sql.start("w2", "f")
    worker.claim()
    worker.advance(
        turn("w", 1, 0),
        turn("w2", 1, 0),
        operations=[promise("w", "a"), promise("w", "b"), promise("w2", "c")],
    )
    assert [(each["id"], each.get("parent")) for each in sql.tree("w")] == [
        ("w", None),
        ("w~a", "w"),
        ("w~b", "w"),
    ]
    assert ids(sql.tree("w", 2)) == ["w", "w~a"]
    assert ids(sql.tree("w~a")) == ["w~a"]
    assert sql.tree("nobody") == []
    for limit in (0, 10001, None):
        assert refused(lambda limit=limit: sql.tree("w", limit))[0] == "TR002"  # type: ignore[misc]


def test_a_journal_is_told_from_any_number_on(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f")
    sql.create_promise("elsewhere")
    sql.resolve("elsewhere", {"from": "elsewhere"})
    worker.claim()
    worker.advance(
        turn("w", 1, 0),
        outcomes=[
            step("w", "s", 0, digest=-(2**62), value={"v": [None]}),
            step("w", "t", 1, state="rejected", error={"type": "E", "message": "m"}),
        ],
        operations=[promise("w", "a"), wait("w", "e", "elsewhere", 2)],
    )
    sql.resolve("w~a", "yes")
    journal = sql.journal("w")
    assert [
        (each["seq"], each["operation"], each["kind"], each["issued"], each["state"]) for each in journal
    ] == [
        (1, "s", "step", 0, "resolved"),
        (2, "t", "step", 1, "rejected"),
        (3, "e", "wait", 2, "resolved"),
        (4, "a", "promise", 0, "resolved"),
    ]
    assert [each["value"] for each in journal] == [{"v": [None]}, None, {"from": "elsewhere"}, "yes"]
    assert (journal[0]["digest"], journal[1]["error"], journal[2]["promise"], journal[3]["promise"]) == (
        -(2**62), {"type": "E", "message": "m"}, "elsewhere", "w~a",
    )  # fmt: skip
    assert {each["epoch"] for each in journal} == {1}
    assert sql.journal("w", 3) == journal[2:]
    assert sql.journal("w", 2, 1) == journal[1:2]
    assert sql.journal("w", 5) == sql.journal("nobody") == []
    for limit in (0, 1001, None):
        assert refused(lambda limit=limit: sql.journal("w", 1, limit))[0] == "TR002"  # type: ignore[misc]


def test_the_value_of_a_promise_of_the_family_is_kept_once(sql: Sql, worker: Worker) -> None:
    sql.start("w", "f")
    sql.create_promise("elsewhere")
    worker.claim()
    worker.advance(turn("w", 1, 0, "suspend"), operations=[promise("w", "a"), wait("w", "e", "elsewhere")])
    sql.settle_many(
        [{"id": "elsewhere", "verb": "resolve", "value": 1}, {"id": "w~a", "verb": "resolve", "value": 2}]
    )
    assert sql.query("select operation, value, promise from checkpoint order by seq") == [
        {"operation": "e", "value": 1, "promise": "elsewhere"},
        {"operation": "a", "value": None, "promise": None},
    ]
    assert [each["value"] for each in sql.journal("w")] == [1, 2]


def test_a_size_is_that_of_the_text_that_a_reader_gets(sql: Sql) -> None:
    """What a client may send is never refused for the spaces that Postgres adds; a short number may be endless."""
    sql.create_promise("many")
    fits = "[" + ",".join("1" * 524_287) + "]"
    assert len(fits) <= limits.payload_bytes_max
    assert sql.query("select resolve('many', %s::jsonb) ->> 'answer' as answer", fits) == [
        {"answer": "settled"}
    ]
    sql.create_promise("endless")
    endless = "[" + ",".join(["1e131000"] * 20) + "]"
    assert refused(lambda: sql.query("select resolve('endless', %s::jsonb)", endless))[0] == "TR003"
    assert sql.state("endless") == "pending"


def test_a_tree_shows_what_was_created_beforehand_under_the_name_of_an_operation(sql: Sql) -> None:
    sql.create_promise("w~early")
    sql.create_promise("w-other")
    sql.start("w", "f")
    assert ids(sql.tree("w")) == ["w", "w~early"]


def test_settled_gives_what_get_gives_of_those_that_are(sql: Sql, worker: Worker, clock: Clock) -> None:
    sql.create_promise("pending")
    sql.create_promise("late", timedelta(seconds=5))
    sql.create_promise("done")
    sql.start("ended", "f", {"x": None})
    sql.start("under-way", "f")
    sql.resolve("done", {"a": None})
    worker.claim()
    worker.finish("ended", 1, 0, 5)
    clock.advance(timedelta(seconds=5))
    named = ["unknown", "pending", "late", "done", "ended", "under-way"]
    found = {each["id"]: each for each in sql.settled(named)}
    assert set(found) == {"late", "done", "ended"}
    assert found == {each["id"]: each for each in sql.get(named) if each["state"] != "pending"}
    assert sql.settled([]) == []
