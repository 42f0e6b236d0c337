"""The OpenAPI document says what is answered, no more and no less: each route's every status is provoked here."""

from __future__ import annotations

import re
from typing import Any

import httpx
import jsonschema_rs
import psycopg
import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from litestar import Litestar
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from structlog.typing import EventDict

import troth_api.health
from tests.api.acting import Acting
from tests.api.asking import asking
from tests.api.problems import problem
from tests.api.serving import Serve
from troth import Troth
from troth_api import create_app, limits

SUCCESSES: dict[tuple[str, str], dict[int, tuple[str, Any]]] = {
    ("GET", "/healthz"): {200: ("/healthz", None)},
    ("GET", "/readyz"): {200: ("/readyz", None)},
    ("GET", "/promises"): {200: ("/promises", None)},
    ("POST", "/promises"): {
        200: ("/promises", {"id": "latent"}),
        201: ("/promises", {"id": "new", "timeout": 60, "default": [1], "tags": {"a": "b"}, "title": "t"}),
        409: ("/promises", {"id": "ready"}),
    },
    ("GET", "/promises/{promise_id}"): {200: ("/promises/resolved", None), 404: ("/promises/nope", None)},
    ("POST", "/workflows/{name}"): {
        200: ("/workflows/ready", {"id": "ready"}),
        201: ("/workflows/ready", {"id": "new-workflow"}),
        202: ("/workflows/ready?wait=0.05", {"id": "ready"}),
        409: ("/workflows/ready", {"id": "ready", "args": [1]}),
    },
    ("GET", "/workflows/{workflow_id}/tree"): {
        200: ("/workflows/begun/tree", None),
        404: ("/workflows/nope/tree", None),
    },
    ("GET", "/workflows/{workflow_id}/journal"): {
        200: ("/workflows/begun/journal", None),
        404: ("/workflows/nope/journal", None),
    },
    ("POST", "/workflows/{workflow_id}/fork"): {
        200: ("/workflows/begun/fork", {"id": "forked"}),
        201: ("/workflows/begun/fork", {"id": "new-fork", "before": "step", "version": 2, "reason": "x"}),
        404: ("/workflows/nope/fork", {"id": "another-fork"}),
        409: ("/workflows/begun/fork", {"id": "ready"}),
    },
    ("POST", "/workflows/{workflow_id}/steps/{operation}/settle"): {
        200: ("/workflows/begun/steps/2~stuck:3/settle", {"value": [1], "reason": "x"}),
        404: ("/workflows/nope/steps/stuck/settle", {"value": 1}),
        409: ("/workflows/begun/steps/step/settle", {"error": {"message": "x"}}),
        429: ("/workflows/full/steps/stuck/settle", {"value": 1}),
    },
    ("GET", "/workflows/{workflow_id}/export"): {
        200: ("/workflows/begun/export", None),
        404: ("/workflows/nope/export", None),
        409: ("/workflows/ready/export", None),
    },
    ("POST", "/promises/{promise_id}/resolve"): {
        200: ("/promises/to-resolve/resolve", {"value": 1}),
        404: ("/promises/nope/resolve", {"value": 1}),
        409: ("/promises/resolved/resolve", {"value": 1}),
    },
    ("POST", "/promises/{promise_id}/reject"): {
        200: ("/promises/to-reject/reject", {"error": {"type": "A", "message": "b", "data": [1]}}),
        404: ("/promises/nope/reject", {"reason": "x"}),
        409: ("/promises/ready/reject", {"reason": "x"}),
    },
    ("POST", "/promises/{promise_id}/cancel"): {
        200: ("/promises/to-cancel/cancel", {"reason": "x"}),
        202: ("/promises/begun/cancel", {}),
        404: ("/promises/nope/cancel", {}),
        409: ("/promises/resolved/cancel", {}),
    },
}
TITLES = {
    400: "invalid_argument",
    403: "host_not_served",
    413: "payload_too_large",
    415: "unsupported_media_type",
    500: "internal_server_error",
    503: "postgres_unreachable",
}


def document(app: Litestar) -> dict[str, Any]:
    return app.openapi_schema.to_schema()


def declared(app: Litestar) -> dict[tuple[str, str], dict[int, dict[str, Any]]]:
    """What each operation says that it answers."""
    return {
        (method.upper(), path): {int(status): response for status, response in operation["responses"].items()}
        for path, item in document(app)["paths"].items()
        for method, operation in item.items()
    }


@pytest.fixture
async def ground(api: httpx.AsyncClient, acting: Acting, db: psycopg.Connection[Any]) -> None:
    """A promise in each condition."""
    for name in ("ready", "begun", "full"):
        await api.post(f"/workflows/{name}", json={"id": name, "tags": {"a": "b"}})
    ((task, (epoch, seen)),) = acting.claim("begun").items()
    acting.step(task, epoch, seen, "step", {"a": 1})
    await api.post("/workflows/begun/fork", json={"id": "forked"})
    acting.claim("full")
    db.execute(
        "insert into checkpoint (task, seq, operation, kind, issued, state, at, epoch)"
        " select id, n, n::text, 'step', 0, 'resolved', last_at, epoch from task, generate_series(1, 100000) n where id = 'full'"
    )
    db.execute("update task set last_seq = 100000 where id = 'full'")
    for name in ("latent", "resolved", "to-resolve", "to-reject", "to-cancel"):
        await api.post("/promises", json={"id": name})
    await api.post("/promises/resolved/resolve", json={"value": {"a": None}})


