"""The oracle: what each public function answers and leaves behind, said in plain Python.

Written from the law (docs/design.md and sql/README.md), so that it and the SQL are two tellings of one contract. It knows one
session at a time: nothing is ever held by somebody else (races have proofs of their own).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tests.proof.model import clients, operators, ticking, turns, workers
from tests.proof.model.rows import Json, Limits
from tests.proof.model.state import Refused, State, Undetermined

VERBS: Final[dict[str, Callable[[State, dict[str, Any]], Json]]] = {
    "start": clients.start,
    "start_many": clients.start_many,
    "start_together": clients.start_together,
    "start_each": clients.start_each,
    "create_promise": clients.create_promise,
    "resolve": clients.resolve,
    "reject": clients.reject,
    "cancel": clients.cancel,
    "settle_many": clients.settle_many,
    "get": clients.get,
    "search": clients.search,
    "tree": clients.tree,
    "journal": clients.journal,
    "register": workers.register,
    "claim": workers.claim,
    "advance": turns.advance,
    "commit_step": workers.commit_step,
    "heartbeat": workers.heartbeat,
    "leave": workers.leave,
    "tick": ticking.tick,
    "halt": operators.halt,
    "resume": operators.resume,
    "cancel_force": operators.cancel_force,
    "fork": operators.fork,
    "settle_step": operators.settle_step,
    "purge": operators.purge,
}


class Oracle:
    def __init__(self, limits: Limits, actor: str) -> None:
        self.state = State(limits, actor)

    def call(self, verb: str, given: dict[str, Any], now: int, *, read_committed: bool = True) -> Json:
        """The answer, or `{"sqlstate"}`; the tables are as the call leaves them. Undetermined calls leave them as they were."""
        state = self.state
        state.now, state.read_committed = now, read_committed
        for table in state.tables().values():
            table.before.clear()
        met = state.met.copy()
        try:
            return VERBS[verb](state, given)
        except (Refused, Undetermined) as refused:
            for table in state.tables().values():
                table.take_back()
            state.met = met
            if isinstance(refused, Undetermined):
                raise
            return {"sqlstate": refused.sqlstate}
