"""One data directory and its server: made, started, seen to answer, mended and ended.

Everything here happens under somebody else's lock and with directories that somebody else chose (`postgres`).
This file knows what can be left behind and mends it:

- *killed while the data were made*: `initdb` works in `new/` beside the data, and the finished directory is
  renamed, with its password in it, in one step. What lies in `new/` is never anything but rubbish.
- *the postmaster was killed*: its backends may still hold its shared memory, and Postgres rightly refuses to start
  beside them. Those of this data directory are given a moment to leave and then killed; a crash recovery follows
  anyhow. Only when the process table shows nobody are the stale pid file and sockets removed: the number in them
  may belong to somebody else by now, and Postgres would believe it.
- *the machine has no room, or the wrong rights*: the server's own words are in its log, and its last ones become
  the error.

The server listens on loopback, where any user of the machine can knock, so everybody needs the password
(scram-sha-256), which lies in the data directory for its owner alone. All settings go on the command line:
what a start asks for holds for that start, and the directory keeps no memory of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path
from typing import Final, cast

from troth.dev.binaries import Binaries
from troth.dev.failures import StartFailed
from troth.dev.ground import ServerUser, environment, give, make, run_as
from troth.dev.processes import Process, alive, end, of_server, until
from troth.dev.running import HOST, ping

__all__ = [
    "Identity",
    "Postmaster",
    "Server",
    "clear_staging",
    "cluster_of",
    "free_port",
    "initialize",
    "launch",
    "ready",
    "recover",
    "shut_down",
]

READY_SECONDS_MAX: Final = 120.0
"""Also the longest crash recovery that a start waits for."""
INITDB_SECONDS_MAX: Final = 120.0
FAST_SECONDS_MAX: Final = 30.0
IMMEDIATE_SECONDS_MAX: Final = 5.0
ORPHAN_SECONDS_MAX: Final = 1.0
STAGING_SECONDS_MAX: Final = 5.0
LOG_BYTES_MAX: Final = 10 * 1024 * 1024
LOG_TAIL_LINES: Final = 5
LOG_TAIL_BYTES: Final = 16 * 1024

_IDENTITY: Final = "troth.json"
_SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": HOST,
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_destination": "stderr",
    "logging_collector": "off",
}
_EPHEMERAL: Final[Mapping[str, str]] = {"fsync": "off", "full_page_writes": "off"}
# Not synchronous_commit: a test may kill the postmaster, and what was committed must be there afterwards.


@dataclass(frozen=True, slots=True)
class Identity:
    """What a data directory was born with: its superuser's password, and the port that it likes to have."""

    password: str
    port: int

    @classmethod
    def of(cls, data: Path) -> Identity:
        """The identity of the data directory; `StartFailed` if it was not made by us."""
        try:
            document: object = json.loads((data / _IDENTITY).read_bytes())
        except (OSError, ValueError):
            document = None
        match cast("dict[str, object]", document) if isinstance(document, dict) else None:
            case {"password": str() as password, "port": int() as port}:
                return cls(password, port)
            case _:
                raise StartFailed(
                    f"{data} holds data that Troth did not make, or no longer knows the password of: "
                    f"move it away, or throw it away with --reset."
                )

    def dsn(self, port: int, database: str = "postgres") -> str:
        """How to reach the server on this port."""
        return f"postgresql://postgres:{self.password}@{HOST}:{port}/{database}"


@dataclass(frozen=True, slots=True)
class Server:
    """A server's directories and user, as they were chosen."""

    data: Path
    socket: Path
    log: Path
    user: ServerUser
    ephemeral: bool

    @property
    def cluster(self) -> str:
        """The cluster name, which Postgres shows in the title of each of its processes."""
        return cluster_of(self.data)

    def processes(self) -> dict[int, Process]:
        """The living processes of this server, its orphans among them, by process ID."""
        return {p.pid: p for p in of_server(self.data, self.cluster, self.user.uid)}


def cluster_of(data: Path) -> str:
    """A name for the data directory that is fit for process titles."""
    return f"troth-{hashlib.sha256(str(data).encode()).hexdigest()[:12]}"


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def initialize(server: Server, binaries: Binaries, *, synced: bool) -> None:
    """Make the data directory, whole or not at all; `synced` for data that are to outlive the machine's power."""
    staging = server.data.parent / "new"
    clear_staging(server)
    give(make(staging, 0o700), server.user)
    making = staging / server.data.name
    identity = Identity(secrets.token_hex(24), free_port())
    password = staging / "password"
    _write_private(password, identity.password, server.user)
    # From version 17 on Postgres has a C.UTF-8 of its own; before, the system's is used where there is one.
    libc = "C" if os.uname().sysname == "Darwin" else "C.UTF-8"
    builtin = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    command = [
        *(str(binaries.initdb), "-D", str(making), "--username=postgres", f"--pwfile={password}"),
        *("--auth=scram-sha-256", "--encoding=UTF8"),
        *(builtin if binaries.major >= 17 else [f"--locale={libc}"]),
        *([] if synced else ["--no-sync"]),
    ]
    try:
        made = run_as(server.user, command, INITDB_SECONDS_MAX)
        if made.returncode != 0:
            raise StartFailed(
                f"Postgres {binaries.version} could not make its data in {server.data.parent}: "
                f"{reason_in(made.stdout)}\n{_last_lines(made.stdout)}"
            )
        _write_private(
            making / _IDENTITY,
            json.dumps({"password": identity.password, "port": identity.port}),
            server.user,
        )
        making.rename(server.data)
    except subprocess.TimeoutExpired:
        raise StartFailed(
            f"Postgres {binaries.version} did not make its data in {server.data.parent} within "
            f"{INITDB_SECONDS_MAX:.0f} s: look whether the disk answers, and try again."
        ) from None
    finally:
        clear_staging(server)
    if synced:
        _sync(server.data.parent)


