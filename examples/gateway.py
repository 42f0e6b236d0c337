"""The human in the loop, gateway's side: `cd examples && granian --interface asgi --port 5001 gateway:app`."""

from dataclasses import dataclass

from litestar import Litestar, Response, post

from troth import Troth, TrothError

troth = Troth()


@dataclass
class Start:
    workflow_id: str


@post("/start-workflow")
async def start_workflow(data: Start) -> str:
    handle = await troth.start(data.workflow_id, "foo", workflow_id=data.workflow_id)  # or reconnects
    return str(await handle.result())


@post("/resolve/{promise_id:str}")
async def resolve(promise_id: str) -> str:
    return (await troth.resolve(promise_id, "approved")).answer


def explain(_: object, error: TrothError) -> Response[str]:
    return Response(str(error), status_code=error.status)


app = Litestar([start_workflow, resolve], exception_handlers={TrothError: explain})
