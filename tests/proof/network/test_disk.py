"""A disk that is full: data, WAL and the server's log lie on a small file system of their own, and a ballast fills it.

Without room for a page of a table Postgres refuses what needs one and goes on. Without room for WAL it panics, cannot come up
again, and ends: then it is started again once there is room, as an operator would. What asks Postgres
here does so in a thread: one that panicked waits up to a minute for whoever has connected and says nothing yet, and a client
whose loop stands still is that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from tests.engine.programs.worker import state_of
from tests.engine.running import PATIENCE_S, client_options, until
from tests.proof.network.servers import begin, do, live_through
from tests.proof.network.shop import order
from troth import DatabaseError, Troth
from troth.dev import Postgres

Told = Any
DISK = "160m"
SETTINGS: dict[str, str | int] = {"max_wal_size": "32MB", "min_wal_size": "32MB"}

pytestmark = pytest.mark.usefixtures("unhurried")


class Disk:
    """The small disk, the server on it, and the ballast."""

    def __init__(self, place: Path) -> None:
        self._home = place / ".troth"
        self._ballast = place / "ballast"
        self.server = begin(self._home, **SETTINGS)
        assert place in self.server.data.parents, "the data lie on it"

    def fill(self) -> None:
        """To the last page."""
        with self._ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 65536)
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)

    def use_up_the_wal(self) -> None:
        """Write WAL until that is refused, or Postgres ends of it."""
        with contextlib.suppress(psycopg.Error):
            for _ in range(500):
                do(self.server.dsn, "select pg_logical_emit_message(true, 'fill', repeat('x', 1000000))")
            raise AssertionError(f"half a gigabyte of WAL went onto a disk of {DISK}")

    def relieve(self) -> bool:
        """Take the ballast away, and start the server again if it ended; whether it had."""
        self._ballast.unlink()
        deadline = time.monotonic() + PATIENCE_S
        while not self.ended:
            with contextlib.suppress(psycopg.Error):
                do(self.server.dsn, "select pg_logical_emit_message(true, 'room', '')")
                return False
            assert time.monotonic() < deadline, "it neither recovers nor ends"
            time.sleep(0.05)
        self.server.stop()
        self.server = Postgres.start(self._home, port=self.server.port, settings=SETTINGS)
        return True

    @property
    def ended(self) -> bool:
        return state_of(self.server.pid) == "Z"


@pytest.fixture
def disk() -> Iterator[Disk]:
    place = Path(tempfile.mkdtemp(prefix="troth-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0755", "tmpfs", str(place)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        place.rmdir()
        assert os.environ.get("CI") != "true", f"CI skips nothing: {mounted.stderr}"
        pytest.skip(f"a small disk cannot be made here: {mounted.stderr.strip()}")
    try:
        disk = Disk(place)
        try:
            yield disk
        finally:
            disk.server.stop()
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        place.rmdir()


async def test_there_is_no_room_for_pages(disk: Disk, record_property: Told) -> None:
    """What needs a page more is refused with 53100, workers say it again, and what needs none goes on."""
    amid = [f"amid-{n}" for n in range(40)]
    refused: list[str] = []

    async def trouble() -> None:
        async with Troth(disk.server.dsn, **client_options()) as client:
            await client.start_many(order, {id: [id] for id in amid})
            disk.fill()  # the workers' loop is ours: between the start and the full disk they say nothing
            while not refused:
                try:
                    await client.create_promise(str, f"filling-{secrets.token_hex(4)}")
                except DatabaseError as error:
                    refused.append(error.code)

    async def relief() -> None:
        assert not await asyncio.to_thread(disk.relieve), "it went on all the while"

    with capture_logs() as log:
        seconds = await live_through(
            disk.server.dsn, trouble, relief, log, ("No space left on device",), amid=amid
        )
    assert refused == ["53100"]
    record_property("seconds", seconds)


@pytest.mark.parametrize("relieved", ["at once", "when it has ended"])
async def test_there_is_no_room_for_wal(disk: Disk, relieved: str, record_property: Told) -> None:
    """Postgres panics, and who has waited for a result, a start or a settlement goes on behind its restart."""
    again: list[bool] = []

    async def trouble() -> None:
        disk.fill()
        await asyncio.to_thread(disk.use_up_the_wal)

    async def relief() -> None:
        if relieved == "when it has ended":
            await until(lambda: disk.ended, "it cannot come up again")
        again.append(await asyncio.to_thread(disk.relieve))

    with capture_logs() as log:
        seconds = await live_through(disk.server.dsn, trouble, relief, log, ("cannot be reached",))
    assert again == [True] or relieved == "at once"
    record_property("seconds", seconds)
