"""When a step that failed is tried again, and after how long. A value and two pure questions: no clock, no chance."""

from __future__ import annotations

import contextlib
import inspect
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias, cast

import structlog

from troth import limits
from troth.errors import InvalidArgument
from troth.remote.classes import type_name

Fatal: TypeAlias = type[BaseException] | str
"""An exception's class, or its name: `app.errors.Declined`, or just `Declined`."""

ATTEMPTS_MAX: Final = 2_147_483_647
"""As many as Postgres counts in an integer."""
LONGEST: Final = timedelta(minutes=5)

_log = structlog.get_logger("troth.retry")


@dataclass(frozen=True, slots=True, init=False)
class Retry:
    """How often a step is tried, and how long it waits between two attempts.

    `attempts`: how many in all, the first included; None for no end. `first`: the wait after the first failure (a timedelta,
    or seconds), `factor`: by how much each wait is longer than the one before, `longest`: what no wait exceeds (five minutes,
    or `first` if that is more). `jitter`: the share of each wait, 0 to 1, that chance may take away, so that steps which
    failed together do not come back together. `fatal`: classes of errors, or their names, after which there is no other
    attempt; their subclasses count. `when`: asked with the error, says whether to try again; where it fails itself, the
    answer is no. What does not derive from `Exception` is never tried again.

    Raises `InvalidArgument` for what cannot be.

        >>> from troth.retry import Retry
        >>> retry = Retry(attempts=4, first=1, factor=3, longest=5, jitter=0, fatal=(PermissionError,))
        >>> [retry.delay(failed, chance=0.5).total_seconds() for failed in (1, 2, 3)]
        [1.0, 3.0, 5.0]
        >>> retry.again(ConnectionError("reset"), attempt=3), retry.again(ConnectionError("reset"), attempt=4)
        (True, False)
        >>> retry.again(PermissionError("no"), attempt=1)
        False
    """

    attempts: int | None
    first: timedelta
    factor: float
    longest: timedelta
    jitter: float
    fatal: tuple[Fatal, ...]
    when: Callable[[BaseException], bool] | None

    def __init__(
        self,
        *,
        attempts: int | None = 5,
        first: timedelta | float = timedelta(seconds=1),
        factor: float = 2.0,
        longest: timedelta | float | None = None,
        jitter: float = 0.1,
        fatal: Fatal | Iterable[Fatal] = (),
        when: Callable[[BaseException], bool] | None = None,
    ) -> None:
        # frozen, and given more kinds of things than are kept
        keep = object.__setattr__
        keep(self, "attempts", _checked_attempts(attempts))
        keep(self, "first", _span("first", first, timedelta(0)))
        longest = max(LONGEST, self.first) if longest is None else longest
        keep(self, "longest", _span("longest", longest, self.first))
        keep(self, "factor", _number("factor", factor, 1, math.inf))
        keep(self, "jitter", _number("jitter", jitter, 0, 1))
        keep(self, "fatal", _checked_fatal(fatal))
        keep(self, "when", _checked_predicate(when))

    def delay(self, attempt: int, chance: float) -> timedelta:
        """How long to wait after attempt number `attempt` (from 1) failed; `chance` is at least 0 and below 1.

        At most `longest`, and never less than that wait without its `jitter`.
        """
        if attempt < 1 or not 0 <= chance < 1:
            raise InvalidArgument(
                f"Attempt {attempt} and chance {chance} cannot be: from 1, and 0 to below 1."
            )
        return self._whole(attempt) * (1 - self.jitter * chance)

    def again(self, error: BaseException, attempt: int) -> bool:
        """Whether to try once more after attempt number `attempt` (from 1) failed with this error."""
        if not isinstance(error, Exception) or (self.attempts is not None and attempt >= self.attempts):
            return False
        return not any(_is_of(error, each) for each in self.fatal) and self._wanted(error)

    def _whole(self, attempt: int) -> timedelta:
        """The wait before chance takes some of it."""
        if not self.first:
            return self.first
        try:
            return min(self.first * self.factor ** min(attempt - 1, sys.maxsize), self.longest)
        except OverflowError:  # of floats or of timedeltas: more than anybody could wait
            return self.longest

    def _wanted(self, error: Exception) -> bool:
        if self.when is None:
            return True
        try:
            return bool(self.when(error))
        except Exception as broken:  # noqa: BLE001 — whatever it is, nobody said that the step may run again
            said = f"Not tried again: Retry's when= raised {type(broken).__qualname__}."
            _log.warning(said, error=type_name(type(error)), exc_info=True)
            # some classes refuse notes, and the error is what matters
            with contextlib.suppress(Exception):
                error.add_note(said)
            return False


def _is_of(error: Exception, fatal: Fatal) -> bool:
    if not isinstance(fatal, str):
        return isinstance(error, fatal)
    return any(fatal in (each.__name__, each.__qualname__, type_name(each)) for each in type(error).__mro__)


def _checked_attempts(attempts: object) -> int | None:
    if attempts is None:
        return None
    if isinstance(attempts, bool) or not isinstance(attempts, int) or not 1 <= attempts <= ATTEMPTS_MAX:
        raise InvalidArgument(
            f"Retry cannot have attempts={attempts!r}: give a whole number from 1, the first attempt included,"
            " or None for no end."
        )
    return attempts


def _span(name: str, span: object, least: timedelta) -> timedelta:
    most = timedelta(days=limits.timeout_days_max)
    given = span
    if isinstance(span, int | float) and not isinstance(span, bool):
        # not a number, or more seconds than a timedelta has: told below
        with contextlib.suppress(ValueError, OverflowError):
            given = timedelta(seconds=span)
    if not isinstance(given, timedelta) or not least <= given <= most:
        raise InvalidArgument(
            f"Retry cannot have {name}={span!r}: give a timedelta, or seconds, from {least} to {most}."
        )
    return given


def _number(name: str, number: object, least: float, most: float) -> float:
    if not isinstance(number, bool) and isinstance(number, int | float) and least <= number <= most:
        with contextlib.suppress(OverflowError):
            if math.isfinite(float(number)):
                return float(number)
    upwards = f"from {least}" if most == math.inf else f"from {least} to {most}"
    raise InvalidArgument(f"Retry cannot have {name}={number!r}: give a number {upwards}.")


def _checked_fatal(fatal: object) -> tuple[Fatal, ...]:
    several = isinstance(fatal, Iterable) and not isinstance(fatal, type | str)
    kept: list[Fatal] = []
    for each in cast("Iterable[object]", fatal if several else (fatal,)):
        is_name = isinstance(each, str) and all(part.isidentifier() for part in each.split("."))
        if not is_name and not (isinstance(each, type) and issubclass(each, BaseException)):
            raise InvalidArgument(
                f"Retry cannot have {each!r:.120} among fatal=: give classes of exceptions, or their names such as"
                " 'app.errors.Declined'."
            )
        kept.append(cast("Fatal", each))
    return tuple(kept)


def _checked_predicate(when: object) -> Callable[[BaseException], bool] | None:
    if when is not None and (not callable(when) or inspect.iscoroutinefunction(when)):
        raise InvalidArgument(
            f"Retry cannot have when={when!r:.120}: give a plain function that takes the error and says True or False."
        )
    return cast("Callable[[BaseException], bool] | None", when)
