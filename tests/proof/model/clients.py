"""The clients' verbs: start, create, settle, look."""

from __future__ import annotations

from typing import Any

from tests.proof.model import refusing
from tests.proof.model.rows import Json, Promise, Task, Wait
from tests.proof.model.settling import Outcome, append_cancel, catch_up, expire, next_cancel, settle
from tests.proof.model.state import Refused, State, document, entries, member_of

Given = dict[str, Any]
STATES = ("pending", "resolved", "rejected", "canceled", "timedout")
VERBS = {"resolve": "resolved", "reject": "rejected"}


def start(state: State, given: Given) -> Json:
    """The same ID, function and arguments are the same workflow; anything else under the ID is a conflict."""
    refusing.id_to_start(state, given["id"])
    on_conflict = given.get("on_conflict", "error")
    refusing.refuse("TR002", on_conflict not in {"error", "attach"})
    refusing.start(state, given)
    answer = _start(state, given)
    if answer["answer"] == "conflict":
        if on_conflict == "error" or answer["latent"]:
            raise Refused("TR010")
        answer["answer"] = "attached"
    return answer


def start_many(state: State, given: Given) -> Json:
    """Each as `start` would, in the order of the IDs; a bad one is answered, and its neighbours start."""
    items = given["items"]
    refusing.batch(state, items)
    answers: list[Json] = [None] * len(items)
    for n in sorted(range(len(items)), key=lambda n: (items[n].get("id") or "", n)):
        try:
            refusing.id_to_start(state, items[n].get("id"))
            refusing.start(state, items[n])
        except Refused as refused:
            answers[n] = {"id": items[n].get("id"), "answer": "refused", "sqlstate": refused.sqlstate}
        else:
            answers[n] = _start(state, items[n])
    return answers


def start_together(state: State, given: Given) -> Json:
    """As `start_many`, but that what is created is shown to whoever wants to see it, as it is in the end."""

    def said(answer: Json) -> Json:
        id = answer["id"]
        if answer["answer"] != "created":
            return answer
        if id not in given["shown"]:
            return {"id": id, "answer": "created"}
        return document(state.promises[id], state.task(id), state.now) | {"answer": "created"}

    return [said(answer) for answer in start_many(state, given)]


def start_each(state: State, given: Given) -> Json:
    """One function under many IDs: as `start_many`, but that nothing is said of what is new."""
    refusing.refuse("TR002", not isinstance(given["args"], list) or len(given["args"]) != len(given["ids"]))
    each = zip(given["ids"], given["args"], given["digests"], strict=True)
    items = [given | {"id": id, "args": args, "digest": digest} for id, args, digest in each]
    return [answer for answer in start_many(state, {"items": items}) if answer["answer"] != "created"]


def _start(state: State, given: Given) -> Json:
    id = given["id"]
    there = state.promises.get(id)
    if there is None:
        promise, task = make_workflow(state, id, given, timeout_at=after(state, given.get("timeout")))
        return document(promise, task, state.now) | {"answer": "created"}
    expire(state, [id])
    there = state.promises[id]
    same = is_same_start(there, given["function"], given.get("args"), given.get("digest"))
    return document(there, state.task(id), state.now) | {"answer": "attached" if same else "conflict"}


def after(state: State, micros: int | None) -> int | None:
    return None if micros is None else state.now + micros


def queue_of(state: State, function: str) -> str:
    """Where a start without a queue goes: where the newest registered version of its function says."""
    known = [f for f in state.functions.values() if f.name == function]
    return max(known, key=lambda f: f.version).queue if known else "default"


