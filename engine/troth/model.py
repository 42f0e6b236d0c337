"""What the SQL functions answer, as frozen values.

Each class is decoded straight from the JSON text of one kind of document; keys that a newer schema adds are
ignored. Payloads (`args`, `value`, `error`) stay raw JSON: only the codec, given a type, opens them. An absent
payload is JSON null. Instants are timezone-aware datetimes, except in the journal, where they are integer
microseconds since the Unix epoch, as workers count them. This file knows nothing of Postgres, of types of users,
or of codecs.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Protocol, TypeAlias

import msgspec

PromiseState: TypeAlias = Literal["pending", "resolved", "rejected", "canceled", "timedout"]
TaskState: TypeAlias = Literal["ready", "claimed", "suspended", "halted"]
SettleAnswer: TypeAlias = Literal["settled", "already", "conflict", "not_latent", "unknown", "requested"]
OperatorAnswer: TypeAlias = Literal[
    "halted",
    "resumed",
    "recorded",
    "already",
    "conflict",
    "settled",
    "unknown",
    "not_halted",
    "not_a_step",
    "latent",
]
StartAnswer: TypeAlias = Literal["created", "attached", "conflict", "refused"]

JSON_NULL: Final = msgspec.Raw(b"null")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """An exception as it is stored: bounded, and without the exception's class being needed to read it."""

    type: str
    message: str
    data: Any = None
    traceback: str | None = None
    cause: ErrorInfo | None = None
    parts: ErrorParts | None = None

    def without_data(self) -> ErrorInfo:
        """The same, here and in its causes, but for the data."""
        cause = None if self.cause is None else self.cause.without_data()
        return msgspec.structs.replace(self, data=None, cause=cause)


class ErrorParts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What Python needs beside the message to make an exception again (`remote.rebuilt`), as far as it is plain JSON.

    `args` are None where they only repeat the message; `notes` says how many of its last lines are notes.
    """

    args: list[Any] | None = None
    attributes: dict[str, Any] = {}
    notes: int = 0
    members: list[ErrorInfo] = []


class Codec(Protocol):
    """Compresses or encrypts payloads. Two codecs with one `name` must be able to open each other's data.

    `digest` tells whether two plain values are the same, wherever the data cannot (a nonce makes every sealing of one
    value different); key it, if equal values must not be seen to be equal.
    """

    @property
    def name(self) -> str: ...
    def encode(self, plain: bytes, /) -> bytes:
        """The data to store for a plain JSON text."""
        ...

    def decode(self, data: bytes, /) -> bytes:
        """The plain JSON text of stored data."""
        ...

    def digest(self, plain: bytes, /) -> bytes:
        """What is the same for the same plain text, whatever the data."""
        ...


class Sealed(msgspec.Struct, frozen=True):
    """A payload as it is sent to SQL: JSON text, headers as JSON text, and the digest of the plain text.

    Without a codec there are neither headers nor digest: SQL computes the digest of plain values itself.
    """

    data: bytes
    headers: bytes | None = None
    digest: bytes | None = None


class HaltReason(msgspec.Struct, frozen=True):
    """Why a task is parked: a code for programs, a sentence for people, and what else is known."""

    code: str
    message: str
    data: Any = None


class TaskInfo(msgspec.Struct, frozen=True):
    """The duty to drive one pending workflow promise."""

    state: TaskState
    queue: str
    lane: str
    priority: int = 0
    ready_at: datetime | None = None
    attempts: int = 0
    epoch: int = 0
    worker: str | None = None
    claimed_at: datetime | None = None
    last_seq: int = 0
    started_at: datetime | None = None
    reason: HaltReason | None = None


class PromiseInfo(msgspec.Struct, frozen=True):
    """A promise as it stood when it was read.

    `overdue` says that its timeout had passed although the row could not be settled just then: `pending, overdue`
    never becomes a late success.
    """

    id: str
    state: PromiseState
    created_at: datetime
    latent: bool = False
    function: str | None = None
    version: int | None = None
    queue: str | None = None
    args: msgspec.Raw = JSON_NULL
    args_headers: dict[str, Any] | None = None
    tags: dict[str, str] = {}
    title: str | None = None
    parent: str | None = None
    timeout_at: datetime | None = None
    settled_at: datetime | None = None
    settler: str | None = None
    value: msgspec.Raw = JSON_NULL
    error: msgspec.Raw = JSON_NULL
    headers: dict[str, Any] | None = None
    overdue: bool = False
    task: TaskInfo | None = None

    @property
    def pending(self) -> bool:
        """Nobody has settled it yet."""
        return self.state == "pending"

    @property
    def settled(self) -> bool:
        """It has its outcome, for ever."""
        return self.state != "pending"

    @property
    def family(self) -> str:
        """The ID of the workflow that everything named below it belongs to."""
        return self.id.partition("~")[0]


class Started(PromiseInfo, frozen=True, kw_only=True):
    """What `start` and `create_promise` answer: the promise, and whether this call made it."""

    answer: Literal["created", "attached"]


class StartedItem(msgspec.Struct, frozen=True):
    """What `start_many` answers for one item; `sqlstate` and `message` say why one was refused."""

    id: str
    answer: StartAnswer
    sqlstate: str | None = None
    message: str | None = None


class Settlement(msgspec.Struct, frozen=True):
    """What a settle answers.

    `settled`: this call did it. `already`: the same outcome stood there. `conflict`: another outcome stands, and
    `promise` shows it. `requested`: a running workflow was told to cancel. `not_latent`: a workflow settles itself.
    `unknown`: no promise has this ID.
    """

    answer: SettleAnswer
    promise: PromiseInfo | None = None

    @property
    def accepted(self) -> bool:
        """What the caller wanted is so, or will be."""
        return self.answer in ("settled", "already", "requested")


class Operated(msgspec.Struct, frozen=True):
    """What an operator's `halt`, `resume` or `settle_step` answers.

    `halted`, `resumed`, `recorded`: this call did it. `already`: it was so. `not_halted`: there is nothing to resume.
    `conflict`: the step has another outcome. `not_a_step`: the workflow waits for something else under that name.
    `settled`: the workflow has ended. `latent`: nobody runs this promise. `unknown`: no promise has this ID.
    """

    answer: OperatorAnswer
    promise: PromiseInfo | None = None

    @property
    def accepted(self) -> bool:
        """What the caller wanted is so."""
        return self.answer in ("halted", "resumed", "recorded", "already")


class OpenWait(msgspec.Struct, frozen=True):
    """What a workflow's code waits for at the end of its journal; `fire_at` in microseconds since the Unix epoch."""

    operation: str
    kind: str
    promise: str | None = None
    issued: int = 0
    digest: int | None = None
    cohort: int | None = None
    fire_at: int | None = None


