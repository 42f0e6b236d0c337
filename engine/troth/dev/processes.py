"""The processes of a data directory, found without trusting a number in a file.

A pid file outlives its process, and the number in it is given to somebody else; a postmaster that was killed
leaves backends that still hold its shared memory; and a killed process stays in the table, dead, for as long as
nobody waits for it. So this module reads the process table itself, and calls a process a server's own only if it
belongs to the server's user, is called `postgres`, and either stands in the data directory (every process of a
server does), or names the directory or the server's cluster name in its command line, which is what can be seen
on a system without `/proc`. An editor or a shell that stands in the data directory is nobody's business.

It knows nothing of Postgres but these names, and ends nothing but what `of_server` answered.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Process", "alive", "end", "of_server", "until"]

POLL_SECONDS: Final = 0.02
END_SECONDS_MAX: Final = 10.0

_TABLE: Final = Path("/proc")
_OWN: Final = Path("/proc/self/stat")


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the process table, as far as it decides whose process it is."""

    pid: int
    user: int
    dead: bool
    command: tuple[str, ...]
    directory: tuple[int, int] | None
    """Device and number of the directory that it stands in: a path would depend on links and mounts."""


def alive(pid: int) -> bool:
    """Whether the process runs; one that died and was not waited for does not."""
    found = _read(pid) if _OWN.exists() else next((p for p in _listed() if p.pid == pid), None)
    return found is not None and not found.dead


def of_server(data: Path, cluster: str, user: int) -> list[Process]:
    """The living processes of the server of `data`, its postmaster and its orphans, whoever started them."""
    directory = _number(data)
    return [p for p in _table() if not p.dead and p.user == user and _belongs(p, data, directory, cluster)]


def end(processes: Iterable[Process], patience_seconds: float = 0) -> None:
    """Wait for the processes to leave by themselves, then kill those that stayed and see them gone."""
    left = [p.pid for p in processes]
    until(lambda: not any(map(alive, left)), patience_seconds)
    for pid in left:
        if alive(pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(alive, left)), END_SECONDS_MAX)


def until(holds: Callable[[], bool], seconds: float) -> bool:
    """Look until it holds or the time is over; the last look decides."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _belongs(process: Process, data: Path, directory: tuple[int, int] | None, cluster: str) -> bool:
    name = process.command[0] if process.command else ""
    title = name if " " in name else " ".join(process.command)
    if title.startswith(f"postgres: {cluster}: "):
        return True
    if Path(name.split(":", 1)[0].split(" ", 1)[0]).name not in {"postgres", "initdb"}:
        return False
    if directory is not None and process.directory == directory:
        return True
    return str(data) in process.command


def _number(directory: Path) -> tuple[int, int] | None:
    try:
        found = directory.stat()
    except OSError:
        return None  # not there, or not ours to look at
    return found.st_dev, found.st_ino


def _table() -> Iterator[Process]:
    if not _OWN.exists():
        yield from _listed()
        return
    for entry in _TABLE.iterdir():
        if entry.name.isdecimal() and (process := _read(int(entry.name))) is not None:
            yield process


def _read(pid: int) -> Process | None:
    entry = _TABLE / str(pid)
    try:
        # The state follows the command's name, which stands in parentheses and may hold any of them itself.
        state = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        command = (entry / "cmdline").read_bytes().rstrip(b"\0 ").decode(errors="surrogateescape")
        user = entry.stat().st_uid
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return Process(pid, user, state in {"Z", "X"}, tuple(command.split("\0")), _number(entry / "cwd"))


def _listed() -> Iterator[Process]:
    """The same from `ps`, where there is no `/proc`."""
    lines = subprocess.run(
        ["ps", "-axo", "pid=,uid=,stat=,command="],
        capture_output=True,
        text=True,
        errors="replace",
        check=True,
    ).stdout
    for line in lines.splitlines():
        pid, user, state, *command = line.split(maxsplit=3)
        yield Process(int(pid), int(user), state.startswith("Z"), tuple(" ".join(command).split()), None)
