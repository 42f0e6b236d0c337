"""Whether the process lives, and whether it can do its work."""

from __future__ import annotations

import asyncio
from typing import Final, Literal

import msgspec
from litestar import Router, get
from litestar.di import NamedDependency

from troth import Troth
from troth.errors import Unreachable
from troth_api import limits
from troth_api.problems import declared


class Health(msgspec.Struct, frozen=True):
    """It is well."""

    status: Literal["ok"] = "ok"


@get("/healthz", summary="Whether the process lives", responses=declared(postgres=False))
async def healthz() -> Health:
    """Answer, without asking Postgres."""
    return Health()


@get(
    "/readyz",
    summary="Whether it can serve",
    responses=declared(),
)
async def readyz(troth: NamedDependency[Troth]) -> Health:
    """Ask Postgres whether it is there, with a schema that fits."""
    try:
        async with asyncio.timeout(limits.ready_seconds_max):
            await troth.connect()
    except TimeoutError:
        raise Unreachable(
            f"Postgres did not answer within {limits.ready_seconds_max:g} s.",
            hint="Look at its load and its locks.",
        ) from None
    return Health()


router: Final = Router("/", route_handlers=[healthz, readyz], tags=["health"])
