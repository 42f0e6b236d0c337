"""What a step can ask about itself while it runs."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from troth.errors import StepAbandoned, WorkflowMisuse


class StepInfo:
    """The attempt that is running: whose step it is, the how-manieth attempt, and how far an earlier one came.

    `workflow` is the workflow's ID, `operation` the step's path in it, `attempt` counts from 1. `details` is what the last
    heartbeat of an attempt before this one said, or None.

        key = troth.step_info().id
    """

    __slots__ = ("_abandoned", "_beat", "attempt", "details", "operation", "workflow")

    def __init__(
        self,
        workflow: str,
        operation: str,
        *,
        attempt: int,
        details: Any,
        beat: Callable[[object], None],
        abandoned: Callable[[], bool],
    ) -> None:
        self.workflow = workflow
        self.operation = operation
        self.attempt = attempt
        self.details = details
        self._beat = beat
        self._abandoned = abandoned

    @property
    def id(self) -> str:
        """The step's ID in the namespace: good as an idempotency key, the same at each attempt."""
        return f"{self.workflow}~{self.operation}"

    def heartbeat(self, details: object = None) -> None:
        """Say that this attempt goes on, and how far it has come: JSON, which an attempt after this one finds in `details`.

        It is stored with the worker's next word to Postgres; call it as often as you like. Raises `StepAbandoned` when
        nobody waits for this attempt any more (it timed out, the workflow gave it up, or its task is with another worker):
        a thread cannot be stopped from outside, so it should stop here.

            for page in range((troth.step_info().details or 0), 100):
                load(page)
                troth.step_info().heartbeat(page + 1)
        """
        if self._abandoned():
            raise StepAbandoned(self.id)
        self._beat(details)


CURRENT: Final[ContextVar[StepInfo]] = ContextVar("troth step")


def step_info() -> StepInfo:
    """What is running here: to be called inside a step, async or in its thread. Raises `WorkflowMisuse` anywhere else."""
    try:
        return CURRENT.get()
    except LookupError:
        raise WorkflowMisuse(
            "troth.step_info() was called where no step runs: it is for the functions that ctx.run() calls."
        ) from None
