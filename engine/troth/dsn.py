"""Which Postgres is meant: what was given, then `TROTH_DSN`, then the server that runs for this directory or one above.

A server that `troth dev` or a launcher of ours started leaves a record, `.troth/postgres.json`. A record is a claim, not a
fact: it counts only if its process lives and the server answers on its port. And it counts only if the file is *ours*:
whoever can write `/tmp/.troth/` could otherwise lead everybody's workflows below `/tmp` to a database of his.

An application's own `DATABASE_URL` is never looked at: it is somebody else's database. Who starts servers and writes records is
`troth.dev`; this file only reads, with nothing above the standard library, so that commands which look for a DSN stay quick.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, cast

from troth.errors import InvalidArgument

DIRECTORY: Final = ".troth"
HOST: Final = "127.0.0.1"
PING_SECONDS_MAX: Final = 2.0
RECORD: Final = "postgres.json"

_RECORD_BYTES_MAX: Final = 64 * 1024
_PROTOCOL_3_0: Final = 196608
_CANNOT_CONNECT_NOW: Final = b"C57P03\0"
_REPLY_BYTES_MAX: Final = 1024


def find_dsn(dsn: str | None) -> str:
    """The DSN to use here and now. Raises `InvalidArgument` where nothing says one."""
    found = resolve_dsn(dsn, os.environ, Path.cwd())
    if found is None:
        raise InvalidArgument(
            "No Postgres is named.",
            hint="Give a DSN, set TROTH_DSN, or start one for this directory with `troth dev`.",
        )
    return found


def resolve_dsn(dsn: str | None, env: Mapping[str, str], cwd: Path) -> str | None:
    """The database that is meant: `dsn`, then `TROTH_DSN`, then the running server of a `.troth/` here or above.

    None if there is none of them. `DATABASE_URL` is never read.
    """
    if dsn:
        return dsn
    if env.get("TROTH_DSN"):
        return env["TROTH_DSN"]
    found = find_running(cwd)
    return None if found is None else found.dsn


def find_running(cwd: Path) -> Record | None:
    """The server that runs for `cwd`: of the nearest `.troth/`, here or above, whose server answers."""
    for directory in _upwards(cwd):
        record = read_record(directory / DIRECTORY)
        if record is not None and _exists(record.pid) and ping(record.port) == "answers":
            return record
    return None


def _upwards(cwd: Path) -> Iterator[Path]:
    here = cwd.absolute()
    yield here
    yield from here.parents


def read_record(home: Path) -> Record | None:
    """The record in `home`, if there is one and the file is ours; whether it is still true is not asked."""
    try:
        descriptor = os.open(home / RECORD, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_uid != os.geteuid():
            return None
        text = file.read(_RECORD_BYTES_MAX)
    try:
        document: object = json.loads(text)
        return Record.of(cast("dict[str, object]", document)) if isinstance(document, dict) else None
    except ValueError:
        return None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Record:
    """What `.troth/postgres.json` says of the server that runs."""

    dsn: str
    pid: int
    port: int
    version: str
    data: str
    socket: str
    ephemeral: bool

    @classmethod
    def of(cls, document: Mapping[str, object]) -> Self:
        """The record in a JSON document; `ValueError` if it is none."""
        match document:
            case {
                "dsn": str() as dsn,
                "pid": int() as pid,
                "port": int() as port,
                "version": str() as version,
                "data": str() as data,
                "socket": str() as place,
                "ephemeral": bool() as ephemeral,
            }:
                return cls(dsn, pid, port, version, data, place, ephemeral)
            case _:
                raise ValueError("not the record of a server")


def ping(port: int) -> Literal["answers", "starting", "silent"]:
    """How a server on our loopback takes a connection, asked in the protocol itself, with no driver and no login.

    "starting" also means that it is shutting down: it is there and takes nobody now.
    """
    fields = b"user\0postgres\0database\0postgres\0\0"
    hello = struct.pack("!ii", len(fields) + 8, _PROTOCOL_3_0) + fields
    try:
        with socket.create_connection((HOST, port), timeout=PING_SECONDS_MAX) as connection:
            connection.sendall(hello)
            reply = connection.recv(_REPLY_BYTES_MAX)
    except OSError:
        return "silent"
    if reply[:1] == b"E":
        # Any other refusal, such as too many connections, is the answer of a server that is up.
        return "starting" if _CANNOT_CONNECT_NOW in reply else "answers"
    return "answers" if reply[:1] == b"R" else "silent"