async def provoked(
    api: httpx.AsyncClient,
    down: httpx.AsyncClient,
    broken: httpx.AsyncClient,
    operation: tuple[str, str],
    status: int,
) -> httpx.Response:
    """A request of this operation that is answered with this status."""
    method, template = operation
    own = SUCCESSES[operation].get(status)
    path, body = own or next(iter(SUCCESSES[operation].values()))
    arguments: dict[str, Any] = {} if body is None else {"json": body}
    match status:
        case _ if own is not None:
            return await api.request(method, path, **arguments)
        case 400:
            return await api.request(method, f"{path}?nope=1", **arguments)
        case 403:
            return await api.request(method, path, **arguments, headers={"host": "evil.example"})
        case 413:
            big = b'{"value": "' + b"a" * limits.body_bytes_max + b'"}'
            return await api.request(method, path, content=big, headers={"content-type": "application/json"})
        case 415:
            return await api.request(method, path, content=b"{}", headers={"content-type": "text/plain"})
        case 500:
            return await broken.request(method, path, **arguments)
        case 503:
            return await down.request(method, path, **arguments)
        case _:
            raise AssertionError(f"nobody knows how {method} {template} answers {status}")


async def test_each_status_that_is_declared_is_answered_as_declared(
    api: httpx.AsyncClient,
    app: Litestar,
    ground: None,
    monkeypatch: pytest.MonkeyPatch,
    logs: list[EventDict],
) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise RuntimeError("provoked, with a secret in it")

    whole = document(app)
    troths = [Troth("postgresql://nobody:secret@127.0.0.1:1/none") for _ in range(2)]
    monkeypatch.setattr(troths[1].pool, "run", fail)
    async with asking(create_app(troths[0])) as down, asking(create_app(troths[1])) as broken:
        for operation, statuses in declared(app).items():
            for status, response in statuses.items():
                with monkeypatch.context() as patch:
                    if operation[1] == "/healthz" and status == 500:
                        patch.setattr(troth_api.health, "Health", fail)
                    answer = await provoked(api, down, broken, operation, status)
                what = f"{operation} {status}: {answer.status_code} {answer.text}"
                assert answer.status_code == status, what
                kind = answer.headers["content-type"]
                schema = response["content"][kind]["schema"]
                assert jsonschema_rs.is_valid({**schema, "components": whole["components"]}, answer.json()), (
                    what
                )
                if status in TITLES and status not in SUCCESSES[operation]:
                    problem(answer, status, TITLES[status])
                assert "secret" not in answer.text
    failures = [log for log in logs if log["status"] == 500]
    assert len(failures) == len(SUCCESSES)
    assert all(isinstance(log["exc_info"], RuntimeError) for log in failures)


def test_each_operation_is_known_here_and_declares_its_problems(app: Litestar) -> None:
    operations = declared(app)
    assert operations.keys() == SUCCESSES.keys()
    for operation, statuses in operations.items():
        assert {400, 403, 500} <= statuses.keys()
        assert ({413, 415} <= statuses.keys()) == (operation[0] == "POST")
        for status, response in statuses.items():
            kinds = ["application/problem+json"] if status >= 400 else ["application/json"]
            if operation == ("GET", "/promises/{promise_id}") and status == 200:
                kinds.append("text/html")
            assert list(response["content"]) == kinds, (operation, status)
            assert response["description"]


async def test_what_is_not_there_is_a_problem_too(api: httpx.AsyncClient, subtests: pytest.Subtests) -> None:
    for method, path, status, kind in [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/promises/p/approve", 404, "not_found"),
        ("GET", "/schema/nowhere", 404, "not_found"),
        ("GET", "/schema/openapi.txt", 404, "not_found"),
        ("GET", "/static/nowhere.js", 404, "not_found"),
        ("GET", "/static/..%2fapp.py", 404, "not_found"),
        ("GET", "/static/%2e%2e/app.py", 404, "not_found"),
        ("PUT", "/promises", 405, "method_not_allowed"),
        ("DELETE", "/promises/p", 405, "method_not_allowed"),
        ("PATCH", "/workflows/w", 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
    ]:
        with subtests.test(method=method, path=path, status=status, kind=kind):
            answer = await api.request(method, path)
            problem(answer, status, kind)
            if status == 405:
                assert answer.headers["allow"]


async def test_the_viewer_and_the_document_come_from_our_own_files(api: httpx.AsyncClient) -> None:
    front = await api.get("/")
    assert (front.status_code, front.headers["location"]) == (302, "/schema")
    page = await api.get("/schema")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace("HTTP", "")
    for path in re.findall(r'(?:href|src)="([^"]+)"', page.text):
        assert (await api.get(path)).status_code == 200
    as_json = await api.get("/schema/openapi.json")
    assert as_json.headers["content-type"] == "application/json"
    as_yaml = await api.get("/schema/openapi.yaml")
    assert yaml.safe_load(as_yaml.text) == as_json.json()


def test_what_is_answered_to_made_up_requests_is_declared(serve: Serve, dsn: str) -> None:
    served = serve("--dsn", dsn)
    schema = schemathesis.openapi.from_url(f"{served.url}/schema/openapi.json")
    for operation in schema.get_all_operations():
        assert isinstance(operation, Ok)
        case = operation.ok().as_strategy()

        @given(case)
        @settings(
            max_examples=20,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: schemathesis.Case[Any]) -> None:
            if "wait" in (case.query or {}):
                case.query = {**case.query, "wait": 0}
            case.call_and_validate(checks=CHECKS, base_url=served.url)

        ask()


CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
