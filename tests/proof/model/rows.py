"""What a namespace holds, to the oracle: one row type for each table, with its columns, and the named limits.

Columns that follow from others are not here (`expires_at`: the timeout of what is pending; `open_at`: since when a
latent promise is).
Instants are whole microseconds since 1970, durations too, a digest is hexadecimal. What Postgres keeps apart and nobody can
tell from outside (SQL null and JSON null) is one `None` here; only a checkpoint says whether it holds its outcome itself
(`own`) or means that of its promise. Rows never change in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

Json = Any
SECOND: Final = 1_000_000
DAY: Final = 86_400 * SECOND


class Promise(NamedTuple):
    id: str
    created_at: int
    state: str = "pending"
    function: str | None = None
    version: int | None = None
    queue: str | None = None
    args: Json = None
    args_headers: Json = None
    args_digest: str | None = None
    tags: Json = None
    title: str | None = None
    parent: str | None = None
    timeout_at: int | None = None
    has_default: bool = False
    default_value: Json = None
    default_headers: Json = None
    value: Json = None
    error: Json = None
    headers: Json = None
    value_digest: str | None = None
    settled_at: int | None = None
    settler: str | None = None
    started_at: int | None = None
    seed: int | None = None


class Task(NamedTuple):
    id: str
    state: str
    queue: str
    lane: str
    priority: int = 0
    ready_at: int | None = None
    epoch: int = 0
    worker: str | None = None
    claimed_at: int | None = None
    last_seq: int = 0
    last_at: int | None = None
    news: bool = False
    attempts: int = 0
    reason: Json = None
    timeout_at: int | None = None
    started_at: int | None = None
    seed: int | None = None
    children: int = 0
    asked: int = -1
    kept_by: str | None = None


class Checkpoint(NamedTuple):
    task: str
    seq: int
    operation: str
    kind: str
    state: str
    at: int
    epoch: int
    issued: int | None = None
    cohort: int | None = None
    digest: int | None = None
    value: Json = None
    error: Json = None
    headers: Json = None
    promise: str | None = None
    own: bool = False


class Wait(NamedTuple):
    task: str
    operation: str
    kind: str
    issued: int
    promise: str | None = None
    fire_at: int | None = None
    micros: int | None = None
    cohort: int | None = None
    digest: int | None = None


class Attempt(NamedTuple):
    task: str
    operation: str
    number: int
    epoch: int
    started_at: int
    ended_at: int | None = None
    retry_at: int | None = None
    error: Json = None
    details: Json = None


class Worker(NamedTuple):
    id: str
    queues: list[str]
    lanes: list[str]
    lease: int
    registered_at: int
    seen_at: int
    info: Json = None
    sleeping: bool = False
    died_at: int | None = None


class Function(NamedTuple):
    name: str
    version: int
    queue: str
    registered_at: int


class Closing(NamedTuple):
    id: str
    since: int
    itself: bool = False
    force: bool = False
    after: str | None = None


class Audit(NamedTuple):
    at: int
    actor: str
    verb: str
    promise: str | None
    before: str | None
    after: str | None
    detail: Json = None


@dataclass(frozen=True)
class Limits:
    """The named limits. Those that a run of sixty steps would not come to are small here; SQL is given the same."""

    payload_bytes: int = 2_000
    payload_depth: int = 100
    id_start_length: int = 128
    id_length: int = 255
    name_length: int = 100
    timeout_days: int = 36_500
    batch_items: int = 12
    search_limit: int = 1_000
    attempts: int = 2
    journal_entries: int = 10
    children: int = 5
    family_members: int = 7
    waits_per_promise: int = 2
    tags: int = 32
    tag_length: int = 200
    reason_length: int = 1_000
    title_length: int = 200
