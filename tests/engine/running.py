"""What the engine's tests run things with: a client, workers in this process, and worker processes that may be killed.

Nothing here waits a fixed while: `until` asks again and again, with a deadline that only a broken engine reaches.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, TypedDict

import psycopg

import troth
from troth import PromiseInfo, Troth, Worker, Workflow
from troth.remote import text_of

PATIENCE_S = 60.0
ROOT = Path(__file__).parents[2]


class KeepOption(TypedDict, total=False):
    keep: int


def keep_option() -> KeepOption:
    """How many suspended workflows tests' workers keep: with TROTH_TEST_KEEP=0 the whole suite runs without any."""
    return {"keep": int(os.environ["TROTH_TEST_KEEP"])} if "TROTH_TEST_KEEP" in os.environ else {}


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


def said_of(error: Exception) -> tuple[str, str]:
    """The type and the message of what a step raised, whether it came back as itself or as a `StepError`."""
    if isinstance(error, troth.StepError):
        return error.type, error.error_message
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return name, text_of(error)


class Stage:
    """A client of one namespace, and workers in this process."""

    def __init__(self, troth: Troth, dsn: str) -> None:
        self.troth = troth
        self.dsn = dsn
        self._running: dict[Worker, asyncio.Task[None]] = {}

    def work(self, *workflows: Workflow[..., Any], client: Troth | None = None, **options: Any) -> Worker:
        """Start a worker."""
        short: dict[str, Any] = {"poll": timedelta(seconds=0.3), "grace": timedelta(seconds=5)}
        given = {**short, **keep_option(), **options}
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

    async def lets_go(self, id: str) -> None:
        """Wait until no worker has it under way: a suspension is to be read before its worker hears of it, and keeps the code."""
        await until(lambda: not any(id in worker._runs for worker in self._running))

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


def worker_options(dsn: str, scratch: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """All that `programs/worker.py` is told."""
    return {
        "dsn": dsn,
        "notify": client_options()["notify"],
        "scratch": str(scratch),
        **keep_option(),
        **options,
    }


def _path() -> dict[str, str]:
    return {"PYTHONPATH": f"{ROOT}:{Path(troth.__file__).parents[1]}"}


class WorkerProcess:
    """A worker in a process of its own; see `programs/worker.py` for its options, and `hash_seed` for its PYTHONHASHSEED."""

    def __init__(self, dsn: str, scratch: Path, **options: Any) -> None:
        self.effects_path = scratch / "effects"
        hash_seed = options.pop("hash_seed", None)
        given = worker_options(dsn, scratch, options)
        self.log = (scratch / f"worker-{len(list(scratch.glob('worker-*')))}.log").open("w+")
        environment = {key: value for key, value in os.environ.items() if key != "TROTH_DSN"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.programs.worker", json.dumps(given)],
            cwd=ROOT,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env=environment | _path() | ({} if hash_seed is None else {"PYTHONHASHSEED": str(hash_seed)}),
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


class Zygote:
    """A process that has imported everything once and forks workers on request, in milliseconds where a process of its own
    takes a second. It tells pids and deaths; all that it made ends with it. See `programs/branches_zygote.py`."""

    def __init__(self, dsn: str, scratch: Path, *modules: str, **options: Any) -> None:
        self._options = worker_options(
            dsn, scratch, {"modules": modules, "log": str(scratch / "forks.log"), **options}
        )
        self._heard = b""
        self._pids: list[int] = []
        self._codes: dict[int, int] = {}
        self._line, theirs = socket.socketpair()
        environment = {key: value for key, value in os.environ.items() if key != "TROTH_DSN"}
        with theirs:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.engine.programs.branches_zygote"),
                    *(str(theirs.fileno()), str(scratch), json.dumps(modules)),
                ],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                env=environment | _path(),
            )
        self._line.settimeout(PATIENCE_S)

    def fork(self, **options: Any) -> Fork:
        """A new worker; options beside those that all have."""
        self._line.sendall(json.dumps({"fork": {**self._options, **options}}).encode() + b"\n")
        while not self._pids:
            self._hear()
        return Fork(self, self._pids.pop())

    def kill(self, pid: int) -> None:
        """End a worker by SIGKILL, if it lives: its parent does it, so that the pid is nobody else's."""
        self._line.sendall(json.dumps({"kill": pid}).encode() + b"\n")

    def code(self, pid: int) -> int | None:
        """With which code a worker ended, negative for a signal; None if it lives."""
        self._line.setblocking(False)
        try:
            while pid not in self._codes:
                self._hear()
        except BlockingIOError:
            pass
        finally:
            self._line.settimeout(PATIENCE_S)
        return self._codes.get(pid)

    def said(self) -> str:
        """What all the workers wrote."""
        log = Path(self._options["log"])
        return log.read_text() if log.exists() else ""

    def close(self) -> None:
        """End it, and all that it forked."""
        self._line.close()
        if self.process.poll() is not None:
            return
        try:
            self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait()

    def _hear(self) -> None:
        more = self._line.recv(65536)
        assert more, f"the zygote ended\n{self.said()[-5000:]}"
        *told, self._heard = (self._heard + more).split(b"\n")
        for line in map(json.loads, told):
            if "died" in line:
                self._codes[line["died"]] = line["code"]
            else:
                self._pids.append(line["pid"])


class Fork:
    """A worker process that a `Zygote` made."""

    def __init__(self, zygote: Zygote, pid: int) -> None:
        self._zygote = zygote
        self.pid = pid

    @property
    def alive(self) -> bool:
        return self._zygote.code(self.pid) is None

    def kill(self) -> None:
        """End it by SIGKILL, wherever it is."""
        self._zygote.kill(self.pid)

    async def death(self) -> int:
        """Wait until it is gone: its exit code, negative for a signal."""
        await until(lambda: not self.alive, "the fork ends")
        code = self._zygote.code(self.pid)
        assert code in (0, -signal.SIGKILL), self._zygote.said()[-5000:]
        return code


def bury(db: psycopg.Connection[Any], pids: Collection[int]) -> None:
    """Have the workers with these pids, which are gone, found dead now and not when their leases end."""
    buried = db.execute(
        "update worker set seen_at = seen_at - interval '2 days' where died_at is null and (info ->> 'pid')::integer = any (%s)",
        [list(pids)],
    )
    if buried.rowcount:
        db.execute("select tick()")
