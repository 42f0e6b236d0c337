"""Histories of clients side by side, over SQL and over HTTP, are those of one promise after another (linearizability)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import psycopg
import pytest

from tests.api.serving import serving
from tests.proof.histories.clients import Client, HttpClient, SqlClient
from tests.proof.histories.recording import Refuted, check
from tests.proof.model.changing import change

HISTORIES = int(os.environ.get("TROTH_HISTORIES", "240"))
SHARES = max(4, HISTORIES // 60)
"""So that no test is long, however many histories there are."""
WRONG_MAX = 400
"""How many histories a wrong engine is given to show itself."""

Make = Callable[[int, int], list[Client]]


@pytest.fixture
def clients(dsn: str) -> Iterator[Make]:
    """So many clients over SQL, so many over HTTP (of two API processes)."""
    with ExitStack() as stack:

        def make(over_sql: int, over_http: int) -> list[Client]:
            urls = [stack.enter_context(serving("--dsn", dsn)).url for _ in range(min(over_http, 2))]
            made: list[Client] = [SqlClient(dsn) for _ in range(over_sql)]
            made += [HttpClient(urls[n % 2]) for n in range(over_http)]
            for each in made:
                stack.enter_context(closing(each))
            return made

        yield make


def _seeds(share: int) -> range:
    return range(share * HISTORIES // SHARES, (share + 1) * HISTORIES // SHARES)


def _met(reached: Counter[str]) -> None:
    """What must have happened for the histories to mean something."""
    wanted = (
        "create created",
        "resolve settled",
        "resolve conflict",
        "get get",
        "cancel settled",
        "seen timedout",
        "lost",
    )
    assert not [each for each in wanted if reached[each] == 0], reached
    assert reached["side by side"] > reached["histories"]


@pytest.mark.parametrize("share", range(SHARES))
def test_histories_over_sql(clients: Make, share: int) -> None:
    _met(check(clients(4, 0), _seeds(share)))


@pytest.mark.parametrize("share", range(SHARES))
def test_histories_over_sql_and_http(clients: Make, share: int) -> None:
    _met(check(clients(2, 2), _seeds(share)))


STALE = """select case when random() < 0.5 then _document(p, t, _clock())
  else _document(p, t, _clock()) - '{value,error}'::text[] || '{"state": "pending"}' end"""
OVERWRITTEN = """else
    update promise set value = v_payload where id = v_promise.id and state = 'resolved' and v_payload is not null;
    v_answer := 'conflict';"""
WRONG = {
    "a stale read": [("get", "select _document(p, t, _clock())", STALE)],
    "a lost settlement": [("_settle", "where p.id = s.id and", "where random() < 0.7 and p.id = s.id and")],
    "two winners": [
        ("_decide", "elsif v_promise.state = 'pending' then", "elsif v_promise.state <> 'canceled' then"),
        ("_settle_latent", "and p.state = 'pending'", "and p.state <> 'canceled'"),
    ],
    "a settlement after the timeout": [
        ("_catch_up", "if (p_promise).expires_at <= p_now then", "if false then")
    ],
    "an answer that goes back": [("_decide", "else\n    v_answer := 'conflict';", OVERWRITTEN)],
    "a twin": [
        ("_attach", "when _is_same_start(v_promise, p_function, p_args, p_digest) then", "when true then")
    ],
}


@pytest.mark.broken_on_purpose("wrong engines")
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_engine_is_refuted(db: psycopg.Connection[Any], clients: Make, wrong: str) -> None:
    for edit in WRONG[wrong]:
        change(db, *edit)
    made = clients(4, 0)
    with pytest.raises(Refuted, match="no order of these calls explains"):
        check(made, range(WRONG_MAX))
