"""Histories: a few clients, side by side, make random calls on a few promises, and what each was told is written down."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, Final

from tests.proof.histories.checker import refuted, shown
from tests.proof.histories.clients import Client
from tests.proof.histories.promise import Call

CALLS: Final = 7
"""Of each client in one history."""
PROMISES: Final = 2
LOST: Final = 0.06
_VERBS: Final = {"create": 5, "start": 1.5, "resolve": 5, "reject": 3, "cancel": 2, "get": 7}


class Refuted(AssertionError):
    """A history that no order of its calls explains."""


def record(clients: Sequence[Client], rng: random.Random, name: str) -> list[Call]:
    """One history, its promises named after it."""
    ids = [f"{name}.{n}" for n in range(PROMISES)]
    plans = [[_call(rng, rng.choice(ids), n) for _ in range(CALLS)] for n in range(len(clients))]
    # somebody has to make something, and soon
    for id, plan in zip(ids, plans, strict=False):
        plan[0] = _made(rng, id, plan[0].client)
    lost = [[rng.random() < LOST for _ in plan] for plan in plans]
    barrier = Barrier(len(clients))

    def live(n: int) -> None:
        barrier.wait(timeout=60)
        for call, give_up in zip(plans[n], lost[n], strict=True):
            call.begin = time.time()
            clients[n].make(call, give_up=give_up)

    with ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(live, range(len(clients))))
    return [call for plan in plans for call in plan]


def _call(rng: random.Random, id: str, client: int) -> Call:
    verb = rng.choices(list(_VERBS), list(_VERBS.values()))[0]
    if verb in {"create", "start"}:
        return _made(rng, id, client)
    given: dict[str, Any] = {}
    if verb == "resolve":
        given = {"payload": rng.randint(1, 3)}
    elif verb == "reject":
        given = {"payload": rng.choice(("no", "never"))}
    elif verb == "cancel":
        given = {"reason": f"by {client}"}
    return Call(verb, id, given, client, begin=0)


def _made(rng: random.Random, id: str, client: int) -> Call:
    timeout = rng.choice((None, None, 0.002, 0.005, 0.02, 0.05))
    if rng.random() < 0.2:
        given = {
            "function": rng.choice("fg"),
            "args": rng.choice(('{"n": 1}', '{"n": 2}')),
            "timeout": timeout,
        }
        return Call("start", id, given, client, begin=0)
    default = rng.choice((None, 1)) if timeout else None
    return Call("create", id, {"timeout": timeout, "default": default}, client, begin=0)


def check(clients: Sequence[Client], seeds: range) -> Counter[str]:
    """Record and check histories; what they came to. Raises `Refuted` with the first that nothing explains."""
    reached: Counter[str] = Counter()
    for seed in seeds:
        calls = record(clients, random.Random(seed), f"h{seed}")
        wrong = refuted(calls)
        if wrong:
            parts = "\n\n".join(f"{id}:\n{shown(part)}" for id, part in wrong.items())
            raise Refuted(f"history {seed}: no order of these calls explains what was told\n{parts}")
        reached["histories"] += 1
        reached["calls"] += len(calls)
        for call in calls:
            if call.answer is None:
                reached["lost"] += 1
            else:
                reached[f"{call.verb} {call.answer.word}"] += 1
                reached[f"seen {call.answer.seen[0] if call.answer.seen else 'nothing'}"] += 1
        reached["side by side"] += sum(
            a.id == b.id and a.client < b.client and a.begin < b.end and b.begin < a.end
            for a in calls
            for b in calls
        )
    return reached
