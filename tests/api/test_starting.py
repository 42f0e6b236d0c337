"""POST /workflows/{name}: a start is idempotent by ID, and can wait for the end."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import psycopg
import pytest

from tests.api.acting import Acting
from tests.api.problems import problem


async def test_a_start_is_created_once_and_then_attached_to(
    api: httpx.AsyncClient, db: psycopg.Connection[Any]
) -> None:
    first = await api.post("/workflows/approve", json={"id": "order-42", "args": {"order": "x"}})
    again = await api.post(
        "/workflows/approve", json={"id": "order-42", "args": {"order": "x"}, "queue": "other"}
    )
    assert (first.status_code, first.json()["answer"]) == (201, "created")
    assert first.headers["location"] == "/promises/order-42"
    assert (again.status_code, again.json()["answer"]) == (200, "attached")
    assert again.json() == first.json() | {"answer": "attached"}
    assert first.json()["state"] == "pending"
    assert first.json()["args"] == {"order": "x"}
    assert db.execute("select count(*) from task").fetchone() == (1,)


async def test_s01_twenty_starts_at_once_make_one_workflow(api: httpx.AsyncClient, acting: Acting) -> None:
    answers = await asyncio.gather(*(api.post("/workflows/approve", json={"id": "once"}) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert acting.run("approve") == ["once"]


@pytest.mark.parametrize(
    ("name", "args"), [("approve", {"order": "y"}), ("other", {"order": "x"}), ("approve", ["x"])]
)
async def test_s02_an_id_of_something_else_is_a_conflict_that_shows_it(
    api: httpx.AsyncClient, db: psycopg.Connection[Any], name: str, args: object
) -> None:
    await api.post("/workflows/approve", json={"id": "order-42", "args": {"order": "x"}})
    document = problem(
        await api.post(f"/workflows/{name}", json={"id": "order-42", "args": args}), 409, "id_conflict"
    )
    assert document["sqlstate"] == "TR010"
    assert '"on_conflict": "attach"' in document["hint"]
    assert document["promise"]["args"] == {"order": "x"}
    assert document["promise"]["function"] == "approve"
    assert db.execute("select count(*) from task").fetchone() == (1,)
    attached = await api.post(
        f"/workflows/{name}", json={"id": "order-42", "args": args, "on_conflict": "attach"}
    )
    assert (attached.status_code, attached.json()["function"]) == (200, "approve")


async def test_options_reach_the_workflow(api: httpx.AsyncClient) -> None:
    body = {
        "id": "o",
        "args": [1, 2],
        "queue": "slow",
        "delay": 60,
        "timeout": 90.5,
        "priority": -3,
        "tags": {"customer": "7"},
    }
    answer = (await api.post("/workflows/approve", json=body)).json()
    assert answer["queue"] == "slow"
    assert answer["task"]["state"] == "suspended"
    assert answer["task"]["priority"] == -3
    assert answer["tags"] == {"customer": "7"}
    assert answer["timeout_at"] > answer["created_at"]


async def test_a_start_can_wait_for_the_end(api: httpx.AsyncClient, acting: Acting) -> None:
    waiting = asyncio.create_task(api.post("/workflows/approve?wait=60", json={"id": "o"}))
    while not acting.run("approve", value={"answer": 42}):  # noqa: ASYNC110 — no event tells of the start
        await asyncio.sleep(0.02)
    answer = await waiting
    assert answer.status_code == 201
    assert answer.json()["state"] == "resolved"
    assert answer.json()["value"] == {"answer": 42}
    assert answer.json()["answer"] == "created"
    again = await api.post("/workflows/approve?wait=60", json={"id": "o"})
    assert again.status_code == 200
    assert again.json() == answer.json() | {"answer": "attached"}


async def test_a_wait_that_runs_out_answers_202_and_the_pending_workflow(api: httpx.AsyncClient) -> None:
    before = time.monotonic()
    answer = await api.post("/workflows/approve?wait=0.3", json={"id": "o"})
    assert time.monotonic() - before >= 0.3
    assert (answer.status_code, answer.json()["state"], answer.json()["answer"]) == (
        202,
        "pending",
        "created",
    )
    assert (await api.post("/workflows/approve?wait=0.1", json={"id": "o"})).status_code == 202


async def test_a_start_of_what_was_canceled_shows_that(api: httpx.AsyncClient) -> None:
    await api.post("/workflows/approve", json={"id": "o"})
    await api.post("/promises/o/cancel", json={"reason": "no"})
    answer = await api.post("/workflows/approve?wait=5", json={"id": "o"})
    assert (answer.status_code, answer.json()["state"]) == (200, "canceled")


UNSTARTABLE: list[object] = [
    {},
    {"id": 1},
    {"id": "o", "args": 3},
    {"id": "o", "args": "x"},
    {"id": "o", "delay": -1},
    {"id": "o", "delay": 1e300},
    {"id": "o", "timeout": 36501 * 86400},
    {"id": "o", "priority": 40000},
    {"id": "o", "priority": 2**70},
    {"id": "o", "tags": {"a": 1}},
    {"id": "o", "tags": {str(n): "x" for n in range(33)}},
    {"id": "o", "queue": "not a name"},
    {"id": "o", "on_conflict": "replace"},
    {"id": "o", "argz": {}},
    ["o"],
    None,
]


async def test_what_cannot_be_started_is_refused(
    api: httpx.AsyncClient, db: psycopg.Connection[Any], subtests: pytest.Subtests
) -> None:
    for body in UNSTARTABLE:
        with subtests.test(body=body):
            answer = await api.post(
                "/workflows/approve", content=json.dumps(body), headers={"content-type": "application/json"}
            )
            problem(answer, 400, "invalid_argument")
            assert db.execute("select count(*) from promise").fetchone() == (0,)


async def test_a_name_that_is_none_is_refused(api: httpx.AsyncClient, subtests: pytest.Subtests) -> None:
    for name in ["not%20a%20name", "42", "%00", "%F0%9F%98%80", "a~b", "x" * 101]:
        with subtests.test(name=name):
            assert (await api.post(f"/workflows/{name}", json={"id": "o"})).status_code == 400
