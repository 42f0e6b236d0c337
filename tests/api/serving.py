"""The API as a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx

READY_SECONDS_MAX = 60.0
END_SECONDS_MAX = 60.0


@dataclass
class Served:
    """A process that serves, and where."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def end(self) -> int:
        """Tell it to end; its exit code."""
        self.process.terminate()
        return self.process.wait(END_SECONDS_MAX)


class Serve(Protocol):
    """Starts the API with these arguments and further environment; waits until it is ready."""

    def __call__(self, *arguments: str, **environment: str) -> Served: ...


@contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[Served]:
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "stderr"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "troth_api", "--port", "0", *arguments],
                stderr=stderr,
                env={**os.environ, **environment},
            )
        try:
            yield Served(_url(process, log), process, log)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(END_SECONDS_MAX)
                finally:
                    process.kill()
                    process.wait()


def refused(*arguments: str, **environment: str) -> tuple[int, str]:
    """Start the API where it cannot start: its exit code, and what it says."""
    ran = subprocess.run(
        [sys.executable, "-m", "troth_api", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    return ran.returncode, ran.stderr


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    until = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < until and process.poll() is None:
        found = re.search(r"on (http://\S+) ", log.read_text())
        if found is not None:
            try:
                if httpx.get(f"{found[1]}/healthz", trust_env=False).is_success:
                    return found[1]
            except httpx.TransportError:
                pass
        time.sleep(0.05)
    raise AssertionError(f"the API did not start: {log.read_text()}")
