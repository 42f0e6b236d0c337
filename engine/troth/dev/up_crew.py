"""Child processes that are watched together: their lines with a name in front, one end for all.

Each is the leader of a session of its own, so that Ctrl-C in a terminal reaches the parent alone, which then ends them
in its own order. It knows nothing of what the processes are.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

END_SECONDS_MAX: Final = 15.0
"""How long a child may take to end before it is killed."""
LAST_WORDS_SECONDS_MAX: Final = 2.0
LINE_CHARACTERS_MAX: Final = 10_000

_CHILD: Final = str(Path(__file__).with_name("up_child.py"))


@dataclass(frozen=True, eq=False)
class Child:
    """One process, and the thread that passes on what it says."""

    name: str
    process: subprocess.Popen[str]
    reader: threading.Thread


class Crew:
    """The children; leaving the `with` ends them all and sees them gone."""

    def __init__(self, hear: Callable[[str, str], None]) -> None:
        self._hear = hear
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Child:
        """Start a program whose lines are heard under `name`."""
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", _CHILD, str(os.getpid()), *command],
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        reader = threading.Thread(
            target=self._read, args=(name, process), name=f"troth dev {name}", daemon=True
        )
        child = Child(name, process, reader)
        self._children.append(child)
        reader.start()
        return child

    def _read(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        while line := process.stdout.readline(LINE_CHARACTERS_MAX):
            self._hear(name, line.rstrip("\r\n"))

    def ended(self) -> Child | None:
        """The first child that is no more."""
        return next((child for child in self._children if child.process.poll() is not None), None)

    def stop(self) -> None:
        """Ask all to end, the last one started first; kill those that do not."""
        deadline = time.monotonic() + END_SECONDS_MAX
        for child in reversed(self._children):
            if child.process.poll() is None:
                child.process.terminate()
        for child in reversed(self._children):
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._hear(child.name, f"did not end within {END_SECONDS_MAX:.0f} s and is killed")
                with suppress(ProcessLookupError):
                    os.killpg(child.process.pid, signal.SIGKILL)
                child.process.wait()
            child.reader.join(LAST_WORDS_SECONDS_MAX)
        self._children.clear()
