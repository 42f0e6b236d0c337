"""What the SQL functions answer, as frozen values.

Each class is decoded straight from the JSON text of one kind of document; keys that a newer schema adds are
ignored. Payloads (`args`, `value`, `error`) stay raw JSON: only the codec, given a type, opens them. An absent
payload is JSON null. Instants are timezone-aware datetimes, except in the journal, where they are integer
microseconds since the Unix epoch, as workers count them. This file knows nothing of Postgres, of types of users,
or of codecs.
"""

from __future__ import annotations

import traceback
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Protocol, TypeAlias, cast

import msgspec

from troth import limits
from troth.errors import ErrorDetails, StoredError

PromiseState: TypeAlias = Literal["pending", "resolved", "rejected", "canceled", "timedout"]
TaskState: TypeAlias = Literal["ready", "claimed", "suspended", "halted"]
SettleAnswer: TypeAlias = Literal["settled", "already", "conflict", "not_latent", "unknown", "requested"]
OperatorAnswer: TypeAlias = Literal[
    "halted", "resumed", "already", "settled", "unknown", "not_halted", "latent"
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

    def without_data(self) -> ErrorInfo:
        """The same, here and in its causes, but for the data."""
        cause = None if self.cause is None else self.cause.without_data()
        return msgspec.structs.replace(self, data=None, cause=cause)


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
    """What an operator's `halt` or `resume` answers."""

    answer: OperatorAnswer
    promise: PromiseInfo | None = None


class JournalEntry(msgspec.Struct, frozen=True):
    """One checkpoint: an event that a workflow's code has been told, at `seq`.

    `at` is in microseconds since the Unix epoch. `issued` is the seq after which code issued the operation.
    """

    seq: int
    operation: str
    kind: str
    state: str
    at: int
    issued: int = 0
    epoch: int = 0
    digest: int | None = None
    value: msgspec.Raw = JSON_NULL
    error: msgspec.Raw = JSON_NULL
    headers: dict[str, Any] | None = None
    promise: str | None = None

    @property
    def instant(self) -> datetime:
        """`at` as a datetime in UTC."""
        return _EPOCH + timedelta(microseconds=self.at)


# How an exception becomes an `ErrorInfo`.


def describe_error(error: BaseException) -> ErrorInfo:
    """What is stored of an exception: bounded, and never failing, whatever the exception is like."""
    return _described(error, limits.error_causes_max, set())


def _described(error: BaseException, causes_left: int, told: set[int]) -> ErrorInfo:
    told.add(id(error))
    below = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    cause: ErrorInfo | None = None
    if isinstance(error, StoredError):
        cause = _copied(error.error, causes_left - 1)
    elif below is not None and id(below) not in told and causes_left > 0:
        cause = _described(below, causes_left - 1, told)
    return ErrorInfo(
        type=_error_type(type(error)),
        message=_bounded(_message(error), limits.error_message_bytes_max),
        data=_error_data(error),
        traceback=_frames(error),
        cause=cause,
    )


def _copied(error: ErrorDetails, causes_left: int) -> ErrorInfo:
    cause = _copied(error.cause, causes_left - 1) if error.cause is not None and causes_left > 0 else None
    message = _bounded(error.message, limits.error_message_bytes_max)
    return ErrorInfo(error.type, message, error.data, error.traceback, cause)


def _error_type(cls: type) -> str:
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    return _bounded(name, limits.error_type_length_max)


def _error_data(error: BaseException) -> Any:
    """What an error carries beside its message: the members of a group. A stored one has its own below it."""
    if not isinstance(error, BaseExceptionGroup):
        return None
    members = cast("BaseExceptionGroup[BaseException]", error).exceptions[: limits.error_causes_max]
    return {
        "exceptions": [
            {
                "type": _error_type(type(each)),
                "message": _bounded(_message(each), limits.error_member_bytes_max),
            }
            for each in members
        ]
    }


def _message(error: BaseException) -> str:
    notes: object = getattr(error, "__notes__", None)
    lines = cast("list[object]", notes) if isinstance(notes, list) else []
    return "\n".join([text_of(error), *(line for line in lines if isinstance(line, str))])


def text_of(error: BaseException) -> str:
    """What an exception says of itself, even if it cannot."""
    try:
        text = str(error)
        return str.__str__(text)
    except Exception as broken:  # noqa: BLE001 — an error about an error helps nobody
        return f"<its message could not be made: {type(broken).__qualname__}>"


def _frames(error: BaseException) -> str | None:
    """The last frames of the traceback. Only places in code: messages stand elsewhere, bounded."""
    frames = traceback.format_tb(error.__traceback__, limit=-limits.error_frames_max)
    text = "".join(frames)
    if not text:
        return None
    most = limits.error_traceback_bytes_max
    return _bounded(text[-most:], most)


def _bounded(text: str, bytes_max: int) -> str:
    """At most so many bytes of UTF-8, of characters that Postgres can store."""
    clean = text[:bytes_max].replace("\0", "\ufffd").encode(errors="replace")
    if len(text) <= bytes_max and len(clean) <= bytes_max:
        return clean.decode()
    mark = "…"
    return clean[: bytes_max - len(mark.encode())].decode(errors="ignore") + mark


class Claimed(msgspec.Struct, frozen=True):
    """A task that a worker was given. Instants are microseconds since the Unix epoch; payloads JSON text."""

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
    journal: list[JournalEntry]


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
