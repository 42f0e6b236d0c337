"""That chaos would see what it looks for: each check of the ledger has a violator. The storm itself is `make chaos`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.proof.chaos.clients import Book
from tests.proof.chaos.ledger import CHECKS, NOTE, TABLES, broken_promises
from tests.support.sql import Sql, Worker, step, turn
from troth.testing.clock import Clock

Connection = psycopg.Connection[Any]


@pytest.fixture
def book_keeping(db: Connection) -> Sql:
    """A workflow `a` with a recorded plain step `work` and a recorded transactional one `book`, and a ledger that says so."""
    db.execute(TABLES)
    sql = Sql(db)
    worker = Worker(sql)
    sql.start("a", "f", {})
    worker.claim()
    for operation, kind in (("work", "plain"), ("book", "transaction")):
        noted(sql, f"call of {operation}", kind, operation)
    values = {
        name: said(f"call of {name}", kind) for name, kind in (("work", "plain"), ("book", "transaction"))
    }
    worker.advance(turn("a", 1, 0), outcomes=[step("a", name, value=value) for name, value in values.items()])
    assert broken_promises(db) == []
    return sql


def said(call: str, kind: str) -> dict[str, object]:
    return {"value": 1, "call": call, "kind": kind}


def noted(sql: Sql, call: str, kind: str, operation: str, worker: str = "w1") -> None:
    """A row of the ledger, as a call of a step writes it."""
    text = NOTE
    for number in range(6, 0, -1):
        text = text.replace(f"${number}", f"%({number})s")
    values = dict(zip("123456", (call, kind, "a", operation, 1, worker), strict=True))
    sql.connection.execute(text.encode(), values)


def test_the_ledger_is_in_the_right(book_keeping: Sql) -> None:
    noted(book_keeping, "a zombie's", "plain", "work", worker="unknown")
    assert broken_promises(book_keeping.connection) == []


def test_who_is_marked_dead_holds_what_was_locked_then(
    book_keeping: Sql, connect: Callable[..., Connection], clock: Clock
) -> None:
    """A transaction of the same worker had the row while the dead were gone through: its fence holds until it is given on."""
    sql, other = book_keeping, connect()
    with other.transaction():
        other.execute("select from troth.task where id = 'a' for no key update")
        clock.advance(timedelta(minutes=1))
        assert sql.tick()["workers"] == 0
    assert sql.connection.execute(
        "select died_at is not null from troth.worker where id = 'w1'"
    ).fetchone() == (True,)
    noted(sql, "late", "plain", "late")
    said_late = step("a", "late", value=said("late", "plain"))
    assert Worker(sql).advance(turn("a", 1, 2), outcomes=[said_late])["a"]["answer"] == "ok"
    assert broken_promises(sql.connection) == []
    assert sql.tick()["workers"] == 1


@pytest.mark.parametrize(
    ("what", "crime"),
    [
        ("a transactional step has other than one row", "delete from chaos.call where operation = 'book'"),
        (
            "a transaction landed whose step is not recorded with it",
            "update chaos.call set call = 'x' where operation = 'book'",
        ),
        ("a recorded outcome was brought by no call", "delete from chaos.call where operation = 'work'"),
        (
            "an outcome was recorded that no call of that claim had brought",
            "update chaos.call set holder = 'w2'",
        ),
        (
            "an outcome was recorded that no call of that claim had brought",
            "update chaos.call set epoch = 2",
        ),
        (
            "a step failed that must not",
            "update troth.checkpoint set state = 'rejected', error = '{\"type\": \"ValueError\"}' where operation = 'work'",
        ),
    ],
)
def test_the_ledger_tells(book_keeping: Sql, what: str, crime: str) -> None:
    db = book_keeping.connection
    with db.transaction(force_rollback=True):
        db.execute(crime.encode())
        assert what in {each.partition(":")[0] for each in broken_promises(db)}
    assert what in CHECKS


@pytest.mark.parametrize(
    ("kind", "operation", "what"),
    [
        ("plain", "work", "a recorded step ran again"),
        ("transaction", "book", "a transactional step has other than one row"),
        ("transaction", "nothing", "a transaction landed whose step is not recorded with it"),
    ],
)
def test_the_ledger_tells_of_a_call_too_many(book_keeping: Sql, kind: str, operation: str, what: str) -> None:
    noted(book_keeping, "one more", kind, operation)
    assert what in {each.partition(":")[0] for each in broken_promises(book_keeping.connection)}


def test_a_book_remembers_what_was_acknowledged() -> None:
    book = Book()
    book.settles("p", "resolved 1")
    book.settles("p", "resolved 1")
    assert book.contradicted == []
    book.settles("p", "resolved 2")
    assert book.contradicted == ["p was said to be resolved 1, and then to be resolved 2"]
