"""The function that ends a user's own transaction: the step's effect and its checkpoint by one commit."""

from __future__ import annotations

from collections.abc import Sequence

from troth.calls.call import Call, Row, given, plain
from troth.codec import Sealed
from troth.model import Committed


def commit_step(
    task: str,
    epoch: int,
    operation: str,
    issued: int,
    value: Sealed,
    *,
    cohort: int | None = None,
    digest: int | None = None,
) -> Call[Committed]:
    """Record a step's outcome, to become true with the transaction that this is executed in."""
    return Call(
        "commit_step",
        given(
            task=("text", task),
            epoch=("integer", epoch),
            operation=("text", operation),
            issued=("integer", issued),
            cohort=("integer", cohort),
            digest=("bigint", digest),
            value=("jsonb", plain(value.data)),
            headers=("jsonb", plain(value.headers)),
        ),
        _read,
        ("answer", "seq", "at"),
    )


def _read(rows: Sequence[Row]) -> Committed:
    ((answer, seq, at),) = rows
    return Committed(answer, seq, at)
