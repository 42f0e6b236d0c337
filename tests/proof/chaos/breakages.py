"""Ways to break the engine on purpose (`--break NAME`): a run that does not see them would prove nothing.

- `forgetful`: Postgres says that something is committed before it has written it, so its death takes acknowledged things along.
- `unfenced`: a worker's turn is accepted whatever its epoch, so zombies write.
- `unfenced-transactions`: the same for the outcome of a transactional step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, LiteralString, cast

import psycopg

_SETTINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "forgetful": {"synchronous_commit": "off", "wal_writer_delay": "10s"}
}
_FUNCTIONS: Final[Mapping[str, tuple[str, str, str]]] = {
    "unfenced": ("_lock_turns", "h.state <> 'claimed' or h.epoch <> t.epoch", "h.state <> 'claimed'"),
    "unfenced-transactions": (
        "commit_step",
        "v_task.state <> 'claimed' or v_task.epoch is distinct from p_epoch or v_task.timeout_at <= v_now",
        "false",
    ),
}
BREAKAGES: Final = (*_SETTINGS, *_FUNCTIONS)


def breakage_settings(name: str | None) -> Mapping[str, str]:
    """The server's settings for a breakage."""
    return _SETTINGS.get(name or "", {})


def break_functions(connection: psycopg.Connection[Any], name: str | None) -> None:
    """Replace a function of the namespace `troth` by a broken one."""
    if name is None or name not in _FUNCTIONS:
        return
    function, right, wrong = _FUNCTIONS[name]
    (text,) = connection.execute(
        "select pg_get_functiondef(oid) from pg_proc where proname = %s and pronamespace = 'troth'::regnamespace",
        [function],
    ).fetchone() or ("",)
    assert text.count(right) == 1, f"{function} does not say {right!r} once"
    with connection.transaction():
        connection.execute("set local search_path = troth, pg_temp")
        connection.execute(cast("LiteralString", text.replace(right, wrong)))
