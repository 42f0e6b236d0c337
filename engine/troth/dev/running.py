"""The record of a running server under `.troth/`, by which a second terminal finds it.

    .troth/.gitignore       "*": nothing here is anybody's source
    .troth/postgres.json    while a server runs: its DSN, pid, port, version and data directory; mode 0600
    .troth/postgres.log     what it said
    .troth/pgdata           its data, unless the server's user cannot enter this directory: then
    .troth/place            names the directory that we made for them elsewhere
    .troth/lock             held by who is starting, adopting or throwing away
    .troth/owner            held, for its life, by the process whose `stop` ends the server (beside the data)

Reading a record, and asking whether it is still true, is `troth.dsn`'s business: every client does that.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from troth.dsn import DIRECTORY, HOST, RECORD, Record, find_running, ping, read_record, resolve_dsn

__all__ = [
    "DIRECTORY",
    "HOST",
    "Record",
    "find_running",
    "ping",
    "read_record",
    "resolve_dsn",
    "write_record",
]


def write_record(home: Path, record: Record | None) -> None:
    """Put the record there, whole or not at all, for our eyes only; None takes it away."""
    path = home / RECORD
    if record is None:
        path.unlink(missing_ok=True)
        return
    making = home / f"{RECORD}.{os.getpid()}"
    with suppress(FileNotFoundError):
        making.unlink()
    descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(record), file, indent=2)
        file.write("\n")
    making.replace(path)
