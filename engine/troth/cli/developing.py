"""`troth dev`: everything on one machine, until Ctrl-C."""

from __future__ import annotations

import os
from typing import Annotated

from cyclopts import Parameter

from troth.cli.loading import check_target
from troth.cli.serving import API_COMMAND, require_api
from troth.cli.session import Asked
from troth.errors import InvalidArgument


def dev(
    target: str,
    /,
    *targets: str,
    port: int = 8000,
    reset: Annotated[bool, Parameter(show_default=False)] = False,
    ephemeral: Annotated[bool, Parameter(show_default=False)] = False,
    session: Asked,
) -> int:
    """Run Postgres, the HTTP API and a worker for your workflows, until Ctrl-C.

    Without a DSN, Postgres is one of its own under .troth/, where other terminals find it: `troth start ...` works in
    this directory and below while it runs. All of it listens on this machine only.

    :param target: A file such as approval.py, or a module.
    :param targets: More of them.
    :param port: The port of the HTTP API.
    :param reset: Throw away what an earlier run has left in .troth/.
    :param ephemeral: Keep nothing: the data end with it.
    """
    from troth.dev.up import Plan, up

    for each in (target, *targets):
        check_target(each)
    require_api()
    given = session.given or os.environ.get("TROTH_DSN")
    if given and (reset or ephemeral):
        raise InvalidArgument(
            "--reset and --ephemeral are for a Postgres of its own, and a DSN names another.",
            hint="Leave them out, or the DSN (--dsn, TROTH_DSN).",
        )
    plan = Plan(
        targets=(target, *targets),
        api=API_COMMAND,
        dsn=session.dsn() if given else None,
        schema=session.schema,
        port=port,
        reset=reset,
        ephemeral=ephemeral,
        json=session.json,
    )
    return up(plan)
