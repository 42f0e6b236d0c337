"""What goes into a machine and what comes out of it: values, all of them frozen.

Out come operations (do this, wait for that) and, at the end, an outcome. In go entries: the journal, one event at a
time. None of these knows the machine, and what an operation's `request` or an entry's `outcome` holds is known only
to the two who agreed on it: the context that issued the operation and the worker that carries it out.
"""

from __future__ import annotations

from types import CodeType
from typing import Final, Generic, Literal, TypeAlias, TypeVar

import msgspec

T_co = TypeVar("T_co", covariant=True)

# The kinds of operations. There are more: the machine treats all but timers, patches and cancels alike.
STEP: Final = "step"
PROMISE: Final = "promise"
TIMER: Final = "timer"
PATCH: Final = "patch"
CANCEL: Final = "cancel"

CANCEL_PATH: Final = "~cancel"
"""Where the journal keeps a request to cancel: no name can begin with `~`, so no operation is ever called so."""

TIMER_NAME: Final = "timer"

Binding: TypeAlias = Literal["", "cancel", "wait", "outlives"]
"""What the workflow's end means to an operation that is open then: it is nobody's any more; it is given up, and its end is
waited for; its end is waited for; it goes on without the workflow, and is still to be begun where it was not."""


class Operation(msgspec.Struct, frozen=True, eq=False):
    """One thing that the code wants done or waits for, under a name that every replay gives it again.

    `issued` is the seq of the last entry told before the code issued it (0: none), `at` the instant of that entry in
    microseconds. `request` is opaque; of a timer it is its duration in microseconds, and `digest` the same. A
    operation bound to "cancel" or "wait" that is open when the code ends keeps the workflow from ending.
    """

    path: str
    kind: str
    issued: int
    digest: int | None
    request: object
    at: int
    where: tuple[CodeType, int] | None = None
    binding: Binding = ""

    @property
    def line(self) -> str | None:
        """The line of the user's code that issued it, as `file.py:12`; worked out only when somebody asks."""
        if self.where is None:
            return None
        code, offset = self.where
        file = code.co_filename.replace("\\", "/").rpartition("/")[2]
        for start, end, line in code.co_lines():
            if start <= offset < end and line is not None:
                return f"{file}:{line}"
        return f"{file}:{code.co_firstlineno}"


class Entry(msgspec.Struct, frozen=True):
    """One event of the journal, as it is told to the code: what became of one operation, or a request to cancel.

    `issued` is that of its operation, or None where a person wrote the entry and it stands wherever the code asks for it.
    `cohort` is the machine's number for all that was issued together with the operation, where it was recorded.
    """

    seq: int
    path: str
    kind: str
    issued: int | None
    digest: int | None
    state: str
    outcome: object
    at: int
    cohort: int | None = None


class Returned(msgspec.Struct, Generic[T_co], frozen=True):
    """The workflow returned."""

    value: T_co


class Raised(msgspec.Struct, frozen=True, eq=False):
    """An exception left the workflow."""

    exception: BaseException


class CanceledOutcome(msgspec.Struct, frozen=True):
    """CancelledError left the workflow: it was canceled and let that happen."""


Outcome: TypeAlias = Returned[T_co] | Raised | CanceledOutcome
