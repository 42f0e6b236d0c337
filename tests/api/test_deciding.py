"""Creating and settling latent promises: the first settlement wins, and everybody is told who won."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import psycopg
import pytest

from tests.api.acting import Acting
from tests.api.asking import asking
from tests.api.problems import problem
from troth import Troth
from troth.testing.clock import Clock
from troth_api import create_app


async def test_a_promise_is_created_once_and_then_attached_to(api: httpx.AsyncClient) -> None:
    body = {"id": "p", "timeout": 60, "default": {"a": None}, "tags": {"assignee": "mia"}, "title": "Buy it?"}
    first = await api.post("/promises", json=body)
    assert (first.status_code, first.json()["answer"]) == (201, "created")
    assert first.json()["latent"] is True
    assert first.json()["title"] == "Buy it?"
    again = await api.post("/promises", json={"id": "p"})
    assert (again.status_code, again.json()) == (200, first.json() | {"answer": "attached"})


async def test_a_promise_under_the_id_of_a_workflow_is_a_conflict(api: httpx.AsyncClient) -> None:
    await api.post("/workflows/approve", json={"id": "o"})
    document = problem(await api.post("/promises", json={"id": "o"}), 409, "id_conflict")
    assert document["promise"]["function"] == "approve"


async def test_a_default_comes_with_the_timeout(api: httpx.AsyncClient, clock: Clock) -> None:
    problem(await api.post("/promises", json={"id": "p", "default": 1}), 400, "invalid_argument")
    await api.post("/promises", json={"id": "p", "timeout": 60, "default": None})
    clock.advance(timedelta(seconds=61))
    document = (await api.get("/promises/p")).json()
    assert (document["state"], document["value"], document["settler"]) == ("resolved", None, "timeout")


async def test_s35_the_same_decision_again_is_a_success_and_the_same_answer(api: httpx.AsyncClient) -> None:
    await api.post("/promises", json={"id": "p"})
    decisions = [await api.post("/promises/p/resolve", json={"value": {"b": 1, "a": 2}}) for _ in range(3)]
    decisions.append(
        await api.post("/promises/p/resolve", content='{"value": {"a":2,\n "b": 1}}', headers=JSON)
    )
    assert [each.status_code for each in decisions] == [200] * 4
    assert [each.json()["answer"] for each in decisions] == ["settled", "already", "already", "already"]
    stored = (await api.get("/promises/p")).json()
    assert all({**stored, "answer": each.json()["answer"]} == each.json() for each in decisions)


JSON = {"content-type": "application/json"}


async def test_another_decision_is_a_conflict_that_shows_the_winner(api: httpx.AsyncClient) -> None:
    await api.post("/promises", json={"id": "p"})
    await api.post("/promises/p/resolve", json={"value": True})
    for verb, body in (
        ("resolve", {"value": False}),
        ("resolve", {"value": 1}),
        ("reject", {"reason": "no"}),
        ("cancel", {}),
    ):
        document = problem(await api.post(f"/promises/p/{verb}", json=body), 409, "already_settled")
        assert document["promise"]["state"] == "resolved"
        assert document["promise"]["value"] is True


async def test_s34_of_fifty_decisions_at_once_one_wins_and_all_agree(
    api: httpx.AsyncClient, dsn: str
) -> None:
    await api.post("/promises", json={"id": "p"})
    async with Troth(dsn) as second:
        other = asking(create_app(second))
        answers = await asyncio.gather(
            *((api, other)[n % 2].post("/promises/p/resolve", json={"value": n}) for n in range(50))
        )
        await other.aclose()
    won = [answer for answer in answers if answer.status_code == 200]
    lost = [answer for answer in answers if answer.status_code == 409]
    assert (len(won), len(lost)) == (1, 49)
    winner = won[0].json()["value"]
    assert {problem(answer, 409, "already_settled")["promise"]["value"] for answer in lost} == {winner}
    readers = await asyncio.gather(*(api.get("/promises/p") for _ in range(10)))
    assert {reader.json()["value"] for reader in readers} == {winner}


@pytest.mark.parametrize(
    ("body", "stored"),
    [
        ({"reason": "too dear"}, {"type": "Rejected", "message": "too dear"}),
        ({"error": {"message": "too dear"}}, {"type": "Rejected", "message": "too dear"}),
        (
            {"error": {"type": "TooDear", "message": "m", "data": {"price": 3}}},
            {"type": "TooDear", "message": "m", "data": {"price": 3}},
        ),
        ({"error": {"message": "m", "data": None}}, {"type": "Rejected", "message": "m", "data": None}),
    ],
)
async def test_s39_a_rejection_has_an_error_or_a_reason(
    api: httpx.AsyncClient, body: object, stored: object
) -> None:
    await api.post("/promises", json={"id": "p"})
    first = await api.post("/promises/p/reject", json=body)
    assert (first.status_code, first.json()["state"], first.json()["error"]) == (200, "rejected", stored)
    again = await api.post("/promises/p/reject", json=body)
    assert (again.status_code, again.json()["answer"]) == (200, "already")
    problem(await api.post("/promises/p/reject", json={"reason": "another"}), 409, "already_settled")


async def test_a_rejection_is_the_same_as_the_one_of_a_client_in_python(
    api: httpx.AsyncClient, troth: Troth
) -> None:
    await api.post("/promises", json={"id": "p"})
    await api.post("/promises/p/reject", json={"reason": "no"})
    assert (await troth.reject("p", "no")).answer == "already"


async def test_a_rejection_that_says_nothing_or_two_things_is_refused(
    api: httpx.AsyncClient, subtests: pytest.Subtests
) -> None:
    for body in [
        {},
        {"reason": "a", "error": {"message": "b"}},
        {"error": "b"},
        {"error": {}},
        {"reason": 1},
    ]:
        with subtests.test(body=body):
            await api.post("/promises", json={"id": "p"})
            problem(await api.post("/promises/p/reject", json=body), 400, "invalid_argument")
            assert (await api.get("/promises/p")).json()["state"] == "pending"


async def test_s36_a_late_decision_is_told_that_time_ran_out(
    api: httpx.AsyncClient, clock: Clock, acting: Acting, db: psycopg.Connection[Any]
) -> None:
    await api.post("/promises", json={"id": "p", "timeout": 60})
    await api.post("/workflows/approve", json={"id": "o", "timeout": 60})
    clock.advance(timedelta(seconds=61))
    for verb, body in (("resolve", {"value": 1}), ("reject", {"reason": "x"}), ("cancel", {})):
        document = problem(await api.post(f"/promises/p/{verb}", json=body), 409, "promise_timed_out")
        assert document["promise"]["state"] == "timedout"
    db.execute("select tick()")
    assert acting.claim("approve") == {}
    assert (await api.get("/promises/o")).json()["state"] == "timedout"
    problem(await api.post("/promises/o/cancel", json={}), 409, "promise_timed_out")


async def test_a_workflow_settles_itself(api: httpx.AsyncClient, acting: Acting) -> None:
    await api.post("/workflows/approve", json={"id": "o"})
    document = problem(await api.post("/promises/o/resolve", json={"value": 1}), 409, "not_latent")
    assert document["promise"]["state"] == "pending"
    problem(await api.post("/promises/o/reject", json={"reason": "x"}), 409, "not_latent")
    assert acting.run("approve", value="done") == ["o"]
    assert (await api.get("/promises/o")).json()["value"] == "done"


async def test_a_cancel_settles_asks_or_comes_too_late(api: httpx.AsyncClient, acting: Acting) -> None:
    for name in ("fresh", "begun", "ended"):
        await api.post(f"/workflows/{name}", json={"id": name})
    await api.post("/promises", json={"id": "latent"})
    ((task, (epoch, seen)),) = acting.claim("begun").items()
    acting.run("ended", value=1)

    for promise_id in ("latent", "fresh"):
        first = await api.post(f"/promises/{promise_id}/cancel", json={"reason": "enough"})
        assert (first.status_code, first.json()["state"]) == (200, "canceled")
        assert first.json()["error"]["message"] == "enough"
    requested = await api.post("/promises/begun/cancel", content="", headers=JSON)
    assert (requested.status_code, requested.json()["answer"]) == (202, "requested")
    assert requested.json()["state"] == "pending"
    assert (await api.post("/promises/begun/cancel", json={})).status_code == 202
    problem(await api.post("/promises/ended/cancel", json={}), 409, "already_settled")
    assert acting.claim("fresh") == {}
    del task, epoch, seen


async def test_s38_a_decision_after_the_end_changes_nothing(api: httpx.AsyncClient, acting: Acting) -> None:
    await api.post("/workflows/approve", json={"id": "o"})
    ((task, (epoch, seen)),) = acting.claim("approve").items()
    acting.promise(task, epoch, seen, "approval")
    assert (await api.post("/promises/o~approval/resolve", json={"value": True})).status_code == 200
    assert acting.run("approve", value="approved") == ["o"]
    after = (await api.get("/promises/o")).json()
    assert (await api.post("/promises/o~approval/resolve", json={"value": True})).status_code == 200
    problem(await api.post("/promises/o~approval/resolve", json={"value": False}), 409, "already_settled")
    problem(await api.post("/promises/o/resolve", json={"value": "other"}), 409, "not_latent")
    assert (await api.get("/promises/o")).json() == after
    assert acting.claim("approve") == {}


async def test_a_promise_of_a_canceled_workflow_does_not_wake_it(
    api: httpx.AsyncClient, acting: Acting, db: psycopg.Connection[Any]
) -> None:
    await api.post("/workflows/approve", json={"id": "o"})
    ((task, (epoch, seen)),) = acting.claim("approve").items()
    acting.promise(task, epoch, seen, "approval")
    await api.post("/promises/o/cancel", json={})
    ((task, (epoch, seen)),) = acting.claim("approve").items()
    acting.finish(task, epoch, seen, state="canceled", error={"type": "canceled", "message": "canceled"})
    db.execute("select tick()")
    answer = await api.post("/promises/o~approval/resolve", json={"value": True})
    assert problem(answer, 409, "already_settled")["promise"]["state"] == "canceled"
    assert acting.claim("approve") == {}
    assert (await api.get("/promises/o")).json()["state"] == "canceled"


async def test_s40_an_unknown_id_is_not_found(api: httpx.AsyncClient, subtests: pytest.Subtests) -> None:
    for verb, body in [("resolve", {"value": 1}), ("reject", {"reason": "x"}), ("cancel", {})]:
        with subtests.test(verb=verb, body=body):
            problem(await api.post(f"/promises/nope/{verb}", json=body), 404, "unknown_promise")


async def test_a_promise_of_another_namespace_is_as_unknown_as_any(
    dsn: str, two_namespaces: tuple[str, str]
) -> None:
    answers: list[str] = []
    async with Troth(dsn, schema=two_namespaces[0]) as first, Troth(dsn, schema=two_namespaces[1]) as second:
        await first.create_promise(bool, "theirs")
        async with asking(create_app(second)) as api:
            for promise_id in ("theirs", "nobody"):
                document = problem(await api.get(f"/promises/{promise_id}"), 404, "unknown_promise")
                answers.append(str(document).replace(promise_id, "*"))
    assert answers[0] == answers[1]
