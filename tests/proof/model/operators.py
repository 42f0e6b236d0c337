"""The operators' verbs: park, send on, end by force, run again, decide a step, forget."""

from __future__ import annotations

import re
from typing import Any

from tests.proof.model import refusing
from tests.proof.model.clients import canceled_by, unknown
from tests.proof.model.rows import Checkpoint, Closing, Json, Promise, Task
from tests.proof.model.settling import Outcome, cancels, catch_up, expire, settle, told
from tests.proof.model.state import (
    PROMISING,
    Refused,
    State,
    Undetermined,
    document,
    family,
    member_of,
    plain_lane,
    promise_of,
    refers,
)

Given = dict[str, Any]
_PATH = re.compile(r"[-A-Za-z0-9._:@!$&'()*+,;=][-A-Za-z0-9._~:@!$&'()*+,;=]*")


def operated(state: State, id: str, answer: str) -> Json:
    """What was done, or why there was nothing to do."""
    promise = state.promises.get(id)
    if promise is None:
        return unknown()
    answer = "latent" if promise.function is None else answer
    return {"answer": answer, "promise": document(promise, state.task(id), state.now)}


def halt(state: State, given: Given) -> Json:
    """No worker runs it until `resume`; whoever holds it is fenced."""
    refusing.isolation(state)
    refusing.reason(state, given.get("reason"))
    refusing.actor(state, given.get("actor"))
    id, by, reason = given["id"], given.get("actor") or state.actor, given.get("reason")
    task = state.task(id)
    if task is None:
        return operated(state, id, "settled")
    if task.state == "halted":
        return operated(state, id, "already")
    message = f"halted by {by}" if reason is None else reason
    state.put_task(
        task,
        state="halted",
        ready_at=None,
        worker=None,
        claimed_at=None,
        reason={"code": "operator", "message": message},
    )
    state.audit(by, "halt", id, task.state, "halted", reason)
    return operated(state, id, "halted")


def resume(state: State, given: Given) -> Json:
    """Ready at once, with its attempts forgotten; what was left of a delay is over."""
    refusing.isolation(state)
    refusing.actor(state, given.get("actor"))
    id, task = given["id"], state.task(given["id"])
    if task is None:
        return operated(state, id, "settled")
    if task.state != "halted":
        return operated(state, id, "not_halted")
    if (id, "~delay") in state.waits:
        del state.waits[id, "~delay"]
    state.put_task(
        task, state="ready", ready_at=state.now, reason=None, attempts=0, lane=plain_lane(task.lane)
    )
    state.audit(given.get("actor") or state.actor, "resume", id, "halted", "ready", task.reason)
    return operated(state, id, "resumed")


def cancel_force(state: State, given: Given) -> Json:
    """Ended here and now, without asking its code; what it left open ends the same way, by and by."""
    refusing.isolation(state)
    refusing.reason(state, given.get("reason"))
    refusing.actor(state, given.get("actor"))
    id, by = given["id"], given.get("actor") or state.actor
    catch_up(state, id)
    promise, task = state.promises.get(id), state.task(id)
    if promise is None:
        return unknown()
    if promise.state == "canceled":
        answer = "already"
    elif promise.state != "pending":
        answer = "conflict"
    else:
        error = canceled_by(by, given.get("reason"))
        state.audit(by, "cancel_force", id, task.state if task else "pending", "canceled", error)
        settle(state, {id: Outcome("canceled", error=error)}, by)
        if state.has_open_child(id):
            owed = state.closings.get(id) or Closing(id, state.now)
            state.closings[id] = owed._replace(force=True)
        answer = "settled"
    return {"answer": answer, "promise": document(state.promises[id], None, state.now)}


def settle_step(state: State, given: Given) -> Json:
    """What a step brought, decided by hand: an event like any other, of which nobody knows where it was issued."""
    refusing.isolation(state)
    id, operation, value, error = (
        given["id"],
        given.get("operation") or "",
        given.get("value"),
        given.get("error"),
    )
    headers = given.get("headers")
    refusing.refuse("TR002", len(operation) > state.limits.id_length or not _PATH.fullmatch(operation))
    refusing.refuse("TR002", value is not None and error is not None)
    for payload in (value, error, headers):
        refusing.payload(state, payload)
    refusing.reason(state, given.get("reason"))
    refusing.actor(state, given.get("actor"))
    catch_up(state, id)
    task = state.task(id)
    if task is None:
        return operated(state, id, "settled")
    event, wait = state.checkpoints.get((id, operation)), state.waits.get((id, operation))
    if event is not None:
        by_hand = event.issued is None and event.kind == "step"
        same = (event.value, event.error, event.headers) == (value, error, headers)
        return operated(state, id, "already" if by_hand and same else "conflict")
    if wait is not None and wait.kind != "retry":
        return operated(state, id, "not_a_step")
    refusing.refuse("TR012", task.epoch == 0)
    refusing.refuse("TR030", task.last_seq >= state.limits.journal_entries)
    outcome = "resolved" if error is None else "rejected"
    at = max(state.now, task.last_at or 0)
    own = any(part is not None for part in (value, error, headers))
    seq = task.last_seq + 1
    state.append(
        Checkpoint(
            id,
            seq,
            operation,
            "step",
            outcome,
            at,
            task.epoch,
            value=value,
            error=error,
            headers=headers,
            own=own,
        )
    )
    if wait is not None:
        del state.waits[id, operation]
    told(state, task)
    detail = {"operation": operation, "seq": seq, "reason": given.get("reason")}
    state.audit(given.get("actor") or state.actor, "settle_step", id, "pending", outcome, detail)
    return operated(state, id, "recorded")


