"""Runs the works: a server of its own with default durability, a fresh database for each work, system and run, in turn.

What can be counted from outside is counted here: commits, Postgres' CPU, WAL and bytes for each workflow. What fails is noted,
and the others go on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg

from bench.works import Sizes
from troth.dev.postgres import Postgres

HOME: Final = Path(__file__).resolve().parents[1]
OWN: Final = ("troth", "floor")
PEERS: Final = ("dbos", "absurd", "procrastinate", "pgqueuer")
PEERS_PYTHON: Final = HOME / ".bench" / "bin" / "python"
SETTINGS: Final[Mapping[str, str | int]] = {"max_connections": 200}
"""Nothing that touches durability or memory: Postgres as it comes."""
GUARD_S: Final = 300.0


@dataclass(frozen=True)
class Result:
    """What one run of one work brought for one system: figures, or what went wrong."""

    system: str
    work: str
    figures: dict[str, float] = field(default_factory=dict)
    failure: str | None = None


@dataclass
class Bench:
    """A running server, and what is measured on it."""

    server: Postgres
    settings: Mapping[str, str | int] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    def tried(self, system: str, work: str, act: Callable[[], object]) -> None:
        """Do a part of the whole; if it fails, that is its result, and the rest goes on."""
        try:
            act()
        except Exception as error:  # noqa: BLE001 - whatever it is, the figures of the others must not be lost by it
            self.add(Result(system, work, failure=f"{type(error).__name__}: {error}"))

    def add(self, result: Result) -> None:
        """Keep a result, and show it."""
        self.results.append(result)
        minutes, seconds = divmod(int(time.monotonic() - self.begun), 60)
        said = result.failure or ", ".join(f"{name} {value:,.4g}" for name, value in result.figures.items())
        print(f"{minutes:3}:{seconds:02} {result.work:15} {result.system:14} {said}", flush=True)

    def one(self, system: str, work: str, sizes: Sizes) -> None:
        """One work of one system, in a database of its own."""
        with self.database() as dsn:
            if work in self.prepare(system, dsn)["works"]:
                before = self.counted(dsn)
                said = driver(system, work, dsn, sizes)
                figures = said["figures"]
                if said["workflows"]:
                    figures |= _each(before, self.counted(dsn), said["workflows"])
                self.add(Result(system, work, figures))

    def prepare(self, system: str, dsn: str) -> dict[str, Any]:
        """Make the system's schema; what it says of itself."""
        about = self.about[system] = driver(system, "prepare", dsn)
        return about

    @contextlib.contextmanager
    def database(self) -> Generator[str]:
        """A fresh one, gone at the end."""
        name = f"bench_{time.monotonic_ns()}"
        self._command(f"create database {name}")
        try:
            yield self.server.dsn_of(name)
        finally:
            self._command(f"drop database {name} with (force)")
            self._command("checkpoint")

    def _command(self, text: str) -> None:
        with psycopg.connect(self.server.dsn, autocommit=True) as connection:
            connection.execute(text.encode())

    def counted(self, dsn: str) -> dict[str, float]:
        """What has happened in a database, and what the server has spent."""
        with psycopg.connect(dsn, autocommit=True) as connection:
            row = connection.execute(
                """select xact_commit, pg_current_wal_lsn() - '0/0', pg_database_size(current_database())
                     from pg_stat_database where datname = current_database()"""
            ).fetchone()
        assert row is not None
        return {
            "commits": float(row[0]),
            "wal": float(row[1]),
            "bytes": float(row[2]),
            "cpu": postgres_cpu(self.server),
        }


def _each(before: dict[str, float], after: dict[str, float], workflows: int) -> dict[str, float]:
    each = {key: (after[key] - before[key]) / workflows for key in before}
    return {
        "commits/workflow": each["commits"],
        "WAL bytes/workflow": each["wal"],
        "bytes/workflow": each["bytes"],
        "Postgres CPU s/1,000": each["cpu"] * 1000,
    }


def postgres_cpu(server: Postgres) -> float:
    """Seconds of CPU that the server's processes have used, those that ended included."""
    total = 0.0
    postmaster = psutil.Process(server.pid)
    times = postmaster.cpu_times()
    total += times.user + times.system + times.children_user + times.children_system
    for child in postmaster.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            spent = child.cpu_times()
            total += spent.user + spent.system
    return float(total)


def python_of(system: str) -> str:
    """The interpreter that has the system installed."""
    return sys.executable if system in OWN else str(PEERS_PYTHON)


def environment() -> dict[str, str]:
    """That of a driver process, whose interpreter may know nothing of this directory."""
    return os.environ | {"PYTHONPATH": str(HOME)}


def driver(system: str, what: str, dsn: str, sizes: Sizes | None = None) -> dict[str, Any]:
    """Run the system's driver process to its end; the document that it prints. Its workers end with it, come what may."""
    asked = [json.dumps(dataclasses.asdict(sizes))] if sizes else []
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            [python_of(system), "-m", "bench.driver", system, what, dsn, *asked],
            cwd=HOME,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            said, _ = process.communicate(timeout=GUARD_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if process.returncode:
            complaints.seek(0)
            last = (complaints.read().strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            raise RuntimeError(f"{what}: {last}")
    document: dict[str, Any] = json.loads(said.splitlines()[-1])
    return document


@contextlib.contextmanager
def bench(prefer: str | None, settings: Mapping[str, str | int] = SETTINGS) -> Generator[Bench]:
    """A bench on a server of its own, thrown away at the end."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Postgres.start(Path(folder) / "pg", prefer=prefer, settings=settings) as server,
    ):
        try:
            yield Bench(server, settings)
        finally:
            server.reset(Path(folder) / "pg")
