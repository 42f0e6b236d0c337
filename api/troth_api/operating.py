"""What operators do with workflows over HTTP: fork one, settle a step of it by hand, take it along as a document."""

from __future__ import annotations

from typing import Final

import msgspec
from litestar import Response, Router, get, post
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, JSONBody

from troth import Troth, calls
from troth.errors import UnknownPromise
from troth.model import Exported, Operated, OperatorAnswer, PromiseInfo, Started
from troth_api.bodies import Fork, SettleStep, StrictJson, outcome_of
from troth_api.problems import Problem, declared
from troth_api.promises import known, settled_before, started


class StepSettled(PromiseInfo, frozen=True, kw_only=True):
    """What the settling of a step answers: the workflow, and what it came to."""

    answer: OperatorAnswer


@post(
    "/workflows/{workflow_id:str}/fork",
    status_code=201,
    dto=StrictJson[Fork],
    return_dto=None,
    summary="Run a workflow again from a point of its journal",
    responses={
        200: ResponseSpec(Started, generate_examples=False, description="This very fork was made before"),
        **declared(
            body=True,
            _404="No promise has this ID",
            _409="The new ID is taken, or there is nothing that could be forked from there",
        ),
    },
)
async def fork(
    workflow_id: FromPath[str], data: JSONBody[Fork], troth: NamedDependency[Troth]
) -> Response[Started]:
    """Start a workflow under a new ID that was told what this one was, before an operation; this one stays as it is."""
    call = calls.fork(
        known(workflow_id), data.id, before=data.before, version=data.version, reason=data.reason
    )
    return started(await troth.pool.run(call))


@post(
    "/workflows/{workflow_id:str}/steps/{operation:str}/settle",
    status_code=200,
    dto=StrictJson[SettleStep],
    return_dto=None,
    summary="Decide by hand what a step brought",
    responses=declared(
        body=True,
        _404="No promise has this ID",
        _409="The step has another outcome, it is no step, or the workflow has ended or never ran",
        _429="The workflow has as many events as it may have",
    ),
)
async def settle_step(
    workflow_id: FromPath[str],
    operation: FromPath[str],
    data: JSONBody[SettleStep],
    troth: NamedDependency[Troth],
) -> Response[StepSettled]:
    """Settle a step that will not end; its `operation` is named as in the journal. The same once more is a success."""
    value, error = outcome_of(data)
    call = calls.settle_step(
        known(workflow_id), known(operation), value=value, error=error, reason=data.reason
    )
    return _settled(workflow_id, operation, await troth.pool.run(call))


def _settled(workflow_id: str, operation: str, operated: Operated) -> Response[StepSettled]:
    promise = operated.promise
    if promise is None:
        raise UnknownPromise(f"No promise has the ID {workflow_id!r}.")
    match operated.answer:
        case "settled":
            raise settled_before(promise)
        case "conflict":
            raise Problem(
                409,
                "Step already settled",
                f"{operation!r} of {workflow_id!r} has its outcome, and keeps it.",
                hint="The journal shows it; a fork before it would run it again.",
                promise=promise,
            )
        case "not_a_step":
            raise Problem(
                409,
                "Not a step",
                f"{workflow_id!r} waits under the name {operation!r} for something that is no step.",
                hint="Settle the promise that it waits for.",
                promise=promise,
            )
        case "latent":
            raise Problem(
                409,
                "Not a workflow",
                f"{workflow_id!r} is a latent promise, which has no steps.",
                hint="Resolve or reject it.",
                promise=promise,
            )
        case _:
            return Response(StepSettled(answer=operated.answer, **msgspec.structs.asdict(promise)))


@get(
    "/workflows/{workflow_id:str}/export",
    summary="A workflow with its whole journal as one document",
    responses=declared(_404="No promise has this ID", _409="It never ran, or is no workflow"),
)
async def export(workflow_id: FromPath[str], troth: NamedDependency[Troth]) -> Exported:
    """Show what a replay needs: `troth replay` and `troth import` take it. What a codec sealed stays sealed."""
    return await troth.export(known(workflow_id))


router: Final = Router("/", route_handlers=[fork, settle_step, export], tags=["operators"])