def make_workflow(
    state: State, id: str, given: Given, *, timeout_at: int | None, **more: Any
) -> tuple[Promise, Task]:
    """A pending promise and its task: ready, or asleep until its delay is over."""
    function = given["function"]
    queue = given.get("queue") or queue_of(state, function)
    promise = Promise(
        id,
        state.now,
        function=function,
        queue=queue,
        args=normal(given.get("args")),
        args_headers=given.get("headers"),
        args_digest=given.get("digest"),
        tags=given.get("tags"),
        timeout_at=timeout_at,
        **more,
    )
    delay = given.get("delay") or 0
    task = Task(
        id,
        "suspended" if delay > 0 else "ready",
        queue,
        function,
        given.get("priority") or 0,
        None if delay > 0 else state.now,
        timeout_at=timeout_at,
    )
    state.promises[id], state.tasks[id] = promise, task
    if delay > 0:
        state.waits[id, "~delay"] = Wait(id, "~delay", "delay", 0, fire_at=state.now + delay)
    return promise, task


def normal(args: Json) -> Json:
    """No arguments are no arguments, by name or by position."""
    return args or {}


def is_same_start(there: Promise, function: str | None, args: Json, digest: str | None) -> bool:
    if there.function is None or there.function != function:
        return False
    if there.args_digest is None and digest is None:
        return bool(there.args == normal(args))
    return there.args_digest == digest


def create_promise(state: State, given: Given) -> Json:
    """A latent promise, or the one that is there as it stands."""
    id = given["id"]
    refusing.id_(id, state.limits.id_length)
    refusing.span(state, given.get("timeout"))
    refusing.payload(state, given.get("default"))
    refusing.payload(state, given.get("headers"))
    refusing.tags(state, given.get("tags"))
    refusing.title(state, given.get("title"))
    has_default = given.get("has_default", False)
    refusing.refuse("TR002", has_default and given.get("timeout") is None)
    if id in state.promises:
        expire(state, [id])
        there = state.promises[id]
        refusing.refuse("TR010", there.function is not None)
        return document(there, None, state.now) | {"answer": "attached"}
    promise = Promise(
        id,
        state.now,
        tags=given.get("tags"),
        title=given.get("title"),
        timeout_at=after(state, given.get("timeout")),
        has_default=has_default,
        default_value=given.get("default") if has_default else None,
        default_headers=given.get("headers") if has_default else None,
    )
    state.promises[id] = promise
    return document(promise, None, state.now) | {"answer": "created"}


def resolve(state: State, given: Given) -> Json:
    return _outcome_by_hand(state, "resolve", given, given.get("value"))


def reject(state: State, given: Given) -> Json:
    return _outcome_by_hand(state, "reject", given, given.get("error"))


def _outcome_by_hand(state: State, verb: str, given: Given, payload: Json) -> Json:
    refusing.isolation(state)
    refusing.decision(state, payload, given.get("headers"), given.get("actor"))
    return _decide(state, verb, given | {"payload": payload}, given.get("actor"))


def _decide(state: State, verb: str, given: Given, actor: str | None) -> Json:
    """The first settlement wins. The same once more is a success, another one shows the winner."""
    id, wanted, by = given["id"], VERBS[verb], actor or state.actor
    payload, headers, digest = given.get("payload"), given.get("headers"), given.get("digest")
    catch_up(state, id)
    promise = state.promises.get(id)
    if promise is None:
        return unknown()
    if promise.function is not None:
        answer = "not_latent"
    elif promise.state == "pending":
        value, error = (payload, None) if verb == "resolve" else (None, payload)
        settle(state, {id: Outcome(wanted, value, error, headers, digest)}, by)
        state.audit(by, verb, id, "pending", wanted, None)
        answer = "settled"
    elif promise.state == wanted and _is_same_outcome(promise, payload, headers, digest):
        answer = "already"
    else:
        answer = "conflict"
    return {"answer": answer, "promise": document(state.promises[id], state.task(id), state.now)}


def _is_same_outcome(there: Promise, payload: Json, headers: Json, digest: str | None) -> bool:
    if there.settler == "timeout":
        return False  # that was nobody's decision
    if there.value_digest is not None and digest is not None:
        return there.value_digest == digest
    outcome = there.error if there.value is None else there.value
    return bool(outcome == payload and there.headers == headers)


def unknown() -> Json:
    return {"answer": "unknown", "promise": None}


def canceled_by(by: str, reason: str | None) -> Json:
    return {"type": "canceled", "message": f"canceled by {by}" if reason is None else reason}


