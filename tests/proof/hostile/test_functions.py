"""Every entry function under hostile arguments: only our own errors and plain ones come back, and everything still holds.

The view of violations is looked at behind each test, as ever (`dsn`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import psycopg
import pytest

from tests.proof.hostile.calling import Caller, Outcome, tally

CALLS = int(os.environ.get("TROTH_HOSTILE_CALLS", "100000"))
SEED = int(os.environ.get("TROTH_HOSTILE_SEED", "0"))
PARTS = 5
SHARES = {"client": 0.3, "worker": 0.4, "admin": 0.3}

DOCUMENTED = {
    "25001": "a function that settles was called outside READ COMMITTED",
    "55P03": "a promise was being created by another at that moment",
    "54001": "JSON of thousands of levels is too deep for Postgres itself to read",
    "54000": "JSON with too many or too long keys is too much for Postgres itself to read",
}


def is_ours(outcome: Outcome) -> bool:
    """An answer, one of our errors, a documented one, or plain data that no parameter of that type can take.

    Data found wanting only when a row was written had come through the checks. But a field of a JSON item is read there,
    and one of the wrong type is an error of the whole call.
    """
    if outcome.state.startswith("22"):
        written = outcome.place.startswith(('SQL statement "update', 'SQL statement "insert'))
        return not written or "jsonb_to_record" in outcome.place
    return outcome.state == "00000" or outcome.state.startswith("TR") or outcome.state in DOCUMENTED


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("role", SHARES)
def test_hostile_arguments_bring_nothing_but_our_own_errors(
    role: str, part: int, connect: Callable[..., psycopg.Connection[Any]], db: psycopg.Connection[Any]
) -> None:
    session = connect()
    session.execute(f"set session authorization troth_{role}".encode())
    session.execute("set client_min_messages = error")
    many = int(CALLS * SHARES[role] / PARTS)
    random = Random(f"{SEED} {role} {part}")
    counts, offenders = tally(Caller(session, db, random).calls(many), is_ours)
    assert counts.total() >= many
    assert not offenders, _told(offenders)
    assert session.execute("select 1").fetchone() == (1,)
    _everything_was_reached(counts)


def _everything_was_reached(counts: Counter[tuple[str, str]]) -> None:
    """Each function went through, and what was refused was refused by us as well as by the types."""
    functions = {name for name, _ in counts}
    through = {name for name, state in counts if state == "00000"}
    assert through == functions, f"never went through: {functions - through}"
    refused = sum(number for (_, state), number in counts.items() if state.startswith("TR"))
    assert refused > counts.total() / 20, counts


def _told(offenders: list[Outcome]) -> str:
    shown: dict[tuple[str, str, str], Outcome] = {}
    for each in offenders:
        shown.setdefault((each.function, each.state, each.message[:60]), each)
    return f"{len(offenders)} offenders, {len(shown)} kinds\n" + "\n\n".join(
        f"{each.state} {each.message}\n{each.call[:1500]}\n{each.place}" for each in shown.values()
    )
