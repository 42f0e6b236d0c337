"""What a person sees who follows a promise's link: how it stands, and how to decide it. It changes nothing.

There is no form in it on purpose: an ID is a name, not an authority, and a page that decides needs to know who asks.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Final

from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, OpenAPIType, Operation, Schema
from msgspec import Raw, json

from troth.codec import Payloads
from troth.errors import UndecodablePayload
from troth.model import PromiseInfo

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
PAYLOAD_LENGTH_MAX: Final = 10_000
"""How much of a payload is shown; the JSON document has all of it."""


@dataclass
class AlsoForPeople(Operation):
    """In the OpenAPI document: whoever asks for HTML is answered with a page."""

    def __post_init__(self) -> None:
        response = (self.responses or {})["200"]
        if isinstance(response, OpenAPIResponse) and response.content is not None:
            response.content["text/html"] = OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING))


def of_promise(promise: PromiseInfo, base: str, schema: str) -> str:
    """The page of a promise; `base` is how the API was addressed, `schema` the namespace."""
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{text}</dd>\n" for name, text in _facts(promise) if text)
    title = escape(promise.title or promise.id)
    state = "pending, overdue" if promise.pending and promise.overdue else promise.state
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="/static/favicon.png">
<link rel="stylesheet" href="/static/troth.css">
</head>
<body>
<h1>{title} <span class="state">{escape(state)}</span></h1>
<dl>
{facts}</dl>
{_how_to_decide(promise, base, schema)}
</body>
</html>
"""


def _facts(promise: PromiseInfo) -> list[tuple[str, str]]:
    task = promise.task
    waits = "" if task is None else f"{task.state}, {task.attempts} attempts" if task.attempts else task.state
    return [
        ("ID", escape(promise.id)),
        ("Workflow", escape(promise.function or "")),
        ("Arguments", _payload(promise.args) if promise.function else ""),
        ("Task", escape(waits)),
        ("Made by", _link(promise.parent)),
        ("Tags", escape(", ".join(f"{key}: {value}" for key, value in promise.tags.items()))),
        ("Created", _instant(promise.created_at)),
        ("Times out", _instant(promise.timeout_at) if promise.pending else ""),
        ("Settled", _instant(promise.settled_at)),
        ("Value", _payload(promise.value) if promise.state == "resolved" else ""),
        ("Error", _error(promise) if promise.state in ("rejected", "canceled") else ""),
    ]


def _payload(raw: Raw) -> str:
    return _text(bytes(raw).decode())


def _text(text: str) -> str:
    if len(text) > PAYLOAD_LENGTH_MAX:
        text = text[:PAYLOAD_LENGTH_MAX] + "…"
    return f"<pre>{escape(text)}</pre>"


def _error(promise: PromiseInfo) -> str:
    """What kind it is and what it says; the JSON document has its traceback and causes."""
    try:
        error = Payloads().open_error(promise.error, promise.headers)
    except UndecodablePayload:
        return _payload(promise.error)
    said = f"{error.type}: {error.message}" if error.message else error.type
    more = "" if error.data in (None, error.message) else f"\n{json.encode(error.data).decode()}"
    return _text(said + more)


def _link(promise_id: str | None) -> str:
    return "" if promise_id is None else f'<a href="/promises/{escape(promise_id)}">{escape(promise_id)}</a>'


def _instant(at: datetime | None) -> str:
    return "" if at is None else f"<time>{at:%Y-%m-%d %H:%M:%S %Z}</time>"


def _how_to_decide(promise: PromiseInfo, base: str, schema: str) -> str:
    if promise.settled:
        return "<p>It is settled, and stays so.</p>"
    place = f"{base}/promises/{promise.id}"
    if not promise.latent:
        return (
            "<p>It is a workflow, and settles itself. To cancel it:</p>"
            + _lines(_curl(f"{place}/cancel", '{"reason": "no longer needed"}'))
            + _lines(f"select {_name(schema)}.cancel({_literal(promise.id)}, 'no longer needed');")
        )
    return (
        "<p>It waits for somebody to decide it: <code>true</code> stands for the value that is asked for.</p>"
        "<h2>From a shell</h2>"
        + _lines(
            _curl(f"{place}/resolve", '{"value": true}'), _curl(f"{place}/reject", '{"reason": "why not"}')
        )
        + "<h2>Over HTTP</h2>"
        + _lines(f"POST {place}/resolve", "Content-Type: application/json", "", '{"value": true}')
        + "<h2>In SQL</h2>"
        + _lines(
            f"select {_name(schema)}.resolve({_literal(promise.id)}, 'true');",
            f"select {_name(schema)}.cancel({_literal(promise.id)}, 'why not');",
        )
    )


def _lines(*lines: str) -> str:
    return f"<pre>{escape(chr(10).join(lines))}</pre>"


def _curl(url: str, body: str) -> str:
    return f"curl --json {shlex.quote(body)} {shlex.quote(url)}"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _name(schema: str) -> str:
    return schema if schema.isidentifier() and schema.islower() else '"' + schema.replace('"', '""') + '"'
