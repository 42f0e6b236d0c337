"""Looking at promises, and at what workflows made and were told."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.api.acting import Acting
from tests.api.problems import problem


async def test_a_get_can_wait_for_the_settlement(api: httpx.AsyncClient) -> None:
    await api.post("/promises", json={"id": "p"})
    waiting = [asyncio.create_task(api.get("/promises/p?wait=60")) for _ in range(5)]
    await asyncio.sleep(0.1)
    assert not any(each.done() for each in waiting)
    await api.post("/promises/p/resolve", json={"value": [1]})
    for answer in await asyncio.gather(*waiting):
        assert (answer.status_code, answer.json()["state"], answer.json()["value"]) == (200, "resolved", [1])


async def test_a_get_whose_time_runs_out_shows_what_is_pending(api: httpx.AsyncClient) -> None:
    await api.post("/promises", json={"id": "p"})
    answer = await api.get("/promises/p?wait=0.2")
    assert (answer.status_code, answer.json()["state"]) == (200, "pending")


async def test_a_wait_has_a_limit(api: httpx.AsyncClient, subtests: pytest.Subtests) -> None:
    for wait in ["61", "-1", "nan", "inf", "x", ""]:
        with subtests.test(wait=wait):
            await api.post("/promises", json={"id": "p"})
            problem(await api.get(f"/promises/p?wait={wait}"), 400, "invalid_argument")


async def test_promises_are_found_by_what_is_known_of_them(api: httpx.AsyncClient) -> None:
    await api.post("/workflows/approve", json={"id": "w", "queue": "slow", "tags": {"customer": "7:a"}})
    await api.post("/promises", json={"id": "p1", "tags": {"assignee": "mia", "customer": "7:a"}})
    await api.post("/promises", json={"id": "p2", "tags": {"assignee": "tom"}})
    await api.post("/promises/p2/resolve", json={"value": 1})
    for query, found in {
        "": ["p1", "p2", "w"],
        "state=pending": ["p1", "w"],
        "state=resolved": ["p2"],
        "queue=slow": ["w"],
        "function=approve": ["w"],
        "prefix=p": ["p1", "p2"],
        "latent=true": ["p1", "p2"],
        "latent=false": ["w"],
        "assignee=mia": ["p1"],
        "tag=assignee:mia": ["p1"],
        "tag=customer:7:a": ["p1", "w"],
        "tag=customer:7:a&tag=assignee:mia": ["p1"],
        "tag=customer:7:a&assignee=tom": [],
        "state=pending&latent=true": ["p1"],
    }.items():
        page = (await api.get(f"/promises?{query}")).json()
        assert ([item["id"] for item in page["items"]], page["next"]) == (found, None), query


async def test_a_search_that_cannot_be_is_refused(api: httpx.AsyncClient, subtests: pytest.Subtests) -> None:
    for query in [
        "state=open",
        "latent=maybe",
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=99999999999999999999",
        "cursor=%00",
        "cursor=a",
        "cursor=%F0%9F%98%80",
        "cursor=gA",
        "tag=alone",
        "tag=a:1&tag=a:2",
        "assignee=%00",
        "prefix=%00",
        "stat=pending",
        "%00=1",
    ]:
        with subtests.test(query=query):
            problem(await api.get(f"/promises?{query}"), 400, "invalid_argument")


async def test_a_search_for_what_cannot_be_finds_nothing(
    api: httpx.AsyncClient, subtests: pytest.Subtests
) -> None:
    for query in ["prefix=%F0%9F%98%80", "prefix=%FF", "queue='", "prefix=%25", "function=a%20b"]:
        with subtests.test(query=query):
            await api.post("/promises", json={"id": "p"})
            answer = await api.get(f"/promises?{query}")
            assert (answer.status_code, answer.json()) == (200, {"items": [], "next": None})


async def test_pages_follow_each_other_without_gap_or_overlap(api: httpx.AsyncClient) -> None:
    ids = [f"p&{n:02}+=" for n in range(25)]
    await asyncio.gather(*(api.post("/promises", json={"id": each}) for each in ids))
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 10}
    while True:
        page = (await api.get("/promises", params=query)).json()
        seen += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        assert page["next"].isascii()
        assert "&" not in page["next"]
        query["cursor"] = page["next"]
    assert seen == ids


async def test_a_tree_shows_what_a_workflow_made(api: httpx.AsyncClient, acting: Acting) -> None:
    await api.post("/workflows/approve", json={"id": "o"})
    await api.post("/workflows/approve", json={"id": "o2"})
    claimed = acting.claim("approve")
    acting.promise("o", *claimed["o"], "approval")
    tree = (await api.get("/workflows/o/tree")).json()
    assert [(item["id"], item["parent"]) for item in tree["items"]] == [("o", None), ("o~approval", "o")]
    assert tree["truncated"] is False
    short = (await api.get("/workflows/o/tree?limit=1")).json()
    assert ([item["id"] for item in short["items"]], short["truncated"]) == (["o"], True)
    problem(await api.get("/workflows/nope/tree"), 404, "unknown_promise")


async def test_a_journal_shows_what_a_workflow_was_told(api: httpx.AsyncClient, acting: Acting) -> None:
    await api.post("/workflows/approve", json={"id": "o"})
    ((task, (epoch, seen)),) = acting.claim("approve").items()
    for n in range(3):
        acting.step(task, epoch, seen + n, f"step:{n + 1}" if n else "step", {"n": n})
    whole = (await api.get("/workflows/o/journal")).json()
    assert [(entry["seq"], entry["operation"], entry["value"]) for entry in whole["items"]] == [
        (1, "step", {"n": 0}),
        (2, "step:2", {"n": 1}),
        (3, "step:3", {"n": 2}),
    ]
    assert whole["next"] is None
    page = (await api.get("/workflows/o/journal?from_seq=2&limit=1")).json()
    assert ([entry["seq"] for entry in page["items"]], page["next"]) == ([2], 3)
    assert (await api.get(f"/workflows/o/journal?from_seq={page['next']}")).json()["items"] == whole["items"][
        2:
    ]
    problem(await api.get("/workflows/nope/journal"), 404, "unknown_promise")
    for query in ("from_seq=0", "from_seq=99999999999", "limit=0", "limit=1001"):
        problem(await api.get(f"/workflows/o/journal?{query}"), 400, "invalid_argument")
