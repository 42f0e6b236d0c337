"""What operators do over HTTP: fork, settle a step by hand, end by force, export."""

from __future__ import annotations

from typing import Any

import httpx
import psycopg
import pytest

from tests.api.acting import Acting
from tests.api.problems import problem
from troth import Troth


@pytest.fixture
async def begun(api: httpx.AsyncClient, acting: Acting) -> tuple[str, int, int]:
    """A workflow that is claimed, with two steps behind it: as `advance` takes it."""
    await api.post("/workflows/approve", json={"id": "o", "args": {"n": 1}})
    ((task, (epoch, seen)),) = acting.claim("approve").items()
    acting.step(task, epoch, seen, "charge", {"n": 1})
    acting.step(task, epoch, seen + 1, "2~ship:2", None)
    return task, epoch, seen + 2


async def test_s61_a_workflow_is_forked(
    api: httpx.AsyncClient, begun: tuple[str, int, int], acting: Acting
) -> None:
    first = await api.post(
        "/workflows/o/fork", json={"id": "o-2", "before": "2~ship:2", "reason": "too early"}
    )
    assert (first.status_code, first.headers["location"]) == (201, "/promises/o-2")
    assert (first.json()["answer"], first.json()["args"], first.json()["task"]["last_seq"]) == (
        "created",
        {"n": 1},
        1,
    )
    again = await api.post("/workflows/o/fork", json={"id": "o-2", "before": "2~ship:2"})
    assert (again.status_code, again.json()["answer"]) == (200, "attached")
    journal = (await api.get("/workflows/o-2/journal")).json()
    assert [each["operation"] for each in journal["items"]] == ["charge"]
    ((task, (epoch, seen)),) = acting.claim("approve").items()
    assert (task, epoch, seen) == ("o-2", 2, 1)
    other = await api.post("/workflows/o/fork", json={"id": "o-3", "version": 2})
    assert (other.json()["version"], other.json()["task"]["last_seq"]) == (2, 2)


async def test_a_fork_that_cannot_be(
    api: httpx.AsyncClient, begun: tuple[str, int, int], subtests: pytest.Subtests
) -> None:
    await api.post("/promises", json={"id": "latent"})
    await api.post("/workflows/approve", json={"id": "taken"})
    for path, body, status, kind in [
        ("nope", {"id": "x"}, 404, "unknown_promise"),
        ("latent", {"id": "x"}, 409, "wrong_state"),
        ("o", {"id": "taken"}, 409, "id_conflict"),
        ("o", {"id": "x", "before": "nothing"}, 400, "invalid_argument"),
        ("o", {"id": "x~y"}, 400, "invalid_id"),
        ("o", {"id": "x", "version": 0}, 400, "invalid_argument"),
        ("o", {"id": "x", "befor": "charge"}, 400, "invalid_argument"),
        ("o", {}, 400, "invalid_argument"),
    ]:
        with subtests.test(path=path, body=body):
            document = problem(await api.post(f"/workflows/{path}/fork", json=body), status, kind)
            assert kind != "id_conflict" or document["promise"]["id"] == "taken"
            problem(await api.get("/promises/x"), 404, "unknown_promise")
    unknown = (await api.post("/workflows/o/fork", json={"id": "x", "before": "nothing"})).json()
    assert "charge, 2~ship:2" in unknown["detail"]


@pytest.mark.parametrize("operation", ["stuck", "stuck:2", "2~branch~stuck:2"])
async def test_s62_a_step_is_settled_by_hand(
    api: httpx.AsyncClient, begun: tuple[str, int, int], operation: str, db: psycopg.Connection[Any]
) -> None:
    path = f"/workflows/o/steps/{operation}/settle"
    first = await api.post(path, json={"value": {"n": None}, "reason": "the bank called"})
    assert (first.status_code, first.json()["answer"], first.json()["id"]) == (200, "recorded", "o")
    assert (await api.post(path, json={"value": {"n": None}})).json()["answer"] == "already"
    problem(await api.post(path, json={"value": 2}), 409, "step_already_settled")
    (entry,) = (await api.get("/workflows/o/journal?from_seq=3")).json()["items"]
    assert (entry["operation"], entry["value"], entry["state"]) == (operation, {"n": None}, "resolved")
    assert db.execute("select detail ->> 'reason' from audit").fetchall() == [("the bank called",)]


