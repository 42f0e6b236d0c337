"""What the engine's tests run things with: a client, workers in this process, and worker processes that may be killed.

Nothing here waits a fixed while: `until` asks again and again, with a deadline that only a broken engine reaches.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypedDict

import troth
from troth import PromiseInfo, Troth, Worker, Workflow

PATIENCE_S = 60.0
ROOT = Path(__file__).parents[2]


class ClientOptions(TypedDict):
    notify: bool


def client_options() -> ClientOptions:
    """How tests make clients: with TROTH_TEST_NOTIFY=off the whole suite runs without hints."""
    return {"notify": os.environ.get("TROTH_TEST_NOTIFY") != "off"}


async def until(question: Callable[[], Any], what: str = "") -> Any:
    """The first answer that is true, within a generous while. The question may be a coroutine function."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while True:
        answer = question()
        if isinstance(answer, Awaitable):
            answer = await answer
        if answer:
            return answer
        assert asyncio.get_running_loop().time() < deadline, f"it did not come to pass: {what}"
        await asyncio.sleep(0.02)


class Stage:
    """A client of one namespace, and workers in this process."""

    def __init__(self, troth: Troth, dsn: str) -> None:
        self.troth = troth
        self.dsn = dsn
        self._running: dict[Worker, asyncio.Task[None]] = {}

    def work(self, *workflows: Workflow[..., Any], client: Troth | None = None, **options: Any) -> Worker:
        """Start a worker."""
        given: dict[str, Any] = {"poll": timedelta(seconds=0.3), "grace": timedelta(seconds=5), **options}
        worker = Worker(client or self.troth, workflows, **given)
        self._running[worker] = asyncio.create_task(worker.run())
        return worker

    def ended(self, worker: Worker) -> bool:
        return self._running[worker].done()

    async def stop(self, worker: Worker) -> None:
        """Stop a worker and wait for its end; what it raised is raised."""
        worker.stop()
        await self._running.pop(worker)

    async def stop_all(self) -> None:
        for worker in list(self._running):
            await self.stop(worker)

    async def state(self, id: str) -> str:
        """`suspended`, `halted`, ... while it goes on; then how it ended."""
        promise = await self.troth.get(id)
        return promise.task.state if promise.task else promise.state

    async def reaches(self, id: str, *states: str) -> PromiseInfo:
        """Wait until a workflow's task is in one of these states, or it ended so."""

        async def look() -> PromiseInfo | None:
            promise = (await self.troth.get_many([id])).get(id)
            if promise is None:
                return None
            return promise if (promise.task.state if promise.task else promise.state) in states else None

        found: PromiseInfo = await until(look, f"{id} is {' or '.join(states)}")
        return found

    async def reason(self, id: str) -> dict[str, Any]:
        """Why a task is parked, once it is."""
        promise = await self.reaches(id, "halted")
        assert promise.task is not None
        assert promise.task.reason is not None
        return {"code": promise.task.reason.code, "message": promise.task.reason.message}

    async def exists(self, id: str) -> PromiseInfo:
        """Wait until there is a promise with this ID."""

        async def look() -> PromiseInfo | None:
            return (await self.troth.get_many([id])).get(id)

        found: PromiseInfo = await until(look, f"{id} exists")
        return found


class WorkerProcess:
    """A worker in a process of its own; see `programs/worker.py` for its options."""

    def __init__(self, dsn: str, scratch: Path, **options: Any) -> None:
        self.effects_path = scratch / "effects"
        given = {"dsn": dsn, "notify": client_options()["notify"], "scratch": str(scratch), **options}
        self.log = (scratch / f"worker-{len(list(scratch.glob('worker-*')))}.log").open("w+")
        environment = {key: value for key, value in os.environ.items() if key != "TROTH_DSN"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.programs.worker", json.dumps(given)],
            cwd=ROOT,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env=environment | {"PYTHONPATH": f"{ROOT}:{Path(troth.__file__).parents[1]}"},
        )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.process.wait()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def death(self) -> int:
        """Wait until it is gone: its exit code, negative for a signal."""
        await until(lambda: not self.alive, "the process ends")
        code = self.process.wait()
        assert code in (0, -signal.SIGKILL, 9), self.said()
        return code

    def said(self) -> str:
        return Path(self.log.name).read_text()

    def close(self) -> None:
        if self.alive:
            self.process.kill()
        self.process.wait()
        self.log.close()