def cancel(state: State, given: Given) -> Json:
    refusing.isolation(state)
    refusing.reason(state, given.get("reason"))
    refusing.actor(state, given.get("actor"))
    return _cancel(state, given["id"], given.get("reason"), given.get("actor"))


def _cancel(state: State, id: str, reason: str | None, actor: str | None) -> Json:
    """What nobody has begun settles at once, what has begun is asked."""
    by = actor or state.actor
    error = canceled_by(by, reason)
    catch_up(state, id)
    promise, task = state.promises.get(id), state.task(id)
    if promise is None:
        return unknown()
    if promise.state == "canceled":
        answer = "already"
    elif promise.state != "pending":
        answer = "conflict"
    elif task is not None and task.epoch > 0:
        operation = next_cancel(state, task)
        state.met[f"a cancel of {task.state} {'told' if operation else 'is the same click'}"] += 1
        if operation is not None:
            append_cancel(state, task, operation, error)
            state.audit(by, "cancel", id, task.state, "requested", error)
        answer = "requested"
    else:
        settle(state, {id: Outcome("canceled", error=error)}, by)
        state.audit(by, "cancel", id, "pending", "canceled", error)
        answer = "settled"
    return {"answer": answer, "promise": document(state.promises[id], state.task(id), state.now)}


def settle_many(state: State, given: Given) -> Json:
    """Each item as its verb would, in the order given; a malformed one refuses them all."""
    refusing.isolation(state)
    items, actor = given["items"], given.get("actor")
    refusing.batch(state, items)
    for item in items:
        refusing.refuse("TR002", item.get("verb") not in {"resolve", "reject", "cancel"})
        refusing.decision(state, _payload_of(item), item.get("headers"), actor)
        refusing.reason(state, item.get("reason"))
    return [
        _cancel(state, item["id"], item.get("reason"), actor)
        if item["verb"] == "cancel"
        else _decide(state, item["verb"], item | {"payload": _payload_of(item)}, actor)
        for item in items
    ]


def _payload_of(item: Given) -> Json:
    return item.get("error") if item["verb"] == "reject" else item.get("value")


def get(state: State, given: Given) -> Json:
    expire(state, given["ids"])
    return [
        document(state.promises[id], state.task(id), state.now)
        for id in sorted(set(given["ids"]))
        if id in state.promises
    ]


def search(state: State, given: Given) -> Json:
    """What fits all that is asked, by ID; nothing is settled by the way."""
    wanted, tags = given.get("state"), given.get("tags")
    limit = given.get("limit", 50)
    refusing.refuse("TR002", wanted is not None and wanted not in STATES)
    refusing.page(limit, state.limits.search_limit)
    refusing.tags(state, tags)
    found = [
        promise
        for promise in sorted(state.promises.values(), key=lambda p: p.id)
        if (wanted is None or promise.state == wanted)
        and given.get("queue") in {None, promise.queue}
        and given.get("function") in {None, promise.function}
        and promise.id.startswith(given.get("prefix") or "")
        and promise.id > (given.get("after") or "")
        and (tags is None or (promise.tags is not None and tags.items() <= promise.tags.items()))
        and (given.get("latent") is None or given["latent"] == (promise.function is None))
    ]
    return [document(promise, state.task(promise.id), state.now) for promise in found[:limit]]


def tree(state: State, given: Given) -> Json:
    """A promise and all that was made below it: by parents, and by what its ID begins with."""
    root, limit = given["id"], given.get("limit", 1000)
    refusing.page(limit, state.limits.children)
    below = {id for id in state.promises if member_of(id, root)}
    while more := {p.id for p in state.promises.values() if p.parent in below} - below:
        below |= more
    return [document(state.promises[id], state.task(id), state.now) for id in sorted(below)[:limit]]


def journal(state: State, given: Given) -> Json:
    limit = given.get("limit", 1000)
    refusing.page(limit, state.limits.search_limit)
    return entries(state, given["id"], given.get("from_seq", 1) - 1, limit)
