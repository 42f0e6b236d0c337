"""What breaks each invariant: statements of a superuser, past the functions, on the small world of `world.py`.

A key is the invariant and, where it has several sides, a word for the side. `alone` means that nothing else is named by
then; where a deed cannot but break others too (who leaves `resolved` changes a frozen row), they are listed.
"""

# ruff: noqa: E501 (a violator is one line)

from __future__ import annotations

from typing import Final, NamedTuple


class Violator(NamedTuple):
    """Statements, and which invariants besides its own they cannot but break."""

    deed: str
    also: frozenset[str] = frozenset()


def _by(deed: str, *also: str) -> Violator:
    return Violator(deed, frozenset(also))


CHANGES: Final[dict[str, Violator]] = {
    "I7 id": _by("update promise set id = 'another' where id = 'suspended~approval'"),
    "I7 function": _by("update promise set function = 'g' where id = 'ready'"),
    "I7 arguments": _by("update promise set args = '[1]' where id = 'ready'"),
    "I7 tags": _by("update promise set tags = '{\"a\": \"b\"}' where id = 'ready'"),
    "I7 timeout": _by("update promise set timeout_at = created_at + interval '1 day', expires_at = created_at + interval '1 day' where id = 'ready'"),
    "I7 creation": _by("update promise set created_at = created_at - interval '1 day' where id = 'ready'"),
    "I7 parent": _by("update promise set parent = 'finished' where id = 'suspended~approval'"),
    "I8": _by("update promise set state = 'rejected', value = null where id = 'finished'", "I9", "I10"),
    "I8 back": _by("update promise set state = 'pending', value = null, value_digest = null, settler = null, settled_at = null, open_at = created_at where id = 'decided'", "I9"),
    "I8 born": _by("insert into promise (id, state, created_at, settled_at, settler) values ('p', 'timedout', now(), now(), 'timeout')"),
    "I9": _by("update promise set value = '\"another\"' where id = 'finished'"),
    "I9 settler": _by("update promise set settler = 'somebody else' where id = 'decided'"),
    "I9 unseen": _by("update promise set seed = seed + 1 where id = 'finished'"),
    "I10": _by("update promise set settled_at = settled_at + interval '1 microsecond' where id = 'finished'", "I9"),
    "I10 never": _by("update promise set state = 'resolved', settler = 'worker', open_at = null where id = 'suspended~approval'"),
    "I11 pending": _by("delete from promise where id = 'suspended~approval'"),
    "I11 waited for": _by("update wait set promise = 'decided' where promise = 'suspended~approval'; delete from promise where id = 'decided'", "I40"),
    "I11 a pending parent": _by("insert into promise (id, parent, created_at, open_at) values ('p', 'suspended', now(), now()); update promise set open_at = null, state = 'timedout', settler = 'timeout', settled_at = now() where id = 'p'; delete from promise where id = 'p'"),
    "I11 a pending ancestor": _by("insert into promise (id, parent, created_at, open_at) values ('p', 'suspended', now(), now()), ('q', 'p', now(), now()); update promise set open_at = null, state = 'timedout', settler = 'timeout', settled_at = now() where id in ('p', 'q'); delete from promise where id = 'q'"),
    "I12": _by("insert into promise (id, created_at, open_at) values ('p', '2020-01-01', '2020-01-01'); update promise set open_at = null, state = 'timedout', settler = 'timeout', settled_at = '2020-01-02' where id = 'p'; delete from promise where id = 'p'; insert into promise (id, created_at, open_at) values ('p', '2020-01-01', '2020-01-01'); update promise set open_at = null, state = 'timedout', settler = 'timeout', settled_at = '2020-01-02' where id = 'p'"),
    "I23 at a claim": _by("update task set state = 'claimed', ready_at = null, worker = 'w1', claimed_at = now(), attempts = 1, epoch = 7, started_at = now() where id = 'ready'"),
    "I23 elsewhere": _by("update task set epoch = epoch + 1 where id = 'suspended'"),
    "I23 born": _by("insert into task (id, state, queue, lane, ready_at, epoch, started_at) values ('t', 'ready', 'q', 'f', now(), 3, now())"),
    "I24": _by("update task set state = 'suspended', ready_at = null where id = 'ready'", "I26"),
    "I24 halted": _by("update task set state = 'suspended', reason = null where id = 'halted'", "I26", "I28"),
    "I24 born": _by("insert into task (id, state, queue, lane, reason) values ('t', 'halted', 'q', 'f', '{}')"),
    "I24 gone": _by("delete from task where id = 'ready'"),
    "I25 worker": _by("update task set worker = 'w2' where id = 'claimed'"),
    "I25 epoch": _by("update task set epoch = epoch + 1 where id = 'claimed'", "I23"),
    "I26": _by("update task set state = 'claimed', worker = 'w1', claimed_at = now() where id = 'suspended'", "I24"),
    "I26 suspended": _by("update task set state = 'suspended', ready_at = null where id = 'ready'", "I24"),
    "I26 born": _by("insert into task (id, state, queue, lane) values ('t', 'suspended', 'q', 'f')"),
    "I27 settled": _by("insert into task (id, state, queue, lane, ready_at) values ('finished', 'ready', 'q', 'f', now()); update task set state = 'claimed', ready_at = null, worker = 'w1', claimed_at = now(), attempts = 1, epoch = 1, started_at = now() where id = 'finished'"),
    "I27 overdue": _by("update task set state = 'claimed', ready_at = null, worker = 'w1', claimed_at = (select timeout_at from promise p where p.id = task.id), attempts = 1, epoch = 1, started_at = now() where id = 'timely'"),
    "I28": _by("update task set state = 'ready', ready_at = now(), reason = null, attempts = 0 where id = 'halted'"),
    "I29 claim": _by("update task set state = 'claimed', ready_at = null, worker = 'w1', claimed_at = now(), epoch = 1, started_at = now() where id = 'ready'"),
    "I29 release": _by("update task set state = 'ready', ready_at = now(), worker = null, claimed_at = null, attempts = attempts + 1 where id = 'claimed'"),
    "I29 forgotten": _by("update task set attempts = 4 where id = 'ready'"),
    "I29 without progress": _by("update task set attempts = 0 where id = 'begun'"),
    "I29 suspension": _by("update task set state = 'suspended', worker = null, claimed_at = null where id = 'begun'"),
    "I29 holder": _by("update task set attempts = attempts + 1 where id = 'claimed'"),
    "I29 resume": _by("insert into audit (id, at, actor, verb, promise, before, after) values (gen_random_uuid(), now(), 'me', 'resume', 'halted', 'halted', 'ready'); update task set state = 'ready', ready_at = now(), reason = null, attempts = 2 where id = 'halted'"),
    "I29 born": _by("insert into task (id, state, queue, lane, ready_at, attempts) values ('t', 'ready', 'q', 'f', now(), 1)"),
    "I33": _by("delete from wait where promise = 'suspended~approval'"),
    "I33 timer": _by("delete from wait where operation = 'later'"),
    "I34": _by("update promise set state = 'timedout', settler = 'timeout', settled_at = timeout_at, expires_at = null, open_at = null where id = 'suspended~soon'; delete from wait where promise = 'suspended~soon'"),
    "I34 sleeps on": _by("update promise set state = 'timedout', settler = 'timeout', settled_at = timeout_at, expires_at = null, open_at = null where id = 'suspended~soon'; insert into checkpoint (task, seq, operation, kind, issued, state, at, epoch) values ('suspended', 1, 'soon', 'promise', 0, 'timedout', now(), 1); delete from wait where promise = 'suspended~soon'"),
    "I35": _by("update checkpoint set value = '\"another\"' where task = 'claimed' and seq = 1"),
    "I35 gone": _by("delete from checkpoint where task = 'claimed' and seq = 2"),
    "I39 epoch": _by("insert into checkpoint (task, seq, operation, kind, issued, state, at, epoch) values ('claimed', 3, 'z-step', 'step', 2, 'resolved', now(), 7)"),
    "I39 not claimed": _by("insert into checkpoint (task, seq, operation, kind, issued, state, at, epoch) values ('suspended', 1, 'z-step', 'step', 0, 'resolved', now(), 1)"),
    "I39 a timer too early": _by("insert into checkpoint (task, seq, operation, kind, issued, state, at, epoch) values ('suspended', 1, 'later', 'timer', 0, 'resolved', now(), 1); delete from wait where operation = 'later'"),
    "I39 asked in vain": _by("insert into audit (id, at, actor, verb, promise, before, after) values (gen_random_uuid(), now(), 'me', 'cancel', 'claimed', 'claimed', 'requested')"),
    "I40 kind": _by("insert into checkpoint (task, seq, operation, kind, issued, state, at, epoch) values ('claimed', 3, 'asked', 'timer', 2, 'resolved', now(), 1)"),
    "I40 digest": _by("insert into checkpoint (task, seq, operation, kind, issued, digest, state, at, epoch) values ('claimed', 3, 'asked', 'promise', 2, 99, 'resolved', now(), 1)"),
    "I40 issued": _by("insert into checkpoint (task, seq, operation, kind, issued, digest, state, at, epoch) values ('claimed', 3, 'asked', 'promise', 1, 7, 'resolved', now(), 1)"),
    "I40 wait": _by("update wait set promise = 'ready' where promise = 'suspended~approval'"),
    "I40 instant": _by("update wait set fire_at = fire_at + interval '1 hour' where operation = 'later'"),
    "I43": _by("update schedule set next_at = next_at - interval '1 day'"),
    "I46 the dead claims": _by("update worker set died_at = now(), sleeping = false where id = 'w1'; update task set state = 'claimed', ready_at = null, worker = 'w1', claimed_at = now(), attempts = 1, epoch = 1, started_at = now() where id = 'ready'"),
    "I46 the dead rises": _by("update worker set died_at = now(), sleeping = false where id = 'w1'; update worker set died_at = null where id = 'w1'"),
    "I48 changed": _by("update audit set actor = 'somebody else' where promise = 'decided'"),
    "I48 gone": _by("delete from audit where promise = 'decided'"),
    "I48 unsaid": _by("update promise set state = 'resolved', settler = 'me', settled_at = now(), open_at = null where id = 'suspended~approval'"),
    "I48 twice": _by("update promise set state = 'resolved', settler = 'me', settled_at = now(), open_at = null where id = 'suspended~approval'; insert into audit (id, at, actor, verb, promise, before, after) select gen_random_uuid(), now(), 'me', 'resolve', 'suspended~approval', 'pending', 'resolved' from generate_series(1, 2)"),
    "I48 halted unsaid": _by("update task set state = 'halted', ready_at = null, reason = '{\"code\": \"operator\"}' where id = 'ready'"),
    "I48 by hand unsaid": _by("insert into checkpoint (task, seq, operation, kind, issued, state, at, epoch) values ('claimed', 3, 'z-step', 'step', null, 'resolved', now(), 1)"),
    "I48 a lie": _by("insert into audit (id, at, actor, verb, promise, before, after) values (gen_random_uuid(), now(), 'me', 'resolve', 'suspended~approval', 'pending', 'resolved')"),
    "I48 a lie of an operator": _by("insert into audit (id, at, actor, verb, promise, before, after) values (gen_random_uuid(), now(), 'me', 'halt', 'ready', 'ready', 'halted')"),
    "I48 nobody": _by("insert into audit (id, at, actor, verb, promise) values (gen_random_uuid(), now(), '', 'look', 'ready')"),
}  # fmt: skip
"""Of the invariants about pairs of states, judged by the log of changes."""
