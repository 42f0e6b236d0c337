"""A crew of worker processes, and the one process that makes, pauses and kills them: `python -m tests.proof.chaos.crew DSN LOGS`.

It has imported all that a worker needs and forks one at each word, which costs a hundredth of starting Python anew. It is their
parent: a number of a child that it has not waited for is never given to another process, so a kill always meets whom it
means. (Whether a process lives must not be asked by its number: those come round after 32,768.)

Words on its standard input, one a line: `spawn NAME`, `kill NAME`, `pause NAME`, `continue NAME`, `ended`. It answers each with
one line: `ok`, or what `ended` by itself since the last asking. At the end of its input it kills whoever is left.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import structlog

from tests.proof.chaos import program
from tests.proof.chaos.ledger import Hand
from troth import Troth, Worker
from troth.errors import Unreachable
from troth.worker import vacuum

LEASE = timedelta(seconds=3)
CONCURRENCY = 20
CLAIMS_BETWEEN = 20
"""So that workers vacuum all the while."""
BEGIN_AGAIN_S = 0.2


def main() -> None:
    dsn, logs = sys.argv[1], Path(sys.argv[2])
    crew = Crew(dsn, logs)
    for line in sys.stdin:
        word, _, name = line.strip().partition(" ")
        sys.stdout.write(f"{crew.obey(word, name)}\n")
        sys.stdout.flush()
    crew.end()


class Crew:
    """The children, by their names."""

    def __init__(self, dsn: str, logs: Path) -> None:
        self._dsn = dsn
        self._logs = logs
        self._pids: dict[str, int] = {}

    def obey(self, word: str, name: str) -> str:
        match word:
            case "spawn":
                self._pids[name] = self._spawn(name)
            case "kill":
                pid = self._pids.pop(name)
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            case "pause":
                os.kill(self._pids[name], signal.SIGSTOP)
            case "continue":
                os.kill(self._pids[name], signal.SIGCONT)
            case "ended":
                return " ".join(self._ended())
            case _:
                return f"what is {word}?"
        return "ok"

    def end(self) -> None:
        for pid in self._pids.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _spawn(self, name: str) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                _become_worker(self._dsn, name, self._logs / f"{name}.log")
            finally:
                os._exit(1)
        return pid

    def _ended(self) -> list[str]:
        """Who is gone without having been killed: none of them should be."""
        gone = [name for name, pid in self._pids.items() if os.waitpid(pid, os.WNOHANG)[0] != 0]
        for name in gone:
            del self._pids[name]
        return gone


def _become_worker(dsn: str, name: str, log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (descriptor, 1), (descriptor, 2)):
        os.dup2(source, target)
    logging.basicConfig(level=logging.INFO)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    with patch.multiple(vacuum, CLAIMS_BETWEEN=CLAIMS_BETWEEN, DEAD_ROWS=0):
        asyncio.run(_work(dsn, name))


async def _work(dsn: str, name: str) -> None:
    while True:
        try:
            await _work_once(dsn, name)
        except Unreachable:
            await asyncio.sleep(BEGIN_AGAIN_S)  # Postgres is away at this moment


async def _work_once(dsn: str, name: str) -> None:
    hand = Hand(dsn)
    client = Troth(dsn, connections=2)
    worker = Worker(
        client,
        program.WORKFLOWS,
        concurrency=CONCURRENCY,
        lease=LEASE,
        poll=timedelta(seconds=0.5),
        name=name,
        provide={program.make_hand: lambda: hand},
    )
    hand.worker = worker
    try:
        await worker.run()
    finally:
        await client.close()


if __name__ == "__main__":
    main()
