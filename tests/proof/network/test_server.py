"""A Postgres that is there and does not do as it is told: no connection left, statements cut short, read-only, a full disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from tests.engine.programs.worker import state_of
from tests.engine.running import until
from tests.proof.network.servers import DISCONNECT, begin, do, live_through
from troth.dev import Postgres
from troth.worker import turns

Told = Any


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says things again soon enough for a test."""
    monkeypatch.setattr(turns, "AWAY_LONGEST_S", 0.5)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Postgres]:
    server = begin(tmp_path / ".troth", fsync="off", max_connections=25)
    yield server
    server.stop()


async def test_no_connection_is_left(server: Postgres, record_property: Told) -> None:
    """Somebody has them all, and the workers' own were cut; when he lets go, all goes on."""
    held: list[psycopg.Connection[Any]] = []
    free = server.dsn

    async def trouble() -> None:
        do(free, DISCONNECT)
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                held.append(psycopg.connect(free))

    async def relief() -> None:
        while held:
            held.pop().close()

    with capture_logs() as log:
        record_property("seconds", await live_through(free, trouble, relief, log, ("max_connections",)))


SETTINGS = {
    "statement_timeout": ("1ms", "statement timeout"),
    "default_transaction_read_only": ("on", "read-only transaction"),
}


@pytest.mark.parametrize("setting", SETTINGS)
async def test_statements_are_refused(server: Postgres, setting: str, record_property: Told) -> None:
    value, said = SETTINGS[setting]
    database = "alter database postgres"

    async def trouble() -> None:
        do(server.dsn, f"{database} set {setting} = '{value}'", DISCONNECT)

    async def relief() -> None:
        do(
            server.dsn,
            f"set {setting} = default; set {setting} = 0",
            f"{database} reset {setting}",
            DISCONNECT,
        )

    with capture_logs() as log:
        record_property("seconds", await live_through(server.dsn, trouble, relief, log, (said,)))


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 160 MB in memory."""
    place = Path(tempfile.mkdtemp(prefix="troth-disk-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160m,mode=0755", "tmpfs", place], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        place.rmdir()
        if os.environ.get("CI") == "true":
            pytest.xfail(f"this container may not mount: {mounted.stderr}")
        pytest.skip(f"mounting is not allowed here: {mounted.stderr}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)
    place.rmdir()


async def test_the_disk_is_full(small_disk: Path, record_property: Told) -> None:
    """WAL and data on it. Where Postgres itself gives up, it is started again once there is room, as an operator would."""
    home = small_disk / ".troth"
    server = begin(home, max_wal_size="32MB", min_wal_size="32MB")
    assert small_disk in server.data.parents, "the data lie on it"
    fill = small_disk / "fill"

    async def trouble() -> None:
        do(server.dsn, "create table public.heap (t text)", "checkpoint")
        with fill.open("wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 65536)
                file.flush()
        with contextlib.suppress(psycopg.Error):  # what is left of WAL and free pages
            for _ in range(1000):
                do(
                    server.dsn,
                    "insert into public.heap select repeat('x', 8000) from generate_series(1, 500)",
                )

    async def relief() -> None:
        nonlocal server
        fill.unlink()
        try:
            do(server.dsn, "drop table public.heap")
        except psycopg.Error:
            await until(lambda: state_of(server.pid) == "Z", "it has given up")
            server.stop()
            server = Postgres.start(home, port=server.port)
            do(server.dsn, "drop table public.heap")

    try:
        with capture_logs() as log:
            seconds = await live_through(
                server.dsn, trouble, relief, log, ("No space left", "could not extend", "cannot be reached")
            )
        record_property("seconds", seconds)
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)
