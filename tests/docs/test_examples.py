"""The examples do what they say, as real processes on a real Postgres."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

from tests.support.ports import free_port
from troth import SyncTroth

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE_S = 60.0

T = TypeVar("T")


@contextmanager
def process(*command: str, dsn: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "TROTH_DSN": dsn, "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as out:
        started = subprocess.Popen(
            command, cwd=EXAMPLES, env=environment, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        yield started
    finally:
        # granian has workers of its own, which a SIGKILL of it would leave behind
        started.terminate()
        try:
            started.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def until(look: Callable[[], T | None], what: str, log: Path) -> T:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    pytest.fail(f"{what} did not come; the log says:\n{log.read_text()}")


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_pair_of_gateway_and_worker_takes_at_most_60_lines() -> None:
    lines = [
        line
        for name in ("gateway.py", "worker.py")
        for line in (EXAMPLES / name).read_text().splitlines()
        if line.strip() and not line.strip().startswith(("#", '"""'))
    ]
    assert len(lines) <= 60


async def test_the_human_in_the_loop_pair(dsn: str, tmp_path: Path) -> None:
    port = free_port()
    worker_log, gateway_log = tmp_path / "worker.log", tmp_path / "gateway.log"
    gateway = (sys.executable, "-m", "granian", "--interface", "asgi", "--port", str(port), "gateway:app")
    with (
        process(*gateway, dsn=dsn, log=gateway_log),
        process(sys.executable, "worker.py", dsn=dsn, log=worker_log) as first,
    ):
        await asyncio.to_thread(until, lambda: answers(port), "the gateway", gateway_log)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as http:
            started = asyncio.create_task(http.post("/start-workflow", json={"workflow_id": "hitl-1"}))
            link = await asyncio.to_thread(
                until,
                lambda: re.search(r"POST http://localhost:5001(/resolve/\S+)", worker_log.read_text()),
                "the e-mail",
                worker_log,
            )
            with SyncTroth(dsn) as troth:
                await asyncio.to_thread(
                    until, lambda: _suspended(troth, "hitl-1"), "the suspension", worker_log
                )
            first.kill()  # nobody holds the workflow now
            again = asyncio.create_task(
                http.post("/start-workflow", json={"workflow_id": "hitl-1"})
            )  # reconnects
            with process(sys.executable, "worker.py", dsn=dsn, log=tmp_path / "second.log"):
                assert (await http.post(link.group(1))).text == "settled"
                assert (await http.post(link.group(1))).text == "already"
                assert (await started).text == (await again).text == "hitl-1: approved"
            refused = await http.post("/start-workflow", json={"workflow_id": "a/b"})
            assert refused.status_code == 400
            assert "is not an ID" in refused.text
            assert (tmp_path / "second.log").read_text().count("TO DECIDE") == 0


def _suspended(troth: SyncTroth, id: str) -> bool:
    task = troth.get(id).task
    return task is not None and task.state == "suspended"


def test_the_approval_of_the_readme(dsn: str, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    with (
        SyncTroth(dsn) as troth,
        process(sys.executable, "-m", "troth.cli", "worker", "approval.py", dsn=dsn, log=log),
    ):
        handle = troth.start("order-42", "approve_order", order="order-42")
        until(
            lambda: "CLICK TO DECIDE: http://localhost:8000/promises/order-42~approval" in log.read_text(),
            "the link",
            log,
        )
        assert troth.resolve("order-42~approval", False).answer == "settled"
        assert handle.result(PATIENCE_S) == "order-42: refused"
