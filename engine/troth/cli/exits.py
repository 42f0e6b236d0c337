"""What a command's exit code means: the one place that says so."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from troth.errors import SchemaMismatch, TrothError
from troth.model import OperatorAnswer, SettleAnswer


class Exit(IntEnum):
    """The exit codes of `troth`."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    SCHEMA = 5
    INTERRUPTED = 130


MEANINGS: Final = {
    Exit.OK: "done, or what was asked for is so",
    Exit.FAILED: "refused: a conflict, a negative answer, a problem found, a failure",
    Exit.USAGE: "what was asked cannot be: mend the command, the ID or the value",
    Exit.NOT_FOUND: "nothing has this ID or name",
    Exit.UNREACHABLE: "Postgres cannot be reached",
    Exit.SCHEMA: "the schema is missing, or does not fit this release: troth migrate",
    Exit.INTERRUPTED: "interrupted with Ctrl-C",
}

_BY_STATUS: Final = {
    400: Exit.USAGE,
    404: Exit.NOT_FOUND,
    413: Exit.USAGE,
    422: Exit.USAGE,
    503: Exit.UNREACHABLE,
}

_BY_ANSWER: Final[dict[SettleAnswer | OperatorAnswer, Exit]] = {
    "settled": Exit.OK,
    "already": Exit.OK,
    "requested": Exit.OK,
    "halted": Exit.OK,
    "resumed": Exit.OK,
    "recorded": Exit.OK,
    "conflict": Exit.FAILED,
    "not_latent": Exit.FAILED,
    "not_halted": Exit.FAILED,
    "not_a_step": Exit.FAILED,
    "latent": Exit.FAILED,
    "unknown": Exit.NOT_FOUND,
}


def exit_of(error: TrothError) -> Exit:
    """The exit code of an error: that of its HTTP status, and of a schema that does not fit its own."""
    if isinstance(error, SchemaMismatch):
        return Exit.SCHEMA
    return _BY_STATUS.get(error.status, Exit.FAILED)


def exit_of_decision(answer: SettleAnswer) -> Exit:
    """The exit code of what `resolve`, `reject` and `cancel` answer."""
    return _BY_ANSWER[answer]


def exit_of_operation(answer: OperatorAnswer) -> Exit:
    """The exit code of what `halt`, `resume` and `settle_step` answer; of a workflow that has ended all are refused."""
    return Exit.FAILED if answer == "settled" else _BY_ANSWER[answer]
