"""start_each: one function under many IDs, at once if all are new, and else as start_many answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.support.sql import Sql, Worker, refused, until_blocked

BRIM = {"text": "x" * (1024 * 1024 - 11)}


def test_all_that_is_new_starts_and_nothing_is_said_of_it(sql: Sql, worker: Worker) -> None:
    assert sql.start_each("f", ["b", "a", "c"], [{"x": 2}, [1], None]) == []
    claimed = {each["task"]: each["args"] for each in worker.claim()}
    assert claimed == {"a": [1], "b": {"x": 2}, "c": {}}


def test_it_leaves_the_rows_that_start_leaves(sql: Sql) -> None:
    options: dict[str, Any] = {
        "queue": "mail",
        "delay": timedelta(hours=1),
        "timeout": timedelta(days=1),
        "priority": -3,
        "tags": {"customer": "7"},
        "headers": {"codec": "aes"},
    }
    sql.start("a", "f", "sealed", digest=b"12", **options)
    sql.start_each("f", ["b"], ["sealed"], digests=[b"12"], **options)
    sql.start("c", "f", {"x": 1})
    sql.start_each("f", ["d"], [{"x": 1}])
    for one, other in (("a", "b"), ("c", "d")):
        for table in ("promise", "task", "wait"):
            key = "task" if table == "wait" else "id"
            rows = [
                sql.query(
                    f"""select to_jsonb(t) - '{{{key},created_at,ready_at,timeout_at,expires_at,fire_at}}'::text[] as row,
                               t.{"fire_at" if table == "wait" else "timeout_at"} -
                                 (select created_at from promise where id = '{name}') as span
                          from {table} t where {key} = '{name}'"""
                )
                for name in (one, other)
            ]
            assert rows[0] == rows[1], (table, one)
    assert sql.one("select count(*) from wait") == 2


def test_what_is_not_new_is_answered_and_its_neighbours_start(sql: Sql) -> None:
    sql.start("same", "f", [1])
    sql.start("other", "g", [1])
    answers = sql.start_each("f", ["new", "same", "no~id", "other", "new"], [[1], [1], [1], [1], [2]])
    assert [(each["id"], each["answer"]) for each in answers] == [
        ("same", "attached"),
        ("no~id", "refused"),
        ("other", "conflict"),
        ("new", "conflict"),
    ]
    assert sql.one("select array_agg(id order by id) from task") == ["new", "other", "same"]
    assert Counter(
        each["answer"]
        for each in sql.start_each("f", ["x", "same"], [[1], [1]]) + sql.start_each("f", ["x"], [[1]])
    ) == {"attached": 2}


@pytest.mark.parametrize(
    ("options", "sqlstate"),
    [
        ({"queue": "1"}, "TR002"),
        ({"priority": 40_000}, "TR002"),
        ({"delay": timedelta(-1)}, "TR002"),
        ({"timeout": timedelta(40_000)}, "TR002"),
        ({"tags": {"a": 1}}, "TR002"),
    ],
)
def test_what_all_have_in_common_refuses_all(sql: Sql, options: dict[str, Any], sqlstate: str) -> None:
    answers = sql.start_each("f", ["a", "b"], [{}, {}], **options)
    assert [(each["id"], each["sqlstate"]) for each in answers] == [("a", sqlstate), ("b", sqlstate)]
    assert sql.one("select count(*) from promise") == 0


@pytest.mark.parametrize(
    ("args", "sqlstate"),
    [
        ("text", "TR002"),
        (7, "TR002"),
        ({"text": BRIM["text"] + "x"}, "TR003"),
        (json.loads("[" * 101 + "]" * 101), "TR004"),
    ],
    ids=("text", "number", "large", "deep"),
)
def test_arguments_that_cannot_be_refuse_one(sql: Sql, args: Any, sqlstate: str) -> None:
    for at in (0, 1):
        ids = [f"bad-{at}", f"good-{at}"]
        given: list[Any] = [args, BRIM]
        if at:
            ids, given = ids[::-1], given[::-1]
        (answer,) = sql.start_each("f", ids, given)
        assert (answer["id"], answer["sqlstate"]) == (f"bad-{at}", sqlstate)
    assert sql.one("select count(*) from task") == 2


def test_json_null_headers_are_none(sql: Sql) -> None:
    answers = sql.start_each("f", ["a", "b"], [{}, "text"], headers=Jsonb(None))
    assert [(each["id"], each["answer"]) for each in answers] == [("b", "refused")]


@pytest.mark.parametrize(
    ("ids", "args", "digests"),
    [(["a"], [], None), (["a"], {}, None), (["a"], None, None), (None, [], None), (["a"], [[]], [])],
)
def test_as_many_arguments_as_ids(sql: Sql, ids: Any, args: Any, digests: Any) -> None:
    assert refused(lambda: sql.start_each("f", ids, args, digests=digests))[0] == "TR002"


def test_no_more_than_the_limit_in_one_call(sql: Sql) -> None:
    assert sql.start_each("f", [], []) == []
    many = [f"w-{n}" for n in range(10_001)]
    assert refused(lambda: sql.start_each("f", many, [[]] * 10_001))[0] == "TR030"
    assert sql.start_each("f", many[1:], [[]] * 10_000) == []
    assert sql.one("select count(*) from task") == 10_000


def test_a_queue_that_is_not_said_is_the_functions(sql: Sql) -> None:
    sql.register([{"name": "f", "version": 1, "queue": "old"}, {"name": "f", "version": 2, "queue": "mail"}])
    sql.start_each("f", ["a"], [[]])
    assert sql.query("select p.queue as promise, t.queue as task from promise p join task t using (id)") == [
        {"promise": "mail", "task": "mail"}
    ]


def test_it_waits_for_a_start_under_way_and_attaches_to_what_that_left(
    sql: Sql, another: Callable[..., Sql]
) -> None:
    starter, other = another(), another()
    with ThreadPoolExecutor(1) as pool:
        with starter.connection.transaction():
            starter.start("b", "f")
            waiting = pool.submit(other.start_each, "f", ["a", "b", "c"], [[], [], []])
            until_blocked(sql)
        (answer,) = waiting.result(60)
    assert (answer["id"], answer["answer"]) == ("b", "attached")
    assert sql.one("select count(*) from task") == 3
