"""`troth-api`, `python -m troth_api`: serve the HTTP API of a namespace with granian, until SIGINT or SIGTERM.

What stands in the way of serving (a port that is taken, no Postgres, no schema) is said in one sentence before
anything is started.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels

from troth import Troth
from troth.errors import InvalidArgument, TrothError
from troth_api import limits
from troth_api.settings import Settings

TARGET: Final = "troth_api.app:create_from_environment"


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to end; 0 then, 1 if it could not start."""
    try:
        settings = _settings(sys.argv[1:] if argv is None else argv)
        settings = replace(
            settings, dsn=_checked_dsn(settings), port=_free_port(settings.host, settings.port)
        )
    except TrothError as error:
        sys.stderr.write(f"troth-api: {error.message.rstrip('.')}. {error.hint or ''}".rstrip() + "\n")
        return 1
    _serve(settings)
    return 0


def _settings(argv: Sequence[str]) -> Settings:
    usual = Settings.from_environment(os.environ)
    parser = argparse.ArgumentParser("troth-api", description="Serve the HTTP API of a Troth namespace.")
    parser.add_argument("--dsn", default=usual.dsn, help="Postgres: a URL or keywords (TROTH_DSN)")
    parser.add_argument("--schema", default=usual.schema, help="the namespace (TROTH_SCHEMA, %(default)s)")
    parser.add_argument(
        "--host", default=usual.host, help="the address to listen on (TROTH_HOST, %(default)s)"
    )
    parser.add_argument(
        "--port", default=usual.port, type=int, help="0: any that is free (TROTH_PORT, %(default)s)"
    )
    parser.add_argument(
        "--workers", default=usual.workers, type=int, help="processes (TROTH_WORKERS, %(default)s)"
    )
    parser.add_argument(
        "--allow-host",
        dest="hosts",
        action="append",
        metavar="NAME",
        help="a further name that requests may be addressed to; * allows any (TROTH_HOSTS, with commas between)",
    )
    parser.add_argument(
        "--body-bytes-max",
        default=usual.body_bytes_max,
        type=int,
        help="limit of a body (TROTH_BODY_BYTES_MAX)",
    )
    given = parser.parse_args(argv)
    settings = Settings(
        given.dsn,
        given.schema,
        given.host,
        given.port,
        given.workers,
        tuple(given.hosts or usual.hosts),
        given.body_bytes_max,
    )
    return Settings.from_environment(settings.to_environment())


def _checked_dsn(settings: Settings) -> str:
    """The DSN to use, once Postgres has answered there with a schema that fits."""

    async def check() -> str:
        async with Troth(settings.dsn, schema=settings.schema, connections=1) as troth:
            return troth.dsn

    return asyncio.run(check())


def _free_port(host: str, port: int) -> int:
    """The port, or one that is free for 0. Granian itself would share a port with another of its kind, silently."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
            return int(probe.getsockname()[1])
    except OSError as error:
        raise InvalidArgument(
            f"Cannot listen on {host}:{port}: {error.strerror or error}.",
            hint="End what listens there, or choose another --host or --port.",
        ) from None


def _serve(settings: Settings) -> None:
    os.environ.update(settings.to_environment())
    server = Granian(
        TARGET,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGI,
        workers=settings.workers,
        factory=True,
        websockets=False,
        log_level=LogLevels.warning,
        workers_kill_timeout=limits.shutdown_seconds_max,
    )
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host

    @server.on_startup
    def say() -> None:
        sys.stderr.write(
            f"Troth API on http://{shown}:{settings.port} (schema {settings.schema}); Ctrl-C ends it.\n"
        )

    server.serve()


if __name__ == "__main__":
    sys.exit(main())
