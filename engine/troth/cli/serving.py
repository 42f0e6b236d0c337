"""`troth serve`: the HTTP API, a program of its own which this process becomes."""

from __future__ import annotations

import os
import sys
from importlib import util
from typing import Annotated, Final

from cyclopts import Parameter

from troth.cli.session import Asked
from troth.errors import TrothError

API_COMMAND: Final = (sys.executable, "-P", "-m", "troth_api")

_NEEDED: Final = ("litestar", "granian", "troth_api")


class NotInstalled(TrothError):
    """The HTTP API is an extra, and it is not installed."""

    title = "API not installed"


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    allow_host: Annotated[tuple[str, ...], Parameter(show_default=False)] = (),
    session: Asked,
) -> int:
    """Run the HTTP API until SIGTERM or Ctrl-C.

    It asks nobody for a key, so keep it on the loopback, or behind something that does.

    :param host: The address to listen on; 0.0.0.0 is every one of this machine.
    :param port: The port to listen on.
    :param workers: How many processes.
    :param allow_host: A further name that requests may be addressed to, * for any; can be given often.
    """
    require_api()
    with session.client() as client:
        dsn = client.dsn
    # By the environment: a password has no place in a list of processes.
    os.environ |= {"TROTH_DSN": dsn, "TROTH_SCHEMA": session.schema}
    command = [*API_COMMAND, "--host", host, "--port", str(port), "--workers", str(workers)]
    for name in allow_host:
        command += ["--allow-host", name]
    os.execv(command[0], command)  # noqa: S606 — no shell is wanted


def require_api() -> None:
    """Raise `NotInstalled` if the extra `api` is missing. Nothing of it is imported here."""
    missing = [name for name in _NEEDED if util.find_spec(name) is None]
    if missing:
        raise NotInstalled(
            f"The HTTP API is not installed ({', '.join(missing)} missing).", hint="pip install 'troth[api]'"
        )
