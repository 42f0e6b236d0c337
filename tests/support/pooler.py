"""pgbouncer in transaction mode, in front of the Postgres of a DSN; and all clients of a process led through it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tests.support.ports import free_port
from troth import SyncTroth, Troth
from troth.dsn import find_dsn

BINARY = Path("/usr/sbin/pgbouncer")
PATIENCE_S = 60.0
LED = "TROTH_TEST_LED"
"""How a process is told which server's clients to lead through which port."""
SETTINGS = """[databases]
* = host={host} port={port} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 20
max_client_conn = 1000
server_idle_timeout = 5
server_check_delay = 0
ignore_startup_parameters = extra_float_digits,options
"""


@contextmanager
def pooler(dsn: str, place: Path) -> Iterator[int]:
    """Run it, with its files in `place`; its port."""
    parts = conninfo_to_dict(dsn)
    place.chmod(0o755)  # not only we are to look into it
    listen = free_port()
    settings, log = place / "pgbouncer.ini", place / "pgbouncer.log"
    settings.write_text(
        SETTINGS.format(listen=listen, **{k: parts[k] for k in ("host", "port", "user", "password")})
    )
    with log.open("wb") as said:
        process = subprocess.Popen(
            [BINARY, "--quiet", settings],
            stderr=said,
            stdout=said,
            # it refuses to be run by root, and reads its settings as whoever runs it
            **({"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}),  # type: ignore[call-overload]
        )
    try:
        until = time.monotonic() + PATIENCE_S
        while not _answers(through(dsn, listen)):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield listen
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def through(dsn: str, port: int) -> str:
    """The same database by way of the pooler."""
    parts = conninfo_to_dict(dsn)
    return dsn.replace(f"@{parts['host']}:{parts['port']}/", f"@127.0.0.1:{port}/")


def _answers(dsn: str) -> bool:
    try:
        with psycopg.connect(dsn, prepare_threshold=None, connect_timeout=10):
            return True
    except psycopg.OperationalError:
        return False


@contextmanager
def led_through(dsn: str, port: int) -> Iterator[None]:
    """Until the end, each client of this server goes through the pooler, in this process and in the workers that it starts.

    What is told to do otherwise (`prepared`, `listen_dsn`) does so; what connects by itself goes straight to the server.
    """
    straight = [(client, client.__init__) for client in (Troth, SyncTroth)]
    os.environ[LED] = f"{_server_of(dsn)} {port}"
    try:
        lead()
        yield
    finally:
        del os.environ[LED]
        for client, make in straight:
            _make_by(client, make)


def lead() -> None:
    """Lead the clients of this process as its environment says."""
    if LED in os.environ:
        server, port = os.environ[LED].split()
        _make_by(Troth, _leading(Troth.__init__, server, int(port), "listen_dsn"))
        _make_by(SyncTroth, _leading(SyncTroth.__init__, server, int(port)))


def _make_by(client: type, make: Callable[..., None], name: str = "__init__") -> None:
    setattr(client, name, make)


def _leading(make: Callable[..., None], server: str, port: int, *to_server: str) -> Callable[..., None]:
    def led(self: Any, dsn: str | None = None, **options: Any) -> None:
        direct = find_dsn(dsn)
        if f"@{server}/" in direct:
            dsn = through(direct, port)
            options = {"prepared": False, **dict.fromkeys(to_server, direct), **options}
        make(self, dsn, **options)

    return led


def _server_of(dsn: str) -> str:
    parts = conninfo_to_dict(dsn)
    return f"{parts.get('host')}:{parts.get('port')}"
