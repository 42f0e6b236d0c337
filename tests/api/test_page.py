"""The page of a promise: it shows and explains, and changes nothing."""

from __future__ import annotations

import re
import subprocess
from datetime import timedelta
from html import unescape
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.types.json import Jsonb

from troth.testing.clock import Clock

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


async def page(api: httpx.AsyncClient, promise_id: str) -> str:
    answer = await api.get(f"/promises/{promise_id}", headers=BROWSER)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["vary"] == "Accept"
    return answer.text


async def test_programs_get_json(api: httpx.AsyncClient, subtests: pytest.Subtests) -> None:
    for accept in ["*/*", "application/json", "application/*", "", "text/plain", "image/png"]:
        with subtests.test(accept=accept):
            await api.post("/promises", json={"id": "p"})
            answer = await api.get("/promises/p", headers={"accept": accept})
            assert answer.headers["content-type"] == "application/json"


async def test_a_browser_is_shown_how_to_decide(api: httpx.AsyncClient) -> None:
    await api.post("/promises", json={"id": "order-42~approval", "title": "Approve order 42?"})
    text = unescape(await page(api, "order-42~approval"))
    assert "Approve order 42?" in text
    assert "pending" in text
    place = "http://localhost:8000/promises/order-42~approval"
    assert f"""curl --json '{{"value": true}}' '{place}/resolve'""" in text
    assert f"POST {place}/resolve" in text
    assert "select troth.resolve('order-42~approval', 'true');" in text


async def test_the_page_changes_nothing_and_has_nothing_that_could(
    api: httpx.AsyncClient, db: psycopg.Connection[Any]
) -> None:
    await api.post("/promises", json={"id": "p"})
    before = db.execute("select p::text from promise p").fetchall()
    for _ in range(3):
        text = await page(api, "p")
        assert not re.search(r"<(form|script|button|iframe|img)", text)
    assert db.execute("select p::text from promise p").fetchall() == before


async def test_the_lines_can_be_pasted_whatever_the_id(
    api: httpx.AsyncClient, db: psycopg.Connection[Any]
) -> None:
    promise_id = "a'b$(c);d&e!f*~"
    await api.post("/promises", json={"id": promise_id})
    text = unescape(await page(api, promise_id))
    (curl,) = re.findall(r"curl --json .*/resolve'", text)
    words = subprocess.run(  # noqa: ASYNC221 — it only prints
        ["sh", "-c", curl.replace("curl", "printf '%s\\n'", 1)], capture_output=True, text=True
    )
    assert words.stdout.splitlines() == [
        "--json",
        '{"value": true}',
        f"http://localhost:8000/promises/{promise_id}/resolve",
    ]
    (statement,) = re.findall(r"select troth\.resolve\(.*\);", text)
    db.execute(statement)
    assert (await api.get(f"/promises/{promise_id}")).json()["value"] is True


async def test_what_people_wrote_is_shown_and_never_run(api: httpx.AsyncClient) -> None:
    evil = '<script>alert("1")</script>\'"><img src=x onerror=alert(1)>'
    await api.post("/promises", json={"id": "p", "title": evil, "tags": {evil: evil}})
    text = await page(api, "p")
    assert "<script" not in text
    assert "<img" not in text
    assert unescape(text).count("<script>") >= 4
    await api.post("/promises/p/resolve", json={"value": {evil: evil}})
    settled = await page(api, "p")
    assert "<script" not in settled
    assert "It is settled" in settled


async def test_each_state_has_a_page(api: httpx.AsyncClient, clock: Clock) -> None:
    for name, body in {
        "resolve": {"value": [1]},
        "reject": {"reason": "too dear"},
        "cancel": {"reason": "enough"},
    }.items():
        await api.post("/promises", json={"id": name})
        await api.post(f"/promises/{name}/{name}", json=body)
    await api.post("/promises", json={"id": "late", "timeout": 1})
    clock.advance(timedelta(seconds=2))
    await api.post("/workflows/approve", json={"id": "o", "args": {"order": "x"}})
    assert "[1]" in await page(api, "resolve")
    assert "too dear" in await page(api, "reject")
    assert "enough" in await page(api, "cancel")
    assert "timedout" in await page(api, "late")
    workflow = unescape(await page(api, "o"))
    assert '{"order": "x"}' in workflow
    assert "/promises/o/cancel" in workflow
    assert "/resolve" not in workflow


async def test_an_error_is_told_in_words_and_without_its_traceback(
    api: httpx.AsyncClient, db: psycopg.Connection[Any]
) -> None:
    error = {
        "type": "shop.TooDear",
        "message": "at most 5 <EUR>",
        "data": {"limit": 5},
        "traceback": "  File x.py",
    }
    for name, given in {"typed": error, "text": "by hand", "odd": [1, 2]}.items():
        db.execute("select create_promise(%s), reject(%s, %s)", [name, name, Jsonb(given)])
    typed = await page(api, "typed")
    assert "<pre>shop.TooDear: at most 5 &lt;EUR&gt;\n{&quot;limit&quot;:5}</pre>" in typed
    assert "x.py" not in typed
    assert "<pre>Rejected: by hand</pre>" in await page(api, "text")
    assert "<pre>Rejected: [1, 2]\n[1,2]</pre>" in await page(api, "odd")


async def test_its_files_are_ours(api: httpx.AsyncClient) -> None:
    await api.post("/promises", json={"id": "p"})
    for link in re.findall(r'(?:href|src)="([^"]+)"', await page(api, "p")):
        assert link.startswith("/")
        assert (await api.get(link)).status_code == 200
