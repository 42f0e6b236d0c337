"""The processes of chaos, and how they die: Postgres with all its children, API processes, workers.

Whoever is killed here is our own child, or (the backends of Postgres) is found below a postmaster that was stopped first, so that
it cannot fork meanwhile. What each process says lies in a folder, whose ends are shown when something goes wrong.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, NoReturn

import httpx
import psutil  # type: ignore[import-untyped, unused-ignore]

from tests.support.cli import environment
from troth.dev.postgres import Postgres

ROOT = Path(__file__).parents[3]
SETTINGS: dict[str, str | int] = {
    "max_connections": 200,
    # what is lost with the machine's memory is not tried here: a process that is killed loses nothing that it has written
    "fsync": "off",
    "log_line_prefix": "%m [%p] ",
}
PORTS = range(12_000, 30_000)
"""Below those that connections going out are given: a client that calls a port where nobody listens may otherwise meet itself."""
API_READY_S = 60.0
FORGETFUL_S = 0.5
TAIL_LINES = 15
TAIL_FILES = 12


def free_port(chance: random.Random) -> int:
    """A port of the loopback at which nobody listens now."""
    while True:
        port = chance.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Database:
    """A Postgres with lasting data, which may be killed and started again on them."""

    def __init__(
        self, home: Path, chance: random.Random, prefer: str | None, settings: Mapping[str, str] | None = None
    ) -> None:
        self._settings = {**SETTINGS, **(settings or {})}
        self._home = home
        self._prefer = prefer
        self._port = free_port(chance)
        self._postgres = self._started()
        self.dsn = self._postgres.dsn

    def kill(self) -> int:
        """SIGKILL for the postmaster and all its children; how many there were."""
        postmaster = psutil.Process(self._postgres.pid)
        postmaster.suspend()  # it cannot fork now
        children = postmaster.children(recursive=True)
        if self._settings.get("synchronous_commit") == "off":
            _die([child for child in children if _is_called(child, "walwriter")])
            time.sleep(FORGETFUL_S)  # the others go on, and nobody writes down what they say
        return _die([*children, postmaster])

    def start_again(self) -> None:
        """On the same data, at the same port."""
        self._postgres = self._started()

    def stop(self) -> None:
        self._postgres.stop()

    @property
    def log(self) -> Path:
        return self._postgres.log

    def _started(self) -> Postgres:
        return Postgres.start(self._home, port=self._port, prefer=self._prefer, settings=self._settings)


def _is_called(process: psutil.Process, name: str) -> bool:
    with suppress(psutil.NoSuchProcess):
        return name in " ".join(process.cmdline())
    return False


def _die(processes: list[psutil.Process]) -> int:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=30)
    return len(processes)


class Api:
    """One API process of a user's, `python -m troth_api`, always at the same port."""

    def __init__(self, number: int, dsn: str, logs: Path, chance: random.Random) -> None:
        self._number = number
        self._dsn = dsn
        self._log = logs / f"api-{number}.log"
        self.port = free_port(chance)
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def spawn(self) -> None:
        """Start it."""
        with self._lock:
            self._spawn()

    def kill(self) -> None:
        """Kill it."""
        with self._lock:
            self._kill()

    def again(self) -> None:
        """Kill it, and start the next one."""
        with self._lock:
            self._kill()
            self._spawn()

    def mend(self) -> bool:
        """Start it again if it ended by itself (Postgres was away when it began); whether it had."""
        with self._lock:
            if not self.ended():
                return False
            self._kill()
            self._spawn()
            return True

    def ended(self) -> bool:
        """Whether it does not run. Nobody waits for it before `_kill` does: until then its number is its own."""
        if self._process is None:
            return True
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _spawn(self) -> None:
        assert self._process is None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "troth_api", "--port", str(self.port)],
                env=environment(self._dsn),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _kill(self) -> None:
        """SIGKILL for it and its own workers."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    async def ready(self) -> bool:
        """Wait until it answers; False if it ended instead."""
        async with httpx.AsyncClient(trust_env=False) as client:
            until = time.monotonic() + API_READY_S
            while time.monotonic() < until and not self.ended():
                with suppress(httpx.TransportError):
                    if (await client.get(f"{self.url}/healthz")).is_success:
                        return True
                await asyncio.sleep(0.1)
        return False


class Crew:
    """The workers, by name, through the process that makes and kills them (`crew`)."""

    def __init__(self, dsn: str, logs: Path) -> None:
        self._lock = threading.Lock()
        self._log = (logs / "crew.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.proof.chaos.crew", dsn, str(logs)],
            env=environment(dsn),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )

    def say(self, word: str, name: str = "") -> str:
        """One word, and its answer."""
        into, out = self._process.stdin, self._process.stdout
        assert into is not None
        assert out is not None
        with self._lock:
            _write(into, f"{word} {name}\n")
            answer = out.readline().decode().rstrip("\n")
        if word != "ended" and answer != "ok":
            raise AssertionError(f"the crew answered {answer!r} to {word} {name}")
        return answer

    def end(self) -> None:
        """Kill all workers, and end it."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._log.close()


def _write(into: IO[bytes], text: str) -> None:
    into.write(text.encode())
    into.flush()


def tails(logs: Path, postgres: Path) -> str:
    """The ends of what the processes said, of those first that complained."""
    files = [postgres, *sorted(logs.glob("*.log"), key=lambda path: path.stat().st_mtime, reverse=True)]
    texts = {path: path.read_text(errors="replace") for path in files if path.exists()}
    complaining = [path for path, text in texts.items() if re.search(r"Traceback|PANIC", text)]
    parts = []
    for path in [*complaining, *[path for path in texts if path not in complaining]][:TAIL_FILES]:
        parts.append(f"--- {path}")
        parts += texts[path].splitlines()[-TAIL_LINES:]
    return "\n".join(parts)


def leave(number: int, _frame: object) -> NoReturn:
    """What SIGTERM does: end by way of every `finally`, so that no process is left behind."""
    raise SystemExit(128 + number)
