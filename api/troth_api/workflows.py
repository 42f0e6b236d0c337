"""Workflows over HTTP: start, and look at what became of them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, JSONBody, QueryParameter

from troth import Troth, calls
from troth.errors import IdConflict
from troth.model import JournalEntry, PromiseInfo, Started
from troth_api import limits
from troth_api.bodies import StartWorkflow, StrictJson, sealed
from troth_api.problems import declared
from troth_api.promises import Wait, known, seconds, started
from troth_api.starting import Starts
from troth_api.waiting import Waiting


class Tree(msgspec.Struct, frozen=True):
    """A promise and what was made below it, in the order of their IDs; `truncated` says that there is more."""

    items: list[PromiseInfo]
    truncated: bool


class JournalPage(msgspec.Struct, frozen=True):
    """Some events of a workflow, in order; `next` is the `from_seq` of the page after, if there may be one."""

    items: list[JournalEntry]
    next: int | None


@post(
    "/workflows/{name:str}",
    status_code=201,
    dto=StrictJson[StartWorkflow],
    return_dto=None,
    summary="Start a workflow",
    responses={
        200: ResponseSpec(
            Started, generate_examples=False, description="It was there already, with the same arguments"
        ),
        202: ResponseSpec(
            Started, generate_examples=False, description="The time to wait ran out; it goes on"
        ),
        **declared(body=True, _409="The ID is taken by something else, which `promise` shows; nothing runs"),
    },
)
async def start_workflow(
    *,
    name: FromPath[str],
    data: JSONBody[StartWorkflow],
    starts: NamedDependency[Starts],
    waiting: NamedDependency[Waiting],
    request: Request[Any, Any, Any],
    wait: Wait = 0,
) -> Response[Started]:
    """Start it under an ID of yours, or attach to the one that was started so; with `wait`, answer its end."""
    call = calls.start(
        data.id,
        name,
        sealed(data.args, "The arguments"),
        queue=data.queue,
        delay=seconds(data.delay, "delay"),
        timeout=seconds(data.timeout, "timeout"),
        priority=data.priority,
        tags=data.tags,
        on_conflict=data.on_conflict,
    )
    try:
        begun = await starts.start(data.id, call, shown=not wait)
    except IdConflict as conflict:
        conflict.hint = 'Start under another ID, or attach to what is there with "on_conflict": "attach".'
        raise
    if isinstance(begun, Started) and (begun.settled or not wait):
        return started(begun)
    promise = await waiting.settled(data.id, wait, request)
    answer = Started(
        answer="attached" if begun.answer == "attached" else "created", **msgspec.structs.asdict(promise)
    )
    response = started(answer)
    if answer.pending:
        response.status_code = 202
    return response


@get(
    "/workflows/{workflow_id:str}/tree",
    summary="What a workflow made",
    responses=declared(_404="No promise has this ID"),
)
async def get_tree(
    workflow_id: FromPath[str],
    troth: NamedDependency[Troth],
    limit: Annotated[int, QueryParameter(ge=1, le=limits.page_items_max)] = limits.page_items_max,
) -> Tree:
    """Show a workflow's promise and all that was made below it; each names its `parent`."""
    found = await troth.tree(known(workflow_id), limit=limit + 1)
    return Tree(found[:limit], len(found) > limit)


@get(
    "/workflows/{workflow_id:str}/journal",
    summary="What a workflow has been told",
    responses=declared(_404="No promise has this ID"),
)
async def get_journal(
    workflow_id: FromPath[str],
    troth: NamedDependency[Troth],
    from_seq: Annotated[int, QueryParameter(ge=1, le=2**31 - 1)] = 1,
    limit: Annotated[int, QueryParameter(ge=1, le=limits.page_items_max)] = limits.page_items_max,
) -> JournalPage:
    """Show the events that its code has been told, from `from_seq` on; `at` is in microseconds since the Unix epoch."""
    known(workflow_id)
    _, entries = await asyncio.gather(
        troth.get(workflow_id), troth.journal(workflow_id, from_seq=from_seq, limit=limit)
    )
    return JournalPage(entries, entries[-1].seq + 1 if len(entries) == limit else None)


router: Final = Router("/", route_handlers=[start_workflow, get_tree, get_journal], tags=["workflows"])
