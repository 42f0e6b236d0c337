"""A whole Troth on one machine: a Postgres of its own, started from binaries.

`Postgres.start()` runs one under `.troth/`; `find_running` and `resolve_dsn` find it again from another terminal.
Nothing above the standard library is imported, so that commands which only look for a DSN stay quick.
"""

from troth.dev.binaries import Binaries, find_binaries
from troth.dev.failures import (
    AlreadyRunning,
    AlreadyStarting,
    LauncherError,
    NoBinaries,
    StartFailed,
    VersionMismatch,
)
from troth.dev.postgres import Postgres
from troth.dev.running import Record, find_running, resolve_dsn

__all__ = [
    "AlreadyRunning",
    "AlreadyStarting",
    "Binaries",
    "LauncherError",
    "NoBinaries",
    "Postgres",
    "Record",
    "StartFailed",
    "VersionMismatch",
    "find_binaries",
    "find_running",
    "resolve_dsn",
]
