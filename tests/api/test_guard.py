"""A web page must not settle a promise on somebody's loopback."""

from __future__ import annotations

import httpx
import pytest

from tests.api.asking import asking
from tests.api.problems import problem
from troth import Troth
from troth_api import create_app


def client(troth: Troth, host: str = "127.0.0.1", hosts: tuple[str, ...] = ()) -> httpx.AsyncClient:
    return asking(create_app(troth, host=host, hosts=hosts))


async def test_loopback_names_are_served(api: httpx.AsyncClient, subtests: pytest.Subtests) -> None:
    for host in ["localhost", "localhost:8000", "LOCALHOST:9", "127.0.0.1:8000", "[::1]:8000", "localhost."]:
        with subtests.test(host=host):
            assert (await api.get("/healthz", headers={"host": host})).status_code == 200


async def test_other_names_are_not(api: httpx.AsyncClient, subtests: pytest.Subtests) -> None:
    for host in [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.0.2.1",
        "0.0.0.0",
        "",
        "[",
        "[::2]",
        "a@localhost",
    ]:
        with subtests.test(host=host):
            await api.post("/promises", json={"id": "p"})
            for answer in (
                await api.get("/promises/p", headers={"host": host}),
                await api.post("/promises/p/resolve", json={"value": True}, headers={"host": host}),
                await api.get("/schema", headers={"host": host}),
                await api.get("/static/schema.js", headers={"host": host}),
            ):
                problem(answer, 403, "host_not_served")
            assert (await api.get("/promises/p")).json()["state"] == "pending"


async def test_names_are_those_that_the_server_was_given(troth: Troth, subtests: pytest.Subtests) -> None:
    for bound, names, host, status in [
        ("198.51.100.3", (), "198.51.100.3:8000", 200),
        ("198.51.100.3", (), "198.51.100.4:8000", 403),
        ("0.0.0.0", (), "198.51.100.4:8000", 200),
        ("0.0.0.0", (), "[fe80::1]:8000", 200),
        ("0.0.0.0", (), "evil.example", 403),
        ("::", (), "198.51.100.4", 200),
        ("api.example", (), "API.example", 200),
        ("127.0.0.1", ("api", "troth.example"), "troth.example", 200),
        ("127.0.0.1", ("api", "troth.example"), "api:8000", 200),
        ("127.0.0.1", ("api",), "troth.example", 403),
        ("127.0.0.1", ("*",), "whatever.example", 200),
    ]:
        with subtests.test(bound=bound, names=names, host=host, status=status):
            async with client(troth, bound, names) as api:
                assert (await api.get("/healthz", headers={"host": host})).status_code == status


async def test_pages_of_other_sites_may_not_ask(api: httpx.AsyncClient, subtests: pytest.Subtests) -> None:
    for origin in [
        "http://evil.example",
        "https://evil.example:8000",
        "null",
        "http://localhost:3000",
        "http://127.0.0.1:8000",
        "file://",
        "x",
        "",
        "http://localhost:99999",
        "http://[",
        "http://localhost:8000.evil.example",
    ]:
        with subtests.test(origin=origin):
            await api.post("/promises", json={"id": "p"})
            for answer in (
                await api.post("/promises/p/resolve", json={"value": True}, headers={"origin": origin}),
                await api.get("/promises/p", headers={"origin": origin}),
                await api.options(
                    "/promises/p/resolve", headers={"origin": origin, "access-control-request-method": "POST"}
                ),
            ):
                problem(answer, 403, "foreign_origin")
                assert "access-control-allow-origin" not in answer.headers
            assert (await api.get("/promises/p")).json()["state"] == "pending"


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("localhost", "http://localhost:80"),
        ("localhost", "https://localhost"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
    ],
)
async def test_our_own_pages_may(api: httpx.AsyncClient, host: str, origin: str) -> None:
    answer = await api.post("/promises", json={"id": "p"}, headers={"host": host, "origin": origin})
    assert answer.status_code == 201


async def test_what_a_form_can_send_is_refused(api: httpx.AsyncClient) -> None:
    await api.post("/promises", json={"id": "p"})
    for content_type in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ):
        answer = await api.post(
            "/promises/p/resolve", content='{"value": true}', headers={"content-type": content_type}
        )
        problem(answer, 415, "unsupported_media_type")
    assert (await api.get("/promises/p")).json()["state"] == "pending"


async def test_no_answer_may_be_taken_for_another_type(api: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/promises/nope", "/schema", "/static/troth.css", "/schema/openapi.json"):
        assert (await api.get(path)).headers["x-content-type-options"] == "nosniff"
