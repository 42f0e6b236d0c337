"""What an operation asks of the worker, as the context writes it down and the worker carries it out.

Durations are in microseconds. The machine in between does not look into these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

from troth.codec import Sealed
from troth.core import PROMISE
from troth.retry import Retry

WAIT: Final = "wait"
"""The kind of operation that waits for somebody else's promise."""
CALL: Final = "call"
"""A child whose end the workflow's own end waits for."""
START: Final = "start"
"""A child that outlives the workflow."""

CREATIONS: Final = frozenset({PROMISE, WAIT, CALL, START})
"""The kinds of operations that Postgres has to hear of before anything else is done."""

Isolation: TypeAlias = Literal["read_committed", "repeatable_read", "serializable"]
Close: TypeAlias = Literal["cancel", "wait"]


class StepRequest(Struct, frozen=True, eq=False):
    """A function to call outside the workflow; in a transaction of ours where `isolation` says which."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    is_async: bool
    retry: Retry | None = None
    timeout_s: float | None = None
    isolation: Isolation | None = None


class PromiseRequest(Struct, frozen=True, eq=False):
    """A latent promise to make under the operation's ID."""

    timeout: int | None
    default: Sealed | None
    title: str | None
    tags: Mapping[str, str] | None


class WaitRequest(Struct, frozen=True, eq=False):
    """A promise of the namespace to wait for."""

    promise: str


class ChildRequest(Struct, frozen=True, eq=False):
    """A workflow to start, under the operation's ID unless one is given; `arguments` is their plain JSON text."""

    function: str
    arguments: bytes
    id: str | None
    queue: str | None
    priority: int
    delay: int | None
    timeout: int | None
    title: str | None
    tags: Mapping[str, str] | None
