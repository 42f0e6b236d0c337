"""Promises over HTTP: create, look at, find, settle."""

from __future__ import annotations

import base64
import binascii
from datetime import timedelta
from typing import Annotated, Any, Final

import msgspec
from litestar import MediaType, Request, Response, Router, get, post
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from troth import Troth, calls
from troth.errors import InvalidArgument, UnknownPromise
from troth.model import PromiseInfo, PromiseState, SettleAnswer, Settlement, Started
from troth_api import limits, page
from troth_api.bodies import Cancel, CreatePromise, Reject, Resolve, StrictJson, sealed, text_of_error
from troth_api.problems import Problem, declared
from troth_api.waiting import Waiting

Wait = Annotated[
    float,
    QueryParameter(ge=0, le=limits.wait_seconds_max, description="Seconds to wait for it to be settled."),
]
"""`?wait=`: 0 answers at once."""


class Settled(PromiseInfo, frozen=True, kw_only=True):
    """What a decision answers: the promise, and what the decision came to."""

    answer: SettleAnswer


class PromisePage(msgspec.Struct, frozen=True):
    """Some promises in the order of their IDs; `next` is the `cursor` of the page after, if there may be one."""

    items: list[PromiseInfo]
    next: str | None


_DECISION: Final = declared(
    body=True,
    _404="No promise has this ID",
    _409="It is settled otherwise (`promise` shows how), or is no latent promise",
)


def seconds(given: float | None, what: str) -> timedelta | None:
    """A duration of a body. Raises `InvalidArgument`."""
    try:
        return None if given is None else timedelta(seconds=given)
    except OverflowError:
        raise InvalidArgument(f"A {what} of {given} seconds is too long.") from None


@post(
    "/promises",
    status_code=201,
    dto=StrictJson[CreatePromise],
    return_dto=None,
    summary="Create a latent promise",
    responses={
        200: ResponseSpec(Started, generate_examples=False, description="It was there; it stands as it was"),
        **declared(body=True, _409="The ID is that of a workflow"),
    },
)
async def create_promise(data: JSONBody[CreatePromise], troth: NamedDependency[Troth]) -> Response[Started]:
    """Create a promise that somebody settles by its ID, or attach to the one that is there."""
    default = None if isinstance(data.default, msgspec.UnsetType) else sealed(data.default, "The default")
    call = calls.create_promise(
        data.id, timeout=seconds(data.timeout, "timeout"), default=default, tags=data.tags, title=data.title
    )
    return started(await troth.pool.run(call))


def started(answer: Started) -> Response[Started]:
    """201 with the place of what was made, or 200."""
    if answer.answer == "attached":
        return Response(answer, status_code=200)
    return Response(answer, status_code=201, headers={"Location": f"/promises/{answer.id}"})


@get(
    "/promises/{promise_id:str}",
    summary="A promise as it stands",
    operation_class=page.AlsoForPeople,
    responses={
        200: ResponseSpec(PromiseInfo, generate_examples=False, description="The promise"),
        **declared(_404="No promise has this ID"),
    },
)
async def get_promise(
    promise_id: FromPath[str],
    troth: NamedDependency[Troth],
    waiting: NamedDependency[Waiting],
    request: Request[Any, Any, Any],
    wait: Wait = 0,
) -> Response[Any]:
    """Show a promise; with `wait`, once it is settled or the time has run out. A browser gets a page for people."""
    promise = await troth.get(known(promise_id))
    if wait and promise.pending:
        promise = await waiting.settled(promise_id, wait, request)
    headers = {"Vary": "Accept"}
    if request.accept.best_match([MediaType.JSON, MediaType.HTML], MediaType.JSON) == MediaType.HTML:
        html = page.of_promise(promise, str(request.base_url).rstrip("/"), troth.schema)
        return Response(html, media_type=MediaType.HTML, headers=headers | page.HEADERS)
    return Response(promise, headers=headers)


def known(promise_id: str) -> str:
    """An ID of a path, which Postgres may be asked for. Raises `UnknownPromise`: what cannot be an ID names nothing."""
    if not promise_id.isascii() or not promise_id.isprintable():
        raise UnknownPromise(
            f"No promise has the ID {promise_id!r}.", hint="An ID is made of printable ASCII."
        )
    return promise_id


@get(
    "/promises",
    summary="Find promises",
    responses=declared(),
)
async def find_promises(
    *,
    troth: NamedDependency[Troth],
    # `state` itself is a word of Litestar's
    promise_state: Annotated[PromiseState | None, QueryParameter(name="state")] = None,
    queue: FromQuery[str | None] = None,
    function: FromQuery[str | None] = None,
    prefix: Annotated[str | None, QueryParameter(description="What the ID begins with.")] = None,
    tag: Annotated[
        list[str] | None, QueryParameter(description="`key:value`; may be repeated, and all must fit.")
    ] = None,
    assignee: Annotated[str | None, QueryParameter(description="The same as `tag=assignee:...`.")] = None,
    latent: Annotated[
        bool | None, QueryParameter(description="Only those that somebody outside settles, or no such.")
    ] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=limits.page_items_max)] = limits.page_items_default,
    cursor: Annotated[str | None, QueryParameter(description="`next` of the page before.")] = None,
) -> PromisePage:
    """Show the promises that fit all that is asked, in the order of their IDs, page by page."""
    found = await troth.search(
        state=promise_state,
        queue=queue,
        function=function,
        prefix=prefix,
        tags=_tags([*(tag or ()), *(() if assignee is None else (f"assignee:{assignee}",))]),
        latent=latent,
        limit=limit,
        after=None if cursor is None else _id_of(cursor),
    )
    return PromisePage(found, _cursor_of(found[-1].id) if len(found) == limit else None)