def clear_staging(server: Server) -> None:
    """Remove what an `initdb` that was killed has left, and end it first if it still runs."""
    staging = server.data.parent / "new"
    making = staging / server.data.name

    def cleared() -> bool:
        # Again and again: a child of that initdb, which lives a moment longer, may still put files there.
        end(of_server(making, cluster_of(making), server.user.uid))
        shutil.rmtree(staging, ignore_errors=True)
        return not staging.exists()

    if not until(cleared, STAGING_SECONDS_MAX):
        shutil.rmtree(staging)  # for its error


def _write_private(path: Path, text: str, user: ServerUser) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    give(path, user)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def recover(server: Server) -> None:
    """Make the directory of a server that is not running ready to start: no orphans, no stale files."""
    end(server.processes().values(), ORPHAN_SECONDS_MAX)
    (server.data / "postmaster.pid").unlink(missing_ok=True)
    for stale in server.socket.glob(".s.PGSQL.*"):
        stale.unlink(missing_ok=True)


def launch(
    server: Server, binaries: Binaries, port: int, settings: Mapping[str, str | int]
) -> subprocess.Popen[bytes]:
    """Start the server and wait until it answers; `StartFailed` with the server's own words if it does not."""
    with opened_log(server.log) as log:
        begin = log.tell()
        process = subprocess.Popen(
            _command(server, binaries, port, settings),
            cwd="/",
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            umask=0o077,
            start_new_session=True,  # Ctrl-C in a terminal is for us; the server is told in our time
            user=server.user.uid if server.user.dropped else None,
            group=server.user.gid if server.user.dropped else None,
            extra_groups=[] if server.user.dropped else None,
        )
    try:
        ended = f"did not answer within {READY_SECONDS_MAX:.0f} s"
        if until(lambda: process.poll() is not None or ready(server, process.pid), READY_SECONDS_MAX):
            if process.poll() is None:
                return process
            ended = "could not start"
        said = tail_of(server.log, begin)
        raise StartFailed(
            f"Postgres {binaries.version} {ended} on {server.data}: {reason_in(said)}\n{said}".rstrip()
        )
    except BaseException:
        shut_down(server, process.pid, process=process, fast=False)
        raise


def _command(server: Server, binaries: Binaries, port: int, settings: Mapping[str, str | int]) -> list[str]:
    quoted = str(server.socket).replace('"', '""')
    asked: dict[str, str | int] = {
        **_SETTINGS,
        **(_EPHEMERAL if server.ephemeral else {}),
        **settings,
        "port": port,
        "unix_socket_directories": f'"{quoted}"',
        "cluster_name": server.cluster,
    }
    command = [str(binaries.postgres), "-D", str(server.data)]
    for name, value in asked.items():
        command += ["-c", f"{name}={value}"]
    return command


@dataclass(frozen=True, slots=True)
class Postmaster:
    """What a server says of itself in `postmaster.pid`; `ready` is its own word."""

    pid: int
    port: int
    ready: bool

    @classmethod
    def of(cls, data: Path) -> Postmaster | None:
        """The postmaster that the directory names, alive or not; None if it names none, or not yet."""
        try:
            lines = (data / "postmaster.pid").read_text(errors="replace").splitlines()
            return cls(int(lines[0]), int(lines[3]), len(lines) > 7 and lines[7].startswith("ready"))
        except (OSError, ValueError, IndexError):
            return None


def ready(server: Server, pid: int) -> bool:
    """Whether this very process says that it is ready, and answers. A port alone may be somebody else's."""
    said = Postmaster.of(server.data)
    return said is not None and said.pid == pid and said.ready and ping(said.port) == "answers"


def shut_down(
    server: Server, pid: int, *, process: subprocess.Popen[bytes] | None = None, fast: bool = True
) -> None:
    """End the server and see it gone: fast (sessions are ended, data are flushed), or at once if it is not.

    `process` is given by who started it, since the dead stay in the process table until their parent asks.
    """

    def gone() -> bool:
        return process.poll() is not None if process is not None else not alive(pid)

    steps = [(signal.SIGINT, FAST_SECONDS_MAX)] if fast else []
    for number, patience_seconds in [*steps, (signal.SIGQUIT, IMMEDIATE_SECONDS_MAX)]:
        if gone():
            break
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        until(gone, patience_seconds)
    end(server.processes().values(), 0 if gone() else IMMEDIATE_SECONDS_MAX)
    gone()


def opened_log(path: Path) -> BufferedWriter:
    """The server's log, to be written at its end; one that has grown too long is put aside first."""
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_suffix(".log.1"))
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.fdopen(os.open(path, flags, 0o600), "ab")
    file.seek(0, os.SEEK_END)
    return file


def tail_of(log: Path, begin: int = 0) -> str:
    """The last lines of what the server said since `begin`, a position in its log."""
    with log.open("rb") as file:
        file.seek(max(begin, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
        return _last_lines(file.read().decode(errors="replace"))


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-LOG_TAIL_LINES:])


def reason_in(text: str) -> str:
    """The one line of a log that says why: the last that names an error, or else the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [
        m[1] for line in lines if (m := re.search(r"(?:FATAL|PANIC|ERROR|error): +(.+)", line)) is not None
    ]
    return errors[-1] if errors else lines[-1] if lines else "it said nothing"
