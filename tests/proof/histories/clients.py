"""Clients that make calls and write down when they were sent and what came back: over SQL and over HTTP. Now and then one
gives up before the answer has come; nobody knows then what became of the call."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from datetime import datetime
from typing import Any, Protocol

import httpx
import psycopg

from tests.proof.histories.promise import OVERDUE, Answer, Call, Outcome
from tests.support.postgres import connected

Document = dict[str, Any]
GIVES_UP_AFTER_S = 0.0005


class Client(Protocol):
    def make(self, call: Call, *, give_up: bool) -> None:
        """Carry the call out and write down how it went."""

    def close(self) -> None: ...


class SqlClient:
    """A connection of its own."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: psycopg.Connection[Any] = connected(dsn)

    def make(self, call: Call, *, give_up: bool) -> None:
        query, values = _query(call)
        if give_up:
            # sent, and the connection is cut before anything comes back
            self._connection.pgconn.send_query_params(query.encode(), _encoded(values))
            self._connection.pgconn.flush()
            self.close()
            self._connection = connected(self._dsn)
            return
        try:
            result = self._connection.pgconn.exec_params(query.encode(), _encoded(values))
        finally:
            end = time.time()
        state = result.error_field(psycopg.pq.DiagnosticField.SQLSTATE)
        if state is not None:
            assert state == b"TR010", result.error_message
            detail = result.error_field(psycopg.pq.DiagnosticField.MESSAGE_DETAIL)
            assert detail is not None
            _note(call, end, "taken", json.loads(detail))
            return
        text = result.get_value(0, 0) if result.ntuples else None
        found: Document = json.loads(text) if text else {}
        if call.verb == "get":
            _note(call, end, "get", found or None)
        else:
            _note(call, end, found["answer"], found.get("promise", found))

    def close(self) -> None:
        with suppress(psycopg.Error):
            self._connection.close()


def _encoded(values: list[str | None]) -> list[bytes | bytearray | memoryview | None]:
    return [None if value is None else value.encode() for value in values]


def _query(call: Call) -> tuple[str, list[str | None]]:
    given = call.given
    match call.verb:
        case "create":
            default = given.get("default")
            values = [call.id, given.get("timeout") and f"{given['timeout']} seconds", json.dumps(default)]
            flag = "true" if default is not None else "false"
            return f"select troth.create_promise($1, $2::interval, $3::jsonb, {flag})", values
        case "start":
            values = [
                call.id,
                given["function"],
                given["args"],
                given.get("timeout") and f"{given['timeout']} seconds",
            ]
            return "select troth.start($1, $2, $3::jsonb, p_timeout => $4::interval)", values
        case "resolve":
            return "select troth.resolve($1, $2::jsonb)", [call.id, json.dumps(given["payload"])]
        case "reject":
            return "select troth.reject($1, $2::jsonb)", [call.id, json.dumps(_error(given["payload"]))]
        case "cancel":
            return "select troth.cancel($1, $2)", [call.id, given["reason"]]
        case _:
            return "select * from troth.get(array[$1])", [call.id]


class HttpClient:
    """A client of the API, whichever of its processes that is."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, trust_env=False, timeout=60)

    def make(self, call: Call, *, give_up: bool) -> None:
        method, path, body = _request(call)
        timeout = httpx.Timeout(60, read=GIVES_UP_AFTER_S) if give_up else httpx.Timeout(60)
        try:
            response = self._http.request(method, path, json=body, timeout=timeout)
        except httpx.TransportError:
            if not give_up:
                raise
            return
        end = time.time()
        found: Document = response.json()
        kind = found.get("type", "").rpartition(":")[2]
        if response.status_code == 404:
            _note(call, end, "get" if call.verb == "get" else "unknown", None)
        elif response.status_code == 409:
            word = {"id_conflict": "taken", "not_latent": "not_latent"}.get(kind, "conflict")
            _note(call, end, word, found["promise"])
        else:
            assert response.is_success, response.text
            _note(call, end, "get" if call.verb == "get" else found["answer"], found)

    def close(self) -> None:
        self._http.close()


def _request(call: Call) -> tuple[str, str, Document | None]:
    given = call.given
    match call.verb:
        case "create":
            body = {"id": call.id} | {
                key: given[key] for key in ("timeout", "default") if given.get(key) is not None
            }
            return "POST", "/promises", body
        case "start":
            body = {"id": call.id, "args": json.loads(given["args"])}
            body |= {"timeout": given["timeout"]} if given.get("timeout") else {}
            return "POST", f"/workflows/{given['function']}", body
        case "resolve":
            return "POST", f"/promises/{call.id}/resolve", {"value": given["payload"]}
        case "reject":
            return "POST", f"/promises/{call.id}/reject", {"error": _error(given["payload"])}
        case "cancel":
            return "POST", f"/promises/{call.id}/cancel", {"reason": given["reason"]}
        case _:
            return "GET", f"/promises/{call.id}", None


def _error(payload: str) -> Document:
    return {"type": "Rejected", "message": payload}


def _note(call: Call, end: float, word: str, document: Document | None) -> None:
    call.end, call.answer = end, Answer(word, _outcome(document) if document else None)
    if document and document.get("timeout_at"):
        call.timeout_at = datetime.fromisoformat(document["timeout_at"]).timestamp()


def _outcome(document: Document) -> Outcome:
    if document.get("overdue"):
        return OVERDUE
    error = document.get("error")
    return document["state"], error["message"] if error else document.get("value")