def fork(state: State, given: Given) -> Json:
    """The same workflow under a new ID, with a copy of its journal up to a point."""
    refusing.isolation(state)
    id, new_id, before, version = given["id"], given["new_id"], given.get("before"), given.get("version")
    refusing.id_to_start(state, new_id)
    refusing.reason(state, given.get("reason"))
    refusing.actor(state, given.get("actor"))
    refusing.refuse("TR002", version is not None and version < 1)
    detail = {"from": id, "before": before, "version": version, "reason": given.get("reason")}
    if new_id in state.promises:
        return _fork_again(state, new_id, detail)
    old = state.promises.get(id)
    if old is None:
        raise Refused("TR011")
    refusing.refuse("TR012", old.function is None)
    upto = _fork_point(state, id, before)
    new = Promise(
        new_id,
        state.now,
        function=old.function,
        queue=old.queue,
        args=old.args,
        args_headers=old.args_headers,
        args_digest=old.args_digest,
        tags=old.tags,
        title=old.title,
        timeout_at=None if old.timeout_at is None else state.now + old.timeout_at - old.created_at,
    )
    state.promises[new_id] = new
    task = _fork_task(state, old, new, upto, version)
    state.audit(given.get("actor") or state.actor, "fork", new_id, None, "pending", detail)
    return document(new, task, state.now) | {"answer": "created"}


def _fork_again(state: State, new_id: str, detail: Json) -> Json:
    """Attaches if what is there is that very fork."""
    expire(state, [new_id])
    there = state.promises[new_id]

    def asked_for(detail: Json) -> Json:
        return {key: value for key, value in detail.items() if key != "reason"}

    for each in state.audits.values():
        if (each.promise, each.verb, each.at) == (new_id, "fork", there.created_at) and asked_for(
            each.detail
        ) == asked_for(detail):
            return document(there, state.task(new_id), state.now) | {"answer": "attached"}
    raise Refused("TR010")


def _fork_point(state: State, id: str, before: str | None) -> int:
    """How many events it takes along: never a request to cancel, which belongs to that one run."""
    journal = state.journal(id)
    upto = len(journal)
    if before is not None:
        event = state.checkpoints.get((id, before))
        if event is None:
            raise Refused("TR002")
        upto = event.seq - 1
    first = [c.seq for c in cancels(state, id) if c.operation == "~cancel"]
    refusing.refuse("TR012", first and first[0] <= upto)
    return upto


def _fork_task(state: State, old: Promise, new: Promise, upto: int, version: int | None) -> Task:
    """The new task: with the time, seed and version of what has begun. A copied event of a promise holds its outcome."""
    was = state.task(old.id)
    started_at = was.started_at if was and was.started_at is not None else old.started_at
    seed = was.seed if was and was.seed is not None else old.seed
    taken = state.journal(old.id)[:upto]
    if version is not None:
        lane = f"{new.function}@{version}"
    elif was is not None:
        lane = plain_lane(was.lane)
    else:
        lane = f"{new.function}@{old.version}" if old.version else f"{new.function}"
    task = Task(
        new.id,
        "ready",
        new.queue or "",
        lane,
        was.priority if was else 0,
        new.created_at,
        epoch=0 if started_at is None else max([1, *(c.epoch for c in taken)]),
        last_seq=upto,
        last_at=max((c.at for c in taken), default=started_at),
        timeout_at=new.timeout_at,
        started_at=started_at,
        seed=seed,
    )
    state.tasks[new.id] = task
    for event in taken:
        promise = promise_of(state, event)
        outcome: Any = promise if refers(event) else event
        state.append(
            event._replace(
                task=new.id,
                digest=event.digest if event.kind in {"promise", "timer", "patch"} else None,
                value=outcome and outcome.value,
                error=outcome and outcome.error,
                headers=outcome and outcome.headers,
                promise=promise.id if promise else event.promise,
                own=event.own or event.kind in PROMISING,
            )
        )
    return task


def purge(state: State, given: Given) -> Json:
    """Whole families that settled long enough ago, and that nobody needs."""
    refusing.isolation(state)
    refusing.refuse("TR002", given.get("before") is None)
    age, limit = given["before"], given.get("limit", 1000)
    refusing.span(state, age)
    refusing.page(limit, state.limits.batch_items)
    before = state.now - age
    old = [
        p
        for p in state.promises.values()
        if p.created_at < before
        and _settled_before(p, before)
        and (p.parent is None or "~" not in p.id)
        and not _is_kept(state, family(p.id), before)
    ]
    if len(old) > limit:
        raise Undetermined
    families = {family(p.id) for p in old}
    gone = {p.id for p in state.promises.values() if family(p.id) in families}
    for id in gone:
        del state.promises[id]
    tables: list[Any] = [state.checkpoints, state.attempts]
    for table in tables:
        for key in [key for key in table if key[0] in gone]:
            del table[key]
    return len(gone)


def _settled_before(promise: Promise, before: int) -> bool:
    return promise.settled_at is not None and promise.settled_at < before


def _has_pending_above(state: State, promise: Promise) -> bool:
    """Who made it, or who made that: a child with an ID of its own is a family of its own."""
    above = state.promises.get(promise.parent or "")
    return above is not None and (above.state == "pending" or _has_pending_above(state, above))


def _is_kept(state: State, root: str, before: int) -> bool:
    """Something of it is pending, settled lately, owed a cancel or waited for, or has to do with something pending."""
    waited_for = {w.promise for w in state.waits.values()}
    for member in [p for p in state.promises.values() if member_of(p.id, root)]:
        if (
            not _settled_before(member, before)
            or member.id in waited_for
            or member.id in state.closings
            or _has_pending_above(state, member)
            or state.has_open_child(member.id)
        ):
            return True
    return False