class Record(msgspec.Struct, frozen=True):
    """What a replay of a workflow needs beside its journal, which ends at `last_seq`.

    Instants are microseconds since the Unix epoch; `args_digest`, of sealed arguments, is hexadecimal. `task` is the state of
    a task that has not ended, `asked` the last event after which everything that its code asked for is recorded (-1: none).
    """

    id: str
    function: str
    version: int
    queue: str
    started_at: int
    seed: int
    state: PromiseState
    last_seq: int
    args: msgspec.Raw = JSON_NULL
    args_headers: dict[str, Any] | None = None
    args_digest: str | None = None
    tags: dict[str, str] | None = None
    title: str | None = None
    timeout_at: int | None = None
    waits: list[OpenWait] = []
    task: TaskState | None = None
    asked: int | None = None


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow as one document: what `export` gives and `import_journal` takes."""

    format: Literal[1] = 1
    record: Record
    journal: list[JournalEntry]


class Committed(msgspec.Struct, frozen=True):
    """The answer to `commit_step`; once it is `ok`, `seq` and `at` (microseconds) are those of the event."""

    answer: Literal["ok", "recorded", "busy", "fenced"]
    seq: int | None = None
    at: int | None = None


class JournalEntry(msgspec.Struct, frozen=True):
    """One checkpoint: an event that a workflow's code has been told, at `seq`.

    `at` is in microseconds since the Unix epoch. `issued` is the seq after which code issued the operation, `cohort` tells
    what was issued together with it; of an event that an operator wrote both are None.
    """

    seq: int
    operation: str
    kind: str
    state: str
    at: int
    issued: int | None = None
    epoch: int = 0
    cohort: int | None = None
    digest: int | None = None
    value: msgspec.Raw = JSON_NULL
    error: msgspec.Raw = JSON_NULL
    headers: dict[str, Any] | None = None
    promise: str | None = None

    @property
    def instant(self) -> datetime:
        """`at` as a datetime in UTC."""
        return _EPOCH + timedelta(microseconds=self.at)


class StepAttempt(msgspec.Struct, frozen=True):
    """The last attempt at a step that has no outcome yet; `retry_at` in microseconds since the Unix epoch."""

    operation: str
    number: int
    ended: bool = False
    retry_at: int | None = None
    details: msgspec.Raw = JSON_NULL
    error: msgspec.Raw = JSON_NULL


class Claimed(msgspec.Struct, frozen=True):
    """A task that a worker was given. Instants are microseconds since the Unix epoch; payloads JSON text.

    The journal begins after `asked` where this worker suspended the task and said that it keeps the code, else at 1.
    `asked` is the last event after which all that the code asked for is recorded (-1: none yet); `waits`, where the code
    is run anew, what of it has no event yet.
    """

    task: str
    epoch: int
    function: str
    version: int
    queue: str
    args: str | None
    args_headers: str | None
    tags: str | None
    timeout_at: int | None
    started_at: int
    seed: int
    attempts: int
    now: int
    last_seq: int
    alone: bool
    asked: int
    waits: list[OpenWait] = []
    steps: list[StepAttempt] = []
    journal: list[JournalEntry] = []


class Advanced(msgspec.Struct, frozen=True):
    """The answer to one turn of `advance`; `entries` are the events that the caller has not been told."""

    task: str
    answer: Literal["ok", "news", "busy", "fenced", "halted"]
    last_seq: int | None
    entries: list[JournalEntry] | None


class HeldNews(msgspec.Struct, frozen=True):
    """What a heartbeat tells of a task that the worker holds: it has `news`, or is `lost`.

    Without a task it says `alone`: one whose last holder died is ready, to be claimed by who holds nothing.
    """

    task: str | None
    epoch: int | None
    answer: Literal["news", "lost", "alone"]


class Ticked(msgspec.Struct, frozen=True):
    """What a tick did, and in how many microseconds the next thing is due (None: nothing is); `now` in microseconds."""

    now: int
    workers: int
    promises: int
    timers: int
    closed: int
    next: int | None = None