async def test_a_step_may_fail_by_hand(api: httpx.AsyncClient, begun: tuple[str, int, int]) -> None:
    error = {"type": "Stuck", "message": "m", "data": [1]}
    await api.post("/workflows/o/steps/stuck/settle", json={"error": error})
    (entry,) = (await api.get("/workflows/o/journal?from_seq=3")).json()["items"]
    assert (entry["state"], entry["error"]) == ("rejected", error)


async def test_what_cannot_be_settled_so(
    api: httpx.AsyncClient, begun: tuple[str, int, int], acting: Acting, subtests: pytest.Subtests
) -> None:
    await api.post("/promises", json={"id": "latent"})
    for name in ("fresh", "waiting", "ended"):
        await api.post(f"/workflows/{name}", json={"id": name})
    acting.promise("waiting", *acting.claim("waiting")["waiting"], "approval")
    acting.run("ended", value=1)
    for path, body, status, kind in [
        ("nope/steps/s", {"value": 1}, 404, "unknown_promise"),
        ("latent/steps/s", {"value": 1}, 409, "not_a_workflow"),
        ("ended/steps/s", {"value": 1}, 409, "already_settled"),
        ("fresh/steps/s", {"value": 1}, 409, "wrong_state"),
        ("waiting/steps/approval", {"value": 1}, 409, "not_a_step"),
        ("o/steps/charge", {"value": 2}, 409, "step_already_settled"),
        ("o/steps/~cancel", {"value": 1}, 400, "invalid_argument"),
        ("o/steps/s", {}, 400, "invalid_argument"),
        ("o/steps/s", {"value": 1, "error": {"message": "x"}}, 400, "invalid_argument"),
        ("o/steps/s", {"error": "x"}, 400, "invalid_argument"),
    ]:
        with subtests.test(path=path, body=body):
            problem(await api.post(f"/workflows/{path}/settle", json=body), status, kind)
    assert len((await api.get("/workflows/o/journal")).json()["items"]) == 2


async def test_s57_a_workflow_is_ended_by_force(
    api: httpx.AsyncClient, begun: tuple[str, int, int], db: psycopg.Connection[Any]
) -> None:
    assert (await api.post("/promises/o/cancel", json={"reason": "enough"})).status_code == 202
    forced = await api.post("/promises/o/cancel", json={"reason": "now", "force": True})
    assert (forced.status_code, forced.json()["answer"], forced.json()["state"]) == (
        200,
        "settled",
        "canceled",
    )
    assert forced.json()["error"]["message"] == "now"
    assert db.execute("select verb from audit order by at").fetchall() == [("cancel",), ("cancel_force",)]
    problem(await api.post("/promises/o/cancel", json={"force": "yes"}), 400, "invalid_argument")


async def test_a_workflow_is_taken_along_as_a_document(
    api: httpx.AsyncClient, begun: tuple[str, int, int], troth: Troth
) -> None:
    answer = await api.get("/workflows/o/export")
    document = answer.json()
    assert (document["format"], document["record"]["id"], document["record"]["last_seq"]) == (1, "o", 2)
    assert [each["operation"] for each in document["journal"]] == ["charge", "2~ship:2"]
    imported = await troth.import_journal(answer.content, "copy")
    assert (await imported.status()).state == "pending"
    copied = (await api.get("/workflows/copy/export")).json()
    assert copied["record"]["args"] == {"n": 1}
    await api.post("/workflows/fresh", json={"id": "fresh"})
    problem(await api.get("/workflows/fresh/export"), 409, "wrong_state")
    problem(await api.get("/workflows/nope/export"), 404, "unknown_promise")
