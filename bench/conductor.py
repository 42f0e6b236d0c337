"""Runs the works: a server of its own with default durability, a fresh database for each work, system and run, in turn.

What can be counted from outside is counted here: commits, Postgres' CPU, WAL and bytes for each workflow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg

from bench.works import Sizes
from troth.dev.postgres import Postgres

HOME = Path(__file__).resolve().parents[1]
OWN = ("troth", "floor")
PEERS = ("dbos", "absurd", "procrastinate", "pgqueuer")
PEERS_PYTHON = HOME / ".bench" / "bin" / "python"
SETTINGS: dict[str, str | int] = {"max_connections": 200}
"""Nothing that touches durability or memory: Postgres as it comes."""
GUARD_S = 1200.0


@dataclass(frozen=True)
class Result:
    """What one run of one work brought for one system."""

    system: str
    work: str
    figures: dict[str, float]


@dataclass
class Bench:
    """A running server, and what is measured on it."""

    server: Postgres
    results: list[Result] = field(default_factory=list)
    about: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(self, systems: Sequence[str], works: Sequence[str], runs: int, sizes: Sizes) -> None:
        """All works, each by all systems in turn, so often."""
        for work in works:
            for number in range(runs):
                # nobody is always the first after a pause, or the last on a warm disk
                for system in [*systems[number % len(systems) :], *systems[: number % len(systems)]]:
                    self.one(system, work, sizes)

    def one(self, system: str, work: str, sizes: Sizes, *, label: str | None = None) -> None:
        """One work of one system, in a database of its own."""
        with self.database() as dsn:
            about = self.about[system] = self.prepare(system, dsn)
            if work not in about["works"]:
                return
            before = self.counted(dsn)
            said = driver(system, work, dsn, json.dumps(dataclasses.asdict(sizes)))
            figures = said["figures"]
            if said["workflows"]:
                figures |= self._counts(before, self.counted(dsn), said["workflows"])
            self.results.append(Result(system, label or work, figures))
            print(f"{label or work:10} {system:14}", {k: round(v, 3) for k, v in figures.items()}, flush=True)

    def prepare(self, system: str, dsn: str) -> dict[str, Any]:
        """Make the system's schema; what it says of itself."""
        return driver(system, "prepare", dsn)

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
            connection.execute("select pg_stat_clear_snapshot()")
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

    def _counts(self, before: dict[str, float], after: dict[str, float], workflows: int) -> dict[str, float]:
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


def driver(system: str, *words: str) -> dict[str, Any]:
    """Run the system's driver process to its end; the document that it prints."""
    python = sys.executable if system in OWN else str(PEERS_PYTHON)
    ended = subprocess.run(
        [python, "-m", "bench.driver", system, *words],
        cwd=HOME,
        env=os.environ | {"PYTHONPATH": str(HOME)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=GUARD_S,
        check=True,
    )
    said: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return said


@contextlib.contextmanager
def bench(prefer: str | None) -> Generator[Bench]:
    """A bench on a server of its own, thrown away at the end."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Postgres.start(Path(folder) / "pg", prefer=prefer, settings=SETTINGS) as server,
    ):
        try:
            yield Bench(server)
        finally:
            server.reset(Path(folder) / "pg")
