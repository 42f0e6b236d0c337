"""The application: the routes, what guards them, and the client that they share."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from litestar import Litestar, Request
from litestar.di import NamedDependency, Provide
from litestar.exceptions import NotFoundException
from litestar.params import ParameterKwarg

from troth import Troth
from troth.errors import InvalidArgument
from troth.schema import DEFAULT_SCHEMA
from troth_api import health, limits, logs, operating, promises, viewer, workflows
from troth_api.guard import Guard
from troth_api.problems import HANDLERS
from troth_api.settings import Settings
from troth_api.starting import Starts
from troth_api.waiting import Waiting


def create_app(
    troth: Troth | None = None,
    *,
    dsn: str | None = None,
    schema: str = DEFAULT_SCHEMA,
    host: str = "127.0.0.1",
    hosts: tuple[str, ...] = (),
    body_bytes_max: int = limits.body_bytes_max,
) -> Litestar:
    """The API of one namespace, as an ASGI application.

    `troth` is a client of yours, which stays open; without it, one is made for `dsn` (or what `Troth` finds) and
    `schema`, and closed with the application. `host` is what the server is bound to, `hosts` further names that
    requests may be addressed to (`*`: any). A body beyond `body_bytes_max` is refused.
    """
    return _create(
        troth, Settings(dsn, schema, host, hosts=hosts, body_bytes_max=body_bytes_max), served=False
    )


def create_from_environment() -> Litestar:
    """The application that the environment describes: what a server process of granian makes."""
    logs.configure()
    return _create(None, Settings.from_environment(os.environ), served=True)


def _create(troth: Troth | None, settings: Settings, *, served: bool) -> Litestar:
    client = troth or Troth(settings.dsn, schema=settings.schema)
    waiting = Waiting(client)
    starts = Starts(client)

    async def provide_troth() -> Troth:
        return client

    async def provide_waiting(troth: NamedDependency[Troth]) -> Waiting:
        # named as what this one needs: Litestar resolves two that need nothing at once, with a task for each and each request
        del troth
        return waiting

    async def provide_starts(waiting: NamedDependency[Waiting]) -> Starts:
        del waiting
        return starts

    return Litestar(
        route_handlers=[
            promises.router,
            workflows.router,
            operating.router,
            health.router,
            viewer.front,
            viewer.files(),
        ],
        dependencies={
            "troth": Provide(provide_troth),
            "waiting": Provide(provide_waiting),
            "starts": Provide(provide_starts),
        },
        middleware=[Guard(settings.host, settings.hosts)],
        before_request=_refuse_what_is_not_meant,
        exception_handlers=HANDLERS,
        lifespan=[
            *(() if troth else (_closing(client),)),
            *((waiting.until_told_to_end,) if served else ()),
        ],
        openapi_config=viewer.openapi(),
        plugins=[viewer.Structs()],
        request_max_body_size=settings.body_bytes_max,
        logging_config=None,
        debug=False,
    )


def _closing(client: Troth) -> Callable[[Litestar], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await client.close()

    return lifespan


async def _refuse_what_is_not_meant(request: Request[Any, Any, Any]) -> None:
    """A misspelt filter must not show everything, nor an ID that was left empty the whole collection."""
    # Litestar mends the path it matches, and a slash that was sent as a part of an ID is one like any other there.
    sent = request.scope["raw_path"].decode("latin-1").partition("?")[0]
    if "//" in sent or (sent.endswith("/") and sent != "/") or "%2f" in sent.lower():
        raise NotFoundException("a part of the path is empty, or holds a slash")
    fields = request.route_handler.parsed_fn_signature.parameters
    taken = {_query_name(name, field.kwarg_definition) for name, field in fields.items()}
    for name, value in request.query_params.multi_items():
        if name not in taken:
            raise InvalidArgument(
                f"There is no parameter {name[:100]!r} here.", hint="/schema shows those that are."
            )
        if "\0" in value:
            raise InvalidArgument(f"The parameter {name!r} holds a NUL.", hint="Remove it.")


def _query_name(name: str, definition: object) -> str:
    return definition.name or name if isinstance(definition, ParameterKwarg) else name
