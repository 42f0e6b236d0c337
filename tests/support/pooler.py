"""pgbouncer in transaction mode, in front of the Postgres of a DSN."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tests.support.ports import free_port

BINARY = Path("/usr/sbin/pgbouncer")
PATIENCE_S = 60.0
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
