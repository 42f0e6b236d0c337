"""start_together: starts of several callers in one call, none of whom waits long for another one's ID."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.support.sql import Sql, refused


def test_each_is_answered_in_turn_and_shown_if_it_is_to_be(sql: Sql) -> None:
    sql.start("same", "f", [1])
    sql.start("other", "g", [1])
    ids = ["z", "same", "a", "no~id", "other", "z"]
    answers = sql.start_together(
        [{"id": id, "function": "f", "args": [1]} for id in ids], ["a", "same", "unknown"]
    )
    assert [(each["id"], each["answer"]) for each in answers] == [
        ("z", "created"),
        ("same", "attached"),
        ("a", "created"),
        ("no~id", "refused"),
        ("other", "conflict"),
        ("z", "attached"),
    ]
    assert answers[0] == {"id": "z", "answer": "created"}
    assert answers[1:3] == [
        sql.get([id])[0] | {"answer": answer} for id, answer in (("same", "attached"), ("a", "created"))
    ]
    assert (answers[3]["sqlstate"], answers[4]["function"]) == ("TR001", "g")
    assert sql.start_together([], ["a"]) == []


def test_what_it_shows_is_what_start_shows(sql: Sql) -> None:
    options: dict[str, Any] = {
        "queue": "mail",
        "priority": -3,
        "tags": {"customer": "7"},
        "headers": {"codec": "aes"},
    }
    spans = {"delay": 3600, "timeout": 0}
    alone = sql.start(
        "a", "f", "sealed", digest=b"12", **options, **{key: timedelta(seconds=n) for key, n in spans.items()}
    )
    item = {"id": "b", "function": "f", "args": "sealed", "digest": b"12".hex(), **options, **spans}
    (together,) = sql.start_together([item], ["b"])
    instants = {"created_at", "timeout_at"}
    assert together["created_at"] == together["timeout_at"]
    assert {key: together[key] for key in alone.keys() - instants} == {
        key: alone[key] for key in alone.keys() - instants
    } | {"id": "b"}
    assert together.keys() == alone.keys()


def test_an_id_that_somebody_holds_ends_the_call_soon(sql: Sql, another: Callable[..., Sql]) -> None:
    holder, other = another(), another()
    other.query("set statement_timeout = '10s'")
    items = [{"id": id, "function": "f"} for id in ("a", "b", "c")]
    with holder.connection.transaction():
        holder.start("b", "f")
        assert refused(lambda: other.start_together(items))[0] == "55P03"
        assert sql.one("select count(*) from promise") == 0
    assert other.one("show lock_timeout") == "0"
    assert [each["answer"] for each in other.start_together(items)] == ["created", "attached", "created"]


@pytest.mark.parametrize(("items", "sqlstate"), [(None, "TR002"), ({}, "TR002"), ([{}] * 10_001, "TR030")])
def test_what_is_no_batch_is_refused(sql: Sql, items: Any, sqlstate: str) -> None:
    assert refused(lambda: sql.start_together(items))[0] == sqlstate
