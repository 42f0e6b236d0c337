"""What is refused at the door, before anything is written: one SQLSTATE for each kind of fault (sql/README.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from tests.proof.model.rows import DAY, Json
from tests.proof.model.state import Refused, State

_ID = re.compile(r"[-A-Za-z0-9._~:@!$&'()*+,;=]+")
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
ENGINE = ("timeout", "worker", "workflow")
"""Names under which the engine itself settles: nobody's to take."""


def refuse(sqlstate: str, when: object) -> None:
    if when:
        raise Refused(sqlstate)


def isolation(state: State) -> None:
    """Whoever settles must see what is there now."""
    refuse("25001", not state.read_committed)


def id_(id: str | None, length_max: int) -> None:
    refuse("TR001", id in {None, "", ".", ".."} or not _ID.fullmatch(id or "") or len(id or "") > length_max)


def id_to_start(state: State, id: str | None) -> None:
    id_(id, state.limits.id_start_length)
    refuse("TR001", "~" in (id or ""))


def name(state: State, name: str | None) -> None:
    refuse(
        "TR002",
        not name or not _NAME.fullmatch(name) or name.isdigit() or len(name) > state.limits.name_length,
    )


def payload(state: State, value: Json) -> None:
    refuse("TR003", len(json.dumps(value, separators=(",", ":"))) > state.limits.payload_bytes)
    refuse("TR004", _depth(value) > state.limits.payload_depth)


def _depth(value: Json) -> int:
    if not isinstance(value, list | dict):
        return 0
    inside = value.values() if isinstance(value, dict) else value
    return 1 + max((_depth(each) for each in inside), default=0)


def span(state: State, micros: int | None) -> None:
    refuse("TR002", micros is not None and not 0 <= micros <= state.limits.timeout_days * DAY)


def tags(state: State, tags: Json) -> None:
    if tags is None:
        return
    refuse("TR002", not isinstance(tags, dict))
    longest = state.limits.tag_length
    refuse("TR002", len(tags) > state.limits.tags)
    refuse(
        "TR002", any(not isinstance(v, str) or len(k) > longest or len(v) > longest for k, v in tags.items())
    )


def reason(state: State, text: str | None) -> None:
    refuse("TR003", len(text or "") > state.limits.reason_length)


def title(state: State, text: str | None) -> None:
    refuse("TR003", len(text or "") > state.limits.title_length)


def actor(state: State, name: str | None) -> None:
    reason(state, name)
    refuse("TR002", name in ENGINE)


def batch(state: State, items: Json) -> None:
    refuse("TR002", not isinstance(items, list))
    refuse("TR030", len(items) > state.limits.batch_items)
    refuse("TR002", any(not isinstance(item, dict) for item in items))


def page(limit: int | None, limit_max: int) -> None:
    refuse("TR002", limit is None or not 1 <= limit <= limit_max)


def start(state: State, given: dict[str, Any]) -> None:
    """What a start must fulfil besides its ID."""
    name(state, given.get("function"))
    if given.get("queue") is not None:
        name(state, given["queue"])
    args, headers = given.get("args"), given.get("headers")
    refuse("TR002", args is not None and headers is None and not isinstance(args, dict | list))
    refuse("TR002", not -32768 <= given.get("priority", 0) <= 32767)
    payload(state, args)
    payload(state, headers)
    span(state, given.get("delay"))
    span(state, given.get("timeout"))
    tags(state, given.get("tags"))


def decision(state: State, value: Json, headers: Json, by: str | None) -> None:
    payload(state, value)
    payload(state, headers)
    actor(state, by)


def lacks(rows: Sequence[dict[str, Any]], *fields: str) -> bool:
    return any(row.get(field) is None for row in rows for field in fields)


def operation_name(operation: str | None) -> None:
    """The path of an operation: never the engine's own, which begin with ~."""
    refuse("TR002", not operation or operation.startswith("~"))
