"""The attempts of one workflow's steps: how often each has failed, when it is tried again, how far the running one has come.

All of it is outside the workflow's order: its code hears of a step's outcome alone. What is said here goes to Postgres with the
next turn, so that whoever holds the task next goes on counting.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import msgspec

from troth.calls import Attempt
from troth.codec import Payloads, Sealed
from troth.model import StepAttempt

ATTEMPTS_MAX: Final = 1000
"""Attempts that one turn tells of."""


class _Sealing(msgspec.Struct, omit_defaults=True):
    """A payload with what the codec says of it, in one JSON document."""

    value: msgspec.Raw
    headers: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


@dataclass(slots=True)
class _Tried:
    number: int
    ended: bool
    retry_at: int | None = None
    details: Any = None
    kept: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    failed: bool = False


class Attempts:
    """What is known of the attempts of the steps that have no outcome yet: of those that failed or said something."""

    __slots__ = ("_payloads", "_said", "_tried", "unsaid")

    def __init__(self, steps: Sequence[StepAttempt], payloads: Payloads) -> None:
        self._payloads = payloads
        self._tried = {
            step.operation: _Tried(
                step.number,
                step.ended,
                step.retry_at,
                self._opened(step.details),
                _kept(step.details),
                failed=step.ended or step.number > 1,
            )
            for step in steps
        }
        self.unsaid: dict[tuple[str, int], Attempt] = {}
        """What there is to say, by operation and number."""
        self._said: dict[tuple[str, int], Attempt] = {}

    def begin(self, path: str) -> tuple[int, Any]:
        """An attempt begins: its number, and what the last heartbeat before it said.

        One that its process did not survive counts for nothing: it has the same number again.
        """
        tried = self._tried.get(path)
        if tried is None:
            return 1, None
        if tried.ended:
            tried.number += 1
            tried.ended = False
        return tried.number, tried.details

    def failed_before(self, path: str) -> bool:
        """Whether a step has failed before, so that a timer may still wait for its next attempt."""
        tried = self._tried.get(path)
        return tried is not None and tried.failed

    def failed(self, path: str, error: Sealed, again_in: int, elapsed: int) -> None:
        """The attempt failed after so many microseconds; the next one begins in so many."""
        tried = self._of(path)
        tried.ended = tried.failed = True
        self.unsaid[path, tried.number] = Attempt(
            "",
            path,
            tried.number,
            error=self._wrapped(error) if error.headers else msgspec.Raw(error.data),
            details=tried.kept,  # those of the attempt before, if this one said none: the next one may be elsewhere
            ended=True,
            retry_in=again_in,
            elapsed=elapsed,
        )

    def beat(self, path: str, details: Sealed, elapsed: int) -> None:
        """The attempt goes on after so many microseconds and has come so far."""
        tried = self._of(path)
        tried.kept = self._wrapped(details)
        tried.details = self._payloads.open(details.data, details.headers, object, "The details")
        self.unsaid[path, tried.number] = Attempt("", path, tried.number, details=tried.kept, elapsed=elapsed)

    def say(self, task: str) -> list[Attempt]:
        """What is to be said with this turn; there may be more."""
        if not self.unsaid:
            return []
        now = list(islice(self.unsaid.items(), ATTEMPTS_MAX))
        self._said.update(now)
        for key, _ in now:
            del self.unsaid[key]
        for attempt in self._said.values():
            attempt.task = task
        return list(self._said.values())

    def said(self) -> None:
        """The turn was heard."""
        if self._said:
            self._said = {}

    def unheard(self) -> None:
        """The turn was not heard: it is to be said again."""
        self.unsaid = {**self._said, **self.unsaid}
        self._said = {}

    def postponed(self) -> Iterator[tuple[str, int]]:
        """Steps that are not to start before an instant."""
        for path, tried in self._tried.items():
            if tried.ended and tried.retry_at is not None:
                yield path, tried.retry_at

    def _of(self, path: str) -> _Tried:
        tried = self._tried.get(path)
        if tried is None:
            tried = self._tried[path] = _Tried(1, ended=False)
        return tried

    def _wrapped(self, sealed: Sealed) -> msgspec.Raw:
        headers = msgspec.UNSET if sealed.headers is None else msgspec.Raw(sealed.headers)
        return msgspec.Raw(msgspec.json.encode(_Sealing(msgspec.Raw(sealed.data), headers)))

    def _opened(self, details: msgspec.Raw | None) -> Any:
        if isinstance(kept := _kept(details), msgspec.UnsetType):
            return None
        sealing = msgspec.json.decode(kept, type=_Sealing)
        headers = None if isinstance(sealing.headers, msgspec.UnsetType) else bytes(sealing.headers)
        return self._payloads.open(sealing.value, headers, object, "The details")


def _kept(details: msgspec.Raw | None) -> msgspec.Raw | msgspec.UnsetType:
    return msgspec.UNSET if not details or bytes(details) == b"null" else details