def _tags(given: list[str]) -> dict[str, str] | None:
    tags: dict[str, str] = {}
    for text in given:
        key, colon, value = text.partition(":")
        if not colon:
            raise InvalidArgument(f"{text!r} is not a tag.", hint="Say tag=key:value.")
        if tags.setdefault(key, value) != value:
            raise InvalidArgument(
                f"The tag {key!r} is asked for with two values.", hint="A promise has one value a tag."
            )
    return tags or None


def _cursor_of(promise_id: str) -> str:
    return base64.urlsafe_b64encode(promise_id.encode()).decode().rstrip("=")


def _id_of(cursor: str) -> str:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode(
            "ascii"
        )
    except (binascii.Error, ValueError):
        text = ""
    if not text.isprintable() or not text:
        raise InvalidArgument(
            f"{cursor[:100]!r} is not a cursor.", hint="Give `next` of the page before, or none."
        )
    return text


@post(
    "/promises/{promise_id:str}/resolve",
    status_code=200,
    dto=StrictJson[Resolve],
    return_dto=None,
    summary="Resolve a latent promise",
    responses=_DECISION,
)
async def resolve(
    promise_id: FromPath[str], data: JSONBody[Resolve], troth: NamedDependency[Troth]
) -> Response[Settled]:
    """Resolve it with a value. The first settlement wins; the same value again is a success."""
    call = calls.resolve(known(promise_id), sealed(data.value, "The value"))
    return _decided(promise_id, await troth.pool.run(call))


@post(
    "/promises/{promise_id:str}/reject",
    status_code=200,
    dto=StrictJson[Reject],
    return_dto=None,
    summary="Reject a latent promise",
    responses=_DECISION,
)
async def reject(
    promise_id: FromPath[str], data: JSONBody[Reject], troth: NamedDependency[Troth]
) -> Response[Settled]:
    """Reject it with an error, which is raised where it is awaited. The same error again is a success."""
    call = calls.reject(known(promise_id), sealed(text_of_error(data), "The error"))
    return _decided(promise_id, await troth.pool.run(call))


@post(
    "/promises/{promise_id:str}/cancel",
    status_code=200,
    dto=StrictJson[Cancel],
    return_dto=None,
    summary="Cancel a promise",
    responses={
        202: ResponseSpec(
            Settled,
            generate_examples=False,
            description="The workflow has begun and is asked to end; its code decides how",
        ),
        **_DECISION,
    },
)
async def cancel(
    promise_id: FromPath[str], troth: NamedDependency[Troth], data: JSONBody[Cancel | None] = None
) -> Response[Settled]:
    """Cancel a latent promise or a workflow that never ran; ask one that runs, or end it with `force`."""
    asked = data or Cancel()
    call = calls.cancel(known(promise_id), reason=asked.reason, force=asked.force)
    return _decided(promise_id, await troth.pool.run(call))


def _decided(promise_id: str, settlement: Settlement) -> Response[Settled]:
    answer, promise = settlement.answer, settlement.promise
    if promise is None:
        raise UnknownPromise(f"No promise has the ID {promise_id!r}.")
    match answer:
        case "settled" | "already" | "requested":
            fields = msgspec.structs.asdict(promise)
            return Response(
                Settled(answer=answer, **fields), status_code=202 if answer == "requested" else 200
            )
        case "conflict":
            raise settled_before(promise)
        case "not_latent":
            raise Problem(
                409,
                "Not latent",
                f"{promise_id!r} is a workflow of {promise.function}, which settles itself.",
                hint="Settle what it waits for, or cancel it.",
                promise=promise,
            )
        case "unknown":
            raise UnknownPromise(f"No promise has the ID {promise_id!r}.")


def settled_before(promise: PromiseInfo) -> Problem:
    """It is too late: the promise is settled."""
    return Problem(
        409,
        "Promise timed out" if promise.state == "timedout" else "Already settled",
        f"{promise.id!r} is {promise.state} since {promise.settled_at:%Y-%m-%d %H:%M:%S.%f%z}, and stays so.",
        hint="The first settlement wins; `promise` shows it.",
        promise=promise,
    )


router: Final = Router(
    "/",
    route_handlers=[create_promise, get_promise, find_promises, resolve, reject, cancel],
    tags=["promises"],
)
