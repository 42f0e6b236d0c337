"""Locks on files of `.troth/`, which the kernel lets go of when their holder dies, however it dies.

That is why none of them is a pid in a file: nothing has to be guessed about a process that was killed.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final, Self

__all__ = ["FileLock"]

_HOLDER_BYTES_MAX: Final = 100


class FileLock:
    """An exclusive lock on a file, held until `release` or the end of the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock if it is free; never waits. What is held stays held, also when the file is renamed."""
        if self._descriptor is not None:
            return True
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {_world()}\n".encode(), 0)
        self._descriptor = descriptor
        return True

    def holder(self) -> str:
        """Who holds it, for a message: "process 42"."""
        pid = self._written()[0]
        return f"process {pid}" if pid else "another process"

    def held_elsewhere(self) -> bool:
        """Whether the holder lives in another container, where its processes cannot be seen from here."""
        world = self._written()[1]
        return world not in {"", _world()}

    def _written(self) -> tuple[str, str]:
        try:
            pid, _, world = self.path.read_text()[:_HOLDER_BYTES_MAX].strip().partition(" ")
        except OSError:
            return "", ""
        return pid, world

    def release(self) -> None:
        """Let it go; a second time does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _world() -> str:
    """A name for the processes that we can see: the PID namespace, where the system has such."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
