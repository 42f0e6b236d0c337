"""S7: whatever is sent as an ID is taken byte for byte, or refused."""

from __future__ import annotations

from urllib.parse import quote

import httpx
import pytest

from tests.api.problems import problem

EVERY_CHARACTER = "aZ09-._~:@!$&'()*+,;="


@pytest.mark.parametrize(
    "promise_id",
    [EVERY_CHARACTER, "a", "...", "~", "x" * 255, "a+b", "'; drop table promise; --".replace(" ", "")],
)
@pytest.mark.parametrize("safe", [EVERY_CHARACTER, ""])
async def test_s07_an_id_round_trips_byte_for_byte(
    api: httpx.AsyncClient, promise_id: str, safe: str
) -> None:
    made = await api.post("/promises", json={"id": promise_id})
    assert made.status_code == 201
    assert made.headers["location"] == f"/promises/{promise_id}"
    path = f"/promises/{quote(promise_id, safe=safe)}"
    assert (await api.get(path)).json()["id"] == promise_id
    assert (await api.post(f"{path}/resolve", json={"value": promise_id})).json()["value"] == promise_id
    assert (await api.get(f"/workflows/{quote(promise_id, safe=safe)}/tree")).json()["items"][0][
        "id"
    ] == promise_id
    assert (await api.get("/promises", params={"prefix": promise_id})).json()["items"][0]["id"] == promise_id


BAD = [
    "",
    ".",
    "..",
    "a/b",
    "a%b",
    "a b",
    " a",
    "a\n",
    "a\0b",
    "😀",
    "مرحبا",
    "é",
    'a"b',
    "a\\b",
    "a?b",
    "a#b",
    "x" * 1024,
]


async def test_s07_an_id_that_cannot_be_is_refused_in_a_body(
    api: httpx.AsyncClient, subtests: pytest.Subtests
) -> None:
    for promise_id in BAD:
        with subtests.test(promise_id=promise_id):
            for path in ("/promises", "/workflows/approve"):
                answer = await api.post(path, json={"id": promise_id})
                problem(answer, 400, "invalid_payload" if "\0" in promise_id else "invalid_id")


async def test_an_id_to_start_leaves_room_for_what_the_workflow_makes(
    api: httpx.AsyncClient, subtests: pytest.Subtests
) -> None:
    for promise_id in ["a~b", "x" * 129]:
        with subtests.test(promise_id=promise_id):
            problem(await api.post("/workflows/approve", json={"id": promise_id}), 400, "invalid_id")


async def test_an_id_that_cannot_be_names_nothing_in_a_path(
    api: httpx.AsyncClient, subtests: pytest.Subtests
) -> None:
    for promise_id in [
        *(quote(each).replace(".", "%2E") for each in BAD),
        "%FF",
        "%C3%28",
        "%2F",
        "%2f%2f",
        "a%00",
    ]:
        with subtests.test(promise_id=promise_id):
            for path in (
                f"/promises/{promise_id}",
                f"/workflows/{promise_id}/tree",
                f"/workflows/{promise_id}/journal",
            ):
                answer = await api.get(path)
                assert answer.status_code in {404, 405}, (path, answer.text)
                assert answer.headers["content-type"] == "application/problem+json"
            for verb, body in (("resolve", {"value": 1}), ("reject", {"reason": "x"}), ("cancel", {})):
                answer = await api.post(f"/promises/{promise_id}/{verb}", json=body)
                assert answer.status_code in {404, 405}, answer.text
                assert answer.headers["content-type"] == "application/problem+json"
